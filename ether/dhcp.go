package ether

import "encoding/binary"

// Ports of DHCP (RFC 2131 section 4.1, RFC 8415 section 7.2). A relay agent listens on the server's.
const (
	PortDHCPServer   = 67
	PortDHCPClient   = 68
	PortDHCPv6Client = 546
	PortDHCPv6Server = 547
)

// isDHCP reports whether a UDP datagram between these ports is DHCP's, of either family.
func isDHCP(src, dst uint16) bool {
	return isDHCPPort(src) || isDHCPPort(dst)
}

func isDHCPPort(port uint16) bool {
	return port == PortDHCPServer || port == PortDHCPClient || port == PortDHCPv6Client || port == PortDHCPv6Server
}

// DHCP is a view over a DHCP message for Ethernet (RFC 2131 section 2):
//
//	 0       1       2       3       4        12         16    24         28            44   236      240
//	+-------+-------+-------+-------+- - - - +----------+- - -+----------+-------------+- - +--------+- - - - -
//	|  op   | htype | hlen  | hops  |        |  ciaddr  |     |  giaddr  | chaddr (16) |    | cookie | options
//	+-------+-------+-------+-------+- - - - +----------+- - -+----------+-------------+- - +--------+- - - - -
type DHCP struct {
	Op        uint8
	ClientIP  [4]byte // ciaddr: the client's address, if it has one
	Relay     [4]byte // giaddr: the relay agent's, if one has passed the message on
	Client    MAC     // chaddr
	Message   uint8   // what kind of message it is; 0 if it does not say
	Requested [4]byte // the address that it is about
}

// What DHCP messages are (RFC 2131 section 2, RFC 2132 section 9.6).
const (
	BootRequest = 1
	BootReply   = 2

	DHCPDecline = 4
	DHCPRelease = 7
)

// ParseDHCP looks at what is in a UDP datagram. It reports false if a part is missing, if the client is not on an Ethernet, and
// if what the options say cannot be told for certain: one that is cut, one that decides and is there twice, and options that go
// on in other fields (RFC 2132 section 9.3), which no client needs. Servers differ in what they make of those.
func ParseDHCP(p []byte) (d DHCP, ok bool) {
	const fixed, cookie, ethernet = 236, 0x63825363, 1 // RFC 2131 section 3
	if len(p) < fixed+4 || p[1] != ethernet || p[2] != 6 || binary.BigEndian.Uint32(p[fixed:]) != cookie {
		return DHCP{}, false
	}
	d = DHCP{Op: p[0], ClientIP: [4]byte(p[12:16]), Relay: [4]byte(p[24:28]), Client: MAC(p[28:34])}
	return d, d.readOptions(p[fixed+4:])
}

func (d *DHCP) readOptions(p []byte) bool {
	const pad, requested, overload, message, end = 0, 50, 52, 53, 255 // RFC 2132 sections 3 and 9
	seen := [2]bool{}
	for len(p) > 0 && p[0] != end {
		if p[0] == pad {
			p = p[1:]
			continue
		}
		if len(p) < 2 || len(p) < 2+int(p[1]) {
			return false
		}
		value := p[2 : 2+int(p[1])]
		switch p[0] {
		case overload:
			return false
		case message:
			if seen[0] || len(value) != 1 {
				return false
			}
			seen[0], d.Message = true, value[0]
		case requested:
			if seen[1] || len(value) != 4 {
				return false
			}
			seen[1], d.Requested = true, [4]byte(value)
		}
		p = p[2+len(value):]
	}
	return true
}

// Messages of DHCPv6 (RFC 8415 section 7.3), each in the first byte.
const (
	DHCPv6Advertise   = 2
	DHCPv6Reply       = 7
	DHCPv6Release     = 8
	DHCPv6Decline     = 9
	DHCPv6Reconfigure = 10
	DHCPv6RelayForw   = 12
	DHCPv6RelayRepl   = 13
)
