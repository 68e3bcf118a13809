package dhcpd

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"

	"github.com/etherloom/etherloom/ether"
)

// message is a question that could be read.
type message struct {
	*dhcpv4.DHCPv4

	client    ether.MAC
	ciaddr    netip.Addr // invalid: the client has none
	requested netip.Addr // option 50; invalid: none
	server    netip.Addr // option 54; invalid: none
}

// parse reads a question out of a frame; nil if it is none of a client on an Ethernet that asks for itself.
func parse(frame []byte) *message {
	f, err := ether.Parse(frame)
	if err != nil || f.Type != ether.TypeIPv4 {
		return nil
	}
	ip, ok := ether.ParseIPv4(f.Payload)
	if !ok || ip.Protocol != ether.ProtoUDP || ip.Fragment {
		return nil
	}
	payload, ok := ether.ParseUDP(ip.Payload)
	if !ok {
		return nil
	}
	d, ok := ether.ParseDHCP(payload) // as the guard read it, so that both mean the same
	if !ok || d.Op != ether.BootRequest || d.Relay != [4]byte{} || d.Client != f.Src {
		return nil
	}
	p, err := dhcpv4.FromBytes(payload)
	if err != nil {
		return nil
	}
	m := &message{DHCPv4: p, client: d.Client, server: addrOf(p.ServerIdentifier())}
	if d.ClientIP != [4]byte{} {
		m.ciaddr = netip.AddrFrom4(d.ClientIP)
	}
	if d.Requested != [4]byte{} {
		m.requested = netip.AddrFrom4(d.Requested)
	}
	return m
}

func addrOf(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// name is what a host calls itself.
func (m *message) name() string {
	out := []byte{}
	for _, r := range []byte(m.HostName()) {
		if r > ' ' && r <= '~' && len(out) < 63 {
			out = append(out, r)
		}
	}
	return string(out)
}

// address is which one the client means (RFC 2131 section 4.3.2).
func (m *message) address() netip.Addr {
	if m.requested.IsValid() {
		return m.requested
	}
	return m.ciaddr
}

// answer makes a message of the service's (RFC 2131 section 4.3.1, table 3). yours is the client's address with the length of its
// prefix; not valid: it is given none.
func (s *Service) answer(m *message, t dhcpv4.MessageType, yours netip.Prefix) []byte {
	st := &s.state
	d, err := dhcpv4.NewReplyFromRequest(m.DHCPv4, dhcpv4.WithMessageType(t), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP(st.Server.AsSlice()))))
	if err != nil {
		return nil
	}
	d.GatewayIPAddr = net.IPv4zero
	if id := m.Options.Get(dhcpv4.OptionClientIdentifier); len(id) > 0 { // RFC 6842 section 3
		d.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientIdentifier, id))
	}
	if t == dhcpv4.MessageTypeNak {
		return s.frame(d, ether.Broadcast, [4]byte{255, 255, 255, 255})
	}
	bits := st.Prefix.Bits()
	if yours.IsValid() {
		d.YourIPAddr = net.IP(yours.Addr().AsSlice())
		d.UpdateOption(dhcpv4.OptIPAddressLeaseTime(st.Lease))
		d.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionRenewTimeValue, seconds(st.Lease/2)))
		d.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionRebindingTimeValue, seconds(st.Lease/8*7)))
		if !st.Prefix.Contains(yours.Addr()) && yours.Bits() < 32 {
			bits = yours.Bits()
		}
	}
	d.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(bits, 32)))
	if st.Router.IsValid() {
		d.UpdateOption(dhcpv4.OptRouter(net.IP(st.Router.AsSlice())))
	}
	if len(st.DNS) > 0 {
		var list []net.IP
		for _, a := range st.DNS {
			list = append(list, net.IP(a.AsSlice()))
		}
		d.UpdateOption(dhcpv4.OptDNS(list...))
	}
	if st.Domain != "" {
		d.UpdateOption(dhcpv4.OptDomainName(st.Domain))
		d.UpdateOption(dhcpv4.OptDomainSearch(&rfc1035label.Labels{Labels: []string{st.Domain}}))
	}
	d.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, binary.BigEndian.AppendUint16(nil, uint16(st.MTU)))) //nolint:gosec // at most 9216
	mac, ip := s.to(m, yours)
	return s.frame(d, mac, ip)
}

func seconds(d time.Duration) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(d/time.Second)) //nolint:gosec // at most thirty days
}

// to is where an OFFER or ACK goes (RFC 2131 section 4.1).
func (s *Service) to(m *message, yours netip.Prefix) (ether.MAC, [4]byte) {
	switch {
	case m.ciaddr.IsValid():
		return m.client, m.ciaddr.As4()
	case m.IsBroadcast() || !yours.IsValid():
		return ether.Broadcast, [4]byte{255, 255, 255, 255}
	}
	return m.client, yours.Addr().As4()
}

// frame puts a message into a datagram from the service.
func (s *Service) frame(d *dhcpv4.DHCPv4, to ether.MAC, dst [4]byte) []byte {
	const ipLen, udpLen, ttl = 20, 8, 64
	body := d.ToBytes()
	b := append(append(make([]byte, 0, ether.HeaderLen+ipLen+udpLen+len(body)), to[:]...), s.state.MAC[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(ether.TypeIPv4))
	src := s.state.Server.As4()
	ip := len(b)
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(ipLen+udpLen+len(body))) //nolint:gosec // a message has few options
	b = append(b, 0, 0, 0, 0, ttl, byte(ether.ProtoUDP), 0, 0)
	b = append(append(b, src[:]...), dst[:]...)
	binary.BigEndian.PutUint16(b[ip+10:], ether.Checksum(0, b[ip:]))
	udp := len(b)
	b = append(b, 0, ether.PortDHCPServer, 0, ether.PortDHCPClient)
	b = binary.BigEndian.AppendUint16(b, uint16(udpLen+len(body))) //nolint:gosec // the same
	b = append(append(b, 0, 0), body...)
	// RFC 768: the pseudo header has both addresses, the protocol and the length.
	pseudo := ether.Sum(ether.Sum(0, b[ip+12:ip+20]), []byte{0, byte(ether.ProtoUDP), b[udp+4], b[udp+5]})
	sum := ether.Checksum(pseudo, b[udp:])
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[udp+6:], sum)
	return b
}

// probe asks everybody on the VLAN who has an address (RFC 5227 section 2.1.1).
func (s *Service) probe(a netip.Addr) []byte {
	b := append(append([]byte{}, ether.Broadcast[:]...), s.state.MAC[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(ether.TypeARP))
	return ether.AppendARP(b, ether.ARP{Op: ether.ARPRequest, SenderMAC: s.state.MAC, TargetIP: a.As4()})
}
