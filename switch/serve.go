package vswitch

import (
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// This file takes out of the stream of frames what machines behind an attached port send to the segment's own DHCP service. This gateway
// answers them in the service's name, and no other machine or node hears of it:
//
//	ARP for the service's address        answered here
//	DHCP to everybody, or to the service  handed to the Server
//	anything else for the service's MAC  nobody's
//
// What a DHCP server or relay agent of the segment's sends (policy.DHCPServer) goes its way, as without a service.

// Server answers the questions that machines ask the segment's DHCP service.
type Server interface {
	// Ask takes a question that a machine behind an attached port has sent, and that is admitted. The frame is borrowed until Ask returns.
	Ask(port *Port, who policy.Identity, frame []byte, now time.Time)
	// Squats tells that somebody behind an attached port says that it has an address of the service's that it may not use.
	Squats(port *Port, mac ether.MAC, addr [4]byte, now time.Time)
}

// SetServer says who answers in the name of the segment's DHCP service; nil: nobody.
func (s *Segment) SetServer(server Server) {
	if server == nil {
		s.server.Store(nil)
		return
	}
	s.server.Store(&server)
}

// serve answers what is for the segment's DHCP service. What is Forwarded goes on its way.
func (s *Segment) serve(l *layout, c *carriage) Drop {
	service := l.policy.Service()
	server := s.server.Load()
	if service == nil || server == nil || c.in.Kind != Attached {
		return Forwarded
	}
	q, _ := questionOf(&c.Frame) // of what asks nothing the target is none
	if !q.v6 && q.target == ether.Mapped(service.Address) {
		if c.asked == nil {
			c.in.send(q.answer(&c.Frame, service.MAC), ether.Offload{}, Tag{}, c.lane)
		}
		return Answered
	}
	mine := c.Frame.Dst == service.MAC
	if !mine && (c.Frame.Dst != ether.Broadcast || l.policy.Station(c.Source).Roles.Has(policy.DHCPServer)) {
		return Forwarded
	}
	switch {
	case toDHCPServer(&c.Frame):
		if c.asked == nil {
			(*server).Ask(c.in, c.Source, c.Frame.Data, c.Now)
		}
		return Answered
	case mine:
		return DropNoReceiver
	}
	return Forwarded
}

// toDHCPServer reports whether a frame is a whole datagram to the port of DHCP servers.
func toDHCPServer(f *ether.Frame) bool {
	if f.Type != ether.TypeIPv4 {
		return false
	}
	ip, _ := ether.ParseIPv4(f.Payload) // of what is no packet the protocol is none
	if ip.Protocol != ether.ProtoUDP || ip.Fragment {
		return false
	}
	_, dst, _ := ether.Ports(ip.Payload) // of what is cut the port is none
	return dst == ether.PortDHCPServer
}

// squat tells the server of a refused ARP frame whose sender says that it has an address that it may not use. The server asks so
// before it offers one (RFC 2131 section 2.2), and hears the answer by this.
func (s *Segment) squat(l *layout, c *carriage, drop Drop) {
	server := s.server.Load()
	if drop != Drop(policy.ARPSender) || server == nil || l.policy.Service() == nil || c.in.Kind != Attached {
		return
	}
	arp, _ := ether.ParseARP(c.Frame.Payload) // of what is no ARP the sender has no address
	if arp.SenderIP != [4]byte{} && arp.SenderMAC == c.Frame.Src {
		(*server).Squats(c.in, arp.SenderMAC, arp.SenderIP, c.Now)
	}
}
