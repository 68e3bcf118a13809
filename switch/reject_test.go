package vswitch

import (
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// answered parses what the host was sent, whose checksums must be right.
func (r *rig) answered() gopacket.Packet {
	r.t.Helper()
	s := r.out[1]
	defer s.take()
	if len(s.frames) == 0 {
		return nil
	}
	p := gopacket.NewPacket(s.frames[0], layers.LayerTypeEthernet, gopacket.Default)
	if e := p.ErrorLayer(); e != nil || len(s.frames) > 1 {
		r.t.Fatalf("%d frames, %v", len(s.frames), e)
	}
	if b := s.frames[0]; b[12] == 8 && ether.Checksum(0, b[14:34]) != 0 {
		r.t.Error("wrong checksum of the IPv4 header")
	}
	eth := p.LinkLayer().(*layers.Ethernet)
	if ether.MAC(eth.DstMAC) != macOf(1) || ether.MAC(eth.SrcMAC) != macOf(2) {
		r.t.Errorf("from %v to %v", eth.SrcMAC, eth.DstMAC)
	}
	flow := p.NetworkLayer().NetworkFlow()
	if src, dst := flow.Endpoints(); (src.String() != addrOf(2).String() || dst.String() != addrOf(1).String()) &&
		(src.String() != addr6Of(2).String() || dst.String() != addr6Of(1).String()) {
		r.t.Errorf("from %v to %v", src, dst)
	}
	body := p.NetworkLayer().LayerPayload()
	quoted := packet{src: addrOf(2), dst: addrOf(1)}
	protocol := ether.ProtoTCP
	if p.NetworkLayer().LayerType() == layers.LayerTypeIPv6 {
		quoted.src, quoted.dst = addr6Of(2), addr6Of(1)
	}
	switch {
	case p.Layer(layers.LayerTypeICMPv4) != nil:
		if ether.Checksum(0, body) != 0 {
			r.t.Error("wrong checksum of ICMP")
		}
		return p
	case p.Layer(layers.LayerTypeICMPv6) != nil:
		protocol = ether.ProtoICMPv6
	}
	if ether.Checksum(quoted.pseudo(protocol, len(body)), body) != 0 {
		r.t.Error("wrong checksum behind the IP header")
	}
	return p
}

// A refused segment is answered by the reset that RFC 9293 section 3.10.7.1 demands.
func TestRejectTCP(t *testing.T) {
	text := gopacket.Payload("hello")
	for _, v6 := range []bool{false, true} {
		for _, c := range []struct {
			name          string
			in            []gopacket.SerializableLayer
			seq, ack      uint32
			acks, refused bool
		}{
			{"SYN", []gopacket.SerializableLayer{syn(80)}, 0, 1001, true, true},
			{"SYN with data", []gopacket.SerializableLayer{syn(80), text}, 0, 1006, true, true},
			{"FIN without ACK", []gopacket.SerializableLayer{&layers.TCP{SrcPort: 4242, DstPort: 80, Seq: 7, FIN: true}}, 0, 8, true, true},
			{"ACK", []gopacket.SerializableLayer{&layers.TCP{SrcPort: 4242, DstPort: 80, Seq: 7, Ack: 99, ACK: true}, text}, 99, 0, false, true},
			{"RST", []gopacket.SerializableLayer{&layers.TCP{SrcPort: 4242, DstPort: 80, Seq: 7, RST: true}}, 0, 0, false, false},
			{"what passes", []gopacket.SerializableLayer{syn(22)}, 0, 0, false, false},
		} {
			r := newRig(t)
			r.sshOnly()
			r.seg.SetReject(true)
			r.enter(1, ipFrame(1, 2, v6, c.in...))
			p := r.answered()
			if (p != nil) != c.refused {
				t.Errorf("%s: answered %v", c.name, p)
			}
			if p == nil {
				continue
			}
			rst, _ := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
			if rst == nil || !rst.RST || rst.ACK != c.acks || rst.Seq != c.seq || rst.Ack != c.ack || rst.SrcPort != 80 || rst.DstPort != 4242 || rst.SYN || rst.FIN {
				t.Errorf("%s: answered %v", c.name, p)
			}
			r.seen(sent{}) // nobody else hears of it
		}
	}
}

// Other refused packets are answered by an error that quotes them; what must not be answered is not.
func TestRejectOthers(t *testing.T) {
	udp := func(size int) []gopacket.SerializableLayer {
		return []gopacket.SerializableLayer{&layers.UDP{SrcPort: 4242, DstPort: 53}, gopacket.Payload(make([]byte, size))}
	}
	echo4 := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 1}
	echo6 := []gopacket.SerializableLayer{&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}, &layers.ICMPv6Echo{Identifier: 1}}
	timeExceeded := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(11, 0)}
	redirect := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(5, 1)}
	later := func() []byte {
		f := ipFrame(1, 2, false, udp(100)...)
		f[14+7] = 10 // offset
		return f
	}
	edit := func(f []byte, at int, with ...byte) []byte { copy(f[at:], with); return f }
	for _, c := range []struct {
		name    string
		in      []byte
		answer  int // length of the IP packet; 0: none
		from    policy.Identity
		prepare func(*rig)
	}{
		{name: "UDP", in: ipFrame(1, 2, false, udp(100)...), answer: 20 + 8 + 128},
		{name: "long UDP", in: ipFrame(1, 2, false, udp(1400)...), answer: 576},
		{name: "UDP6", in: ipFrame(1, 2, true, udp(100)...), answer: 40 + 8 + 148},
		{name: "long UDP6", in: ipFrame(1, 2, true, udp(1400)...), answer: 1280},
		{name: "echo request", in: ipFrame(1, 2, false, echo4), answer: 20 + 8 + 28},
		{name: "echo request 6", in: ipFrame(1, 2, true, echo6...), answer: 40 + 8 + 48},
		{name: "GRE", in: ipFrame(1, 2, false, gopacket.Payload("\x00\x00\x08\x00")), answer: 20 + 8 + 24},
		{name: "with padding", in: append(ipFrame(1, 2, false, udp(1)...), 0, 0, 0, 0), answer: 20 + 8 + 29},
		{name: "ICMP error", in: ipFrame(1, 2, false, timeExceeded, gopacket.Payload(make([]byte, 28)))},
		{name: "redirect", in: ipFrame(1, 2, false, redirect, gopacket.Payload(make([]byte, 28)))},
		{name: "later fragment", in: later(), prepare: func(r *rig) {
			first := ipFrame(1, 2, false, udp(72)...)
			first[14+6] = 0x20 // more
			r.enter(1, first)
			r.out[1].take()
		}},
		{name: "first fragment", in: edit(ipFrame(1, 2, false, udp(72)...), 14+6, 0x20), answer: 20 + 8 + 100},
		{name: "IP of a group in a frame for one", in: edit(ipFrame(1, 2, false, udp(1)...), 14+16, 239, 0, 0, 1)},
		{name: "IP of everybody in a frame for one", in: edit(ipFrame(1, 2, false, udp(1)...), 14+16, 255, 255, 255, 255)},
		{name: "IP of nobody", in: edit(ipFrame(1, 2, false, udp(1)...), 14+16, 0, 0, 0, 0)},
		{name: "echo reply", in: ipFrame(1, 2, false, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(0, 0), Id: 1})},
		{name: "echo reply 6", in: ipFrame(1, 2, true, &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(129, 0)}, gopacket.Payload(make([]byte, 4)))},
		{name: "frame for a group", in: edit(ipFrame(1, 2, false, udp(1)...), 0, 1)},
		{name: "cut UDP", in: edit(ipFrame(1, 2, false, gopacket.Payload("\x10\x92\x00\x35")), 14+9, 17)},
		{name: "no IP", in: data(macOf(2), macOf(1), experimental, "")},
		{name: "spoofed", in: ipFrame(3, 2, false, udp(1)...)},
		{name: "from a peer", in: ipFrame(2, 1, false, udp(1)...), from: 2},
		{name: "not wanted", in: ipFrame(1, 2, false, udp(1)...), prepare: func(r *rig) { r.seg.SetReject(false) }},
		{name: "only asked", in: make([]byte, 14), prepare: func(r *rig) {
			r.seg.Explain(r.ports[1], ipFrame(1, 2, false, udp(1)...), Tag{}, r.now)
		}},
	} {
		r := newRig(t)
		r.sshOnly()
		r.seg.SetReject(true)
		if c.prepare != nil {
			c.prepare(r)
		}
		if c.from == 0 {
			c.from = 1
		}
		r.enter(c.from, c.in)
		p := r.answered()
		r.seen(sent{})
		if p == nil {
			if c.answer != 0 {
				t.Errorf("%s: no answer", c.name)
			}
			continue
		}
		length := len(p.NetworkLayer().LayerContents()) + len(p.NetworkLayer().LayerPayload())
		v4, _ := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
		v6, _ := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
		if length != c.answer || (v4 == nil || v4.TypeCode != layers.CreateICMPv4TypeCode(3, 13)) && (v6 == nil || v6.TypeCode != layers.CreateICMPv6TypeCode(1, 1)) {
			t.Errorf("%s: %d bytes, want %d: %v", c.name, length, c.answer, p)
		}
	}
}

// Only what grants refuse is answered, and no more than a hundred times a second.
func TestRejectLimits(t *testing.T) {
	r := newRig(t)
	r.sshOnly()
	r.seg.SetReject(true)
	frame := ipFrame(1, 2, false, syn(80))
	for range 3 * maxRejects {
		r.enter(1, frame)
	}
	if n := r.out[1].take(); n != maxRejects {
		t.Errorf("%d answers in a moment", n)
	}
	r.now = r.now.Add(time.Second)
	r.enter(1, frame)
	if n := r.out[1].take(); n != 1 {
		t.Errorf("%d answers a second later", n)
	}
	if d := r.enter(1, ipFrame(1, 3, false, syn(80))); d != Drop(policy.NoGrant) || r.out[1].take() != 1 {
		t.Errorf("without a grant: %q", d)
	}
	r.grant(1, 2, 3)
	if d := r.enter(1, ipFrame(1, 4, false, syn(80))); d != Drop(policy.NotMember) || r.out[1].take() != 1 {
		t.Errorf("to one that is no member: %q", d)
	}
	r.seg.SetPolicy(policy.Compile(policy.Rules{
		Generation: 99, Expires: r.now, Stations: map[policy.Identity]*policy.Station{1: r.seg.Policy().Station(1), 2: r.seg.Policy().Station(2)},
	}), r.now)
	if d := r.enter(1, frame); d != Drop(policy.PolicyExpired) {
		t.Errorf("%q", d)
	}
	if n := r.out[1].take(); n != 0 {
		t.Error("what is void is answered")
	}
}

// FuzzReject: whatever a host sends, what it is told is a frame that can be parsed, for it alone, and no longer than allowed.
func FuzzReject(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		f.Add(ipFrame(1, 2, v6, syn(80)))
		f.Add(ipFrame(1, 2, v6, &layers.UDP{SrcPort: 1, DstPort: 2}, gopacket.Payload("x")))
		f.Add(ipFrame(1, 2, v6, gopacket.Payload("\x00\x00\x08\x00")))
	}
	f.Add(ipFrame(1, 2, false, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0)}))
	f.Fuzz(func(t *testing.T, frame []byte) {
		r := newRig(t)
		r.sshOnly()
		r.seg.SetReject(true)
		r.enter(1, frame)
		for _, answer := range r.out[1].frames {
			p := gopacket.NewPacket(answer, layers.LayerTypeEthernet, gopacket.Default)
			eth := p.LinkLayer().(*layers.Ethernet)
			if e := p.ErrorLayer(); e != nil && p.NetworkLayer() == nil || ether.MAC(eth.DstMAC) != macOf(1) || len(answer) > 14+1280 {
				t.Errorf("%x is answered by %x: %v", frame, answer, e)
			}
		}
		if len(r.out[1].frames) > 1 {
			t.Errorf("%x is answered by %d frames", frame, len(r.out[1].frames))
		}
	})
}
