package ether

import "encoding/binary"

// ARP is a view over an ARP or RARP packet for IPv4 over Ethernet (RFC 826, RFC 903).
type ARP struct {
	Op        uint16
	SenderMAC MAC
	SenderIP  [4]byte
	TargetMAC MAC
	TargetIP  [4]byte
}

// ARP operations (IANA).
const (
	ARPRequest  = 1
	ARPReply    = 2
	RARPRequest = 3
	RARPReply   = 4
)

// arpLen is the length of a packet whose addresses are 6 and 4 bytes.
const arpLen = 28

// ParseARP looks at the payload of an ARP frame. It reports false for anything but IPv4 over Ethernet.
func ParseARP(p []byte) (ARP, bool) {
	const ethernet, ipv4 = 1, uint16(TypeIPv4)
	if len(p) < arpLen || binary.BigEndian.Uint16(p) != ethernet || binary.BigEndian.Uint16(p[2:]) != ipv4 ||
		p[4] != 6 || p[5] != 4 {
		return ARP{}, false
	}
	return ARP{
		Op:        binary.BigEndian.Uint16(p[6:]),
		SenderMAC: MAC(p[8:14]), SenderIP: [4]byte(p[14:18]),
		TargetMAC: MAC(p[18:24]), TargetIP: [4]byte(p[24:28]),
	}, true
}

// AppendARP appends the payload of an ARP frame.
//
//	+--------+--------+----+----+------+---------+---------+---------+---------+
//	|   1    | 0x0800 | 6  | 4  |  op  | sender  | sender  | target  | target  |
//	|        |        |    |    |      | MAC (6) | IP (4)  | MAC (6) | IP (4)  |
//	+--------+--------+----+----+------+---------+---------+---------+---------+
func AppendARP(b []byte, a ARP) []byte {
	b = append(b, 0, 1, byte(TypeIPv4>>8), byte(TypeIPv4&0xff), 6, 4)
	b = binary.BigEndian.AppendUint16(b, a.Op)
	b = append(append(b, a.SenderMAC[:]...), a.SenderIP[:]...)
	return append(append(b, a.TargetMAC[:]...), a.TargetIP[:]...)
}
