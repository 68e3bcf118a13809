package policy

import (
	"sync"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// opening is a packet by which 1 begins a flow with 2.
func opening(p ether.Protocol) ether.Frame {
	switch p {
	case ether.ProtoTCP:
		return ip(1, 2, p, tcp(9, 80, flagSYN, 0))
	case ether.ProtoICMP:
		return ip(1, 2, p, icmp(echoV4, 3))
	default:
		return ip(1, 2, p, udp(9, 53, 0))
	}
}

// answering is a packet by which 2 answers it.
func answering(p ether.Protocol) ether.Frame {
	switch p {
	case ether.ProtoTCP:
		return ip(2, 1, p, tcp(80, 9, flagSYN|flagACK, 0))
	case ether.ProtoICMP:
		return ip(2, 1, p, icmp(replyV4, 3))
	default:
		return ip(2, 1, p, udp(53, 9, 0))
	}
}

func TestFlowIdle(t *testing.T) {
	const short, long, udpTime, echoTime = 4 * time.Minute, 124 * time.Minute, 5 * time.Minute, time.Minute
	syn, ack, fin := ip(1, 2, ether.ProtoTCP, tcp(9, 80, flagSYN, 0)), ip(1, 2, ether.ProtoTCP, tcp(9, 80, flagACK, 0)), ip(1, 2, ether.ProtoTCP, tcp(9, 80, flagFIN|flagACK, 0))
	back := answering(ether.ProtoTCP)
	backRST := ip(2, 1, ether.ProtoTCP, tcp(80, 9, flagRST|flagACK, 0))
	for _, c := range []struct {
		name   string
		frames []ether.Frame // those of 2 are answers
		idle   time.Duration
		last   ether.Frame
	}{
		{"UDP", []ether.Frame{opening(ether.ProtoUDP)}, udpTime, answering(ether.ProtoUDP)},
		{"UDP, answered", []ether.Frame{opening(ether.ProtoUDP), answering(ether.ProtoUDP)}, udpTime, answering(ether.ProtoUDP)},
		{"echo", []ether.Frame{opening(ether.ProtoICMP)}, echoTime, answering(ether.ProtoICMP)},
		{"another protocol", []ether.Frame{ip(1, 2, 47, nil)}, udpTime, ip(2, 1, 47, nil)},
		{"TCP, not answered", []ether.Frame{syn}, short, back},
		{"TCP, established", []ether.Frame{syn, back, ack}, long, back},
		{"TCP, established before this node was", []ether.Frame{ack, back}, long, back},
		{"TCP, ending", []ether.Frame{syn, back, fin}, short, back},
		{"TCP, ended by who answers", []ether.Frame{syn, backRST}, short, back},
		{"TCP, ended by its first packet", []ether.Frame{fin, back}, short, back},
		{"TCP, its ports used again", []ether.Frame{syn, back, fin, syn, back}, long, back},
		{"TCP, its ports used again, not answered", []ether.Frame{syn, back, fin, syn}, short, back},
	} {
		for _, past := range []bool{false, true} {
			n := newNetwork(t, toNode(t, 1, "tcp", "udp", "icmp", "proto:47"))
			for i, f := range c.frames {
				source := Identity(f.Src[5])
				if got := n.send(source, 3-source, f); got != Pass {
					t.Fatalf("%s: frame %d: %q", c.name, i, got)
				}
			}
			n.now = n.now.Add(c.idle)
			want := Pass
			if past {
				n.now, want = n.now.Add(1), NotAllowed
			}
			if got := n.send(2, 1, c.last); got != want {
				t.Errorf("%s: answered after %v: %q, want %q", c.name, n.now.Sub(t0), got, want)
			}
		}
	}
}

// A flow that is forgotten, and whose ports are used again, is another.
func TestFlowBeginsAnew(t *testing.T) {
	n := newNetwork(t, toNode(t, 1, "tcp"))
	ack, back := ip(1, 2, ether.ProtoTCP, tcp(9, 80, flagACK, 0)), ip(2, 1, ether.ProtoTCP, tcp(80, 9, flagACK, 0))
	n.send(1, 2, ack)
	n.send(2, 1, back)
	n.now = n.now.Add(tcpEstablished + 1)
	n.send(1, 2, ack)
	n.now = n.now.Add(tcpTransitory + 1)
	if got := n.send(2, 1, back); got != NotAllowed {
		t.Errorf("answer to a flow that was never answered: %q", got)
	}
}

// Each packet of a flow, either way, begins its time anew; errors about it and what is refused do not.
func TestFlowIsKeptAlive(t *testing.T) {
	about := icmpError(3, 3, addressOf(2), addressOf(1), packetV4(addressOf(1), addressOf(2), ether.ProtoUDP, 1, 0, false, udp(9, 53, 0)))
	for _, c := range []struct {
		name   string
		grant  GrantID
		source Identity
		f      ether.Frame
		want   Verdict
		lives  bool
	}{
		{"the opener's", 1, 1, opening(ether.ProtoUDP), Pass, true},
		{"an answer", 1, 2, answering(ether.ProtoUDP), Pass, true},
		{"an error about it", 1, 2, about, Pass, false},
		{"an answer by another grant", 2, 2, answering(ether.ProtoUDP), WrongGrant, false},
	} {
		n := newNetwork(t, toNode(t, 1, "udp"), toNode(t, 2, "tcp"))
		n.send(1, 2, opening(ether.ProtoUDP))
		n.now = n.now.Add(4 * time.Minute)
		if got := n.deliver(c.source, 3-c.source, c.f, c.grant); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		n.now = n.now.Add(4 * time.Minute)
		at := 3 - c.source
		if n.flows[at].Age(nil, n.now); (n.flows[at].Len() == 1) != c.lives {
			t.Errorf("%s: %d flows", c.name, n.flows[at].Len())
		}
	}
}

func TestWhatIsNoAnswer(t *testing.T) {
	stranger := answering(ether.ProtoTCP)
	stranger.Dst = ether.MAC{2, 5: 3}
	group := answering(ether.ProtoTCP)
	group.Dst = ether.Broadcast
	other := frameOf(ether.TypeIPv4, 2, 1, packetV4(addressOf(2), addressOf(3), ether.ProtoTCP, 1, 0, false, tcp(80, 9, flagACK, 0)))
	for _, c := range []struct {
		name string
		f    ether.Frame
		want bool
	}{
		{"SYN and ACK", answering(ether.ProtoTCP), true},
		{"ACK", ip(2, 1, ether.ProtoTCP, tcp(80, 9, flagACK, 0)), true},
		{"RST", ip(2, 1, ether.ProtoTCP, tcp(80, 9, flagRST, 0)), true},
		{"SYN between the same ports", ip(2, 1, ether.ProtoTCP, tcp(80, 9, flagSYN, 0)), false},
		{"SYN and FIN", ip(2, 1, ether.ProtoTCP, tcp(80, 9, flagSYN|flagFIN, 0)), false},
		{"from another port", ip(2, 1, ether.ProtoTCP, tcp(81, 9, flagACK, 0)), false},
		{"to another port", ip(2, 1, ether.ProtoTCP, tcp(80, 10, flagACK, 0)), false},
		{"UDP between the ports of TCP", ip(2, 1, ether.ProtoUDP, udp(80, 9, 0)), false},
		{"to another MAC", stranger, false},
		{"to a group", group, false},
		{"to another address", other, false},
		{"echo reply", answering(ether.ProtoICMP), true},
		{"echo reply of another identifier", ip(2, 1, ether.ProtoICMP, icmp(replyV4, 4)), false},
		{"echo request", ip(2, 1, ether.ProtoICMP, icmp(echoV4, 3)), false},
		{"timestamp request", ip(2, 1, ether.ProtoICMP, icmp(13, 3)), false},
		{"UDP", answering(ether.ProtoUDP), true},
	} {
		n := newNetwork(t, toNode(t, 1, "tcp", "udp", "icmp"), Grant{ID: 9, Sources: []Identity{3}, Targets: []Identity{2}})
		for _, p := range []ether.Protocol{ether.ProtoTCP, ether.ProtoUDP, ether.ProtoICMP} {
			if got := n.send(1, 2, opening(p)); got != Pass {
				t.Fatal(got)
			}
		}
		if got := n.send(2, 1, c.f); (got == Pass) != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
		if got := n.deliver(2, 1, c.f, 1); (got == Pass) != c.want {
			t.Errorf("%s, from one who is not honest: %q", c.name, got)
		}
		if n.deliver(2, 1, c.f, 9) == Pass {
			t.Errorf("%s: passes by a grant that is not the flow's", c.name)
		}
	}
}

// An echo reply of who has asked is no part of what it asked.
func TestReplyOfTheOpener(t *testing.T) {
	n := newNetwork(t, toNode(t, 1, "icmp"))
	n.send(1, 2, opening(ether.ProtoICMP))
	if got := n.send(1, 2, ip(1, 2, ether.ProtoICMP, icmp(replyV4, 3))); got != NotAllowed {
		t.Errorf("%q", got)
	}
}

// What goes on, goes to the same station; nobody answers what went to a group.
func TestFlowKeepsItsStation(t *testing.T) {
	many := toNode(t, 1, "any")
	many.Segment, many.Sources, many.Allow = true, []Identity{1}, terms(t, "multicast:239.0.0.1", "tcp")
	n := newNetwork(t, many, Grant{ID: 2, Segment: true, Sources: []Identity{2}, Allow: terms(t, "tcp:1")})
	group := frameOf(ether.TypeIPv4, 1, 2, packetV4(addressOf(1), [16]byte{10: 0xff, 11: 0xff, 12: 239, 15: 1}, ether.ProtoUDP, 1, 0, false, udp(9, 53, 0)))
	group.Dst = ether.MAC{1, 0, 0x5e, 0, 0, 1}
	for range 2 {
		if got := n.send(1, 2, group); got != Pass {
			t.Fatal(got)
		}
	}
	back := frameOf(ether.TypeIPv4, 2, 1, packetV4([16]byte{10: 0xff, 11: 0xff, 12: 239, 15: 1}, addressOf(1), ether.ProtoUDP, 1, 0, false, udp(53, 9, 0)))
	if got := n.send(2, 1, back); got == Pass {
		t.Error("what went to a group is answered")
	}
	about := icmpError(3, 3, addressOf(2), addressOf(1), group.Payload)
	if got := n.send(2, 1, about); got == Pass {
		t.Error("an error about what went to a group passes (RFC 1122 section 3.2.2)")
	}
	n.send(1, 2, opening(ether.ProtoTCP))
	astray := opening(ether.ProtoTCP)
	astray.Dst = ether.MAC{2, 5: 3}
	if got := n.send(1, 2, astray); got == Pass {
		t.Error("a flow goes on to another station")
	}
}

// icmpError is an error from one address to another about a packet.
func icmpError(typ, code byte, src, dst [16]byte, about []byte) ether.Frame {
	return frameOf(ether.TypeIPv4, Identity(src[15]), Identity(dst[15]), packetV4(src, dst, ether.ProtoICMP, 1, 0, false, append([]byte{typ, code, 0, 0, 0, 0, 0, 0}, about...)))
}

func TestErrorsAboutFlows(t *testing.T) {
	sent := packetV4(addressOf(1), addressOf(2), ether.ProtoUDP, 1, 0, false, udp(9, 53, 0))
	answer := packetV4(addressOf(2), addressOf(1), ether.ProtoUDP, 1, 0, false, udp(53, 9, 0))
	another := packetV4(addressOf(1), addressOf(2), ether.ProtoUDP, 1, 0, false, udp(10, 53, 0))
	thirds := packetV4(addressOf(3), addressOf(2), ether.ProtoUDP, 1, 0, false, udp(9, 53, 0))
	group := icmpError(3, 3, addressOf(2), addressOf(1), sent)
	group.Dst = ether.Broadcast
	behind := frameOf(ether.TypeIPv4, 2, 1, packetV4(addressOf(2), addressOf(4), ether.ProtoICMP, 1, 0, false, append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, sent...)))
	for _, c := range []struct {
		name string
		from Identity
		f    ether.Frame
		want bool
	}{
		{"about what was sent", 2, icmpError(3, 3, addressOf(2), addressOf(1), sent), true},
		{"time exceeded", 2, icmpError(11, 0, addressOf(2), addressOf(1), sent), true},
		{"about an answer", 1, icmpError(3, 3, addressOf(1), addressOf(2), answer), true},
		{"about what the sender itself has sent", 1, icmpError(3, 3, addressOf(1), addressOf(2), sent), false},
		{"about what the receiver has not sent", 2, icmpError(3, 3, addressOf(2), addressOf(1), answer), false},
		{"about another's flow", 2, icmpError(3, 3, addressOf(2), addressOf(1), thirds), false},
		{"about no flow", 2, icmpError(3, 3, addressOf(2), addressOf(1), another), false},
		{"about nothing that can be read", 2, icmpError(3, 3, addressOf(2), addressOf(1), sent[:27]), false},
		{"to everybody", 2, group, false},
		{"to an address that sent nothing", 2, behind, false},
		{"redirect", 2, icmpError(5, 1, addressOf(2), addressOf(1), sent), false},
	} {
		n := newNetwork(t, toNode(t, 1, "udp:53"), Grant{ID: 2, Sources: []Identity{3}, Targets: []Identity{2}, Allow: terms(t, "udp:53")})
		n.send(1, 2, opening(ether.ProtoUDP))
		n.send(3, 2, frameOf(ether.TypeIPv4, 3, 2, thirds))
		if got := n.send(c.from, 3-c.from, c.f); (got == Pass) != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
		if got := n.deliver(c.from, 3-c.from, c.f, 1); (got == Pass) != c.want {
			t.Errorf("%s, from one who is not honest: %q", c.name, got)
		}
	}
}

func TestFlowsAreBounded(t *testing.T) {
	flows := NewFlows()
	v := Compile(Rules{Self: 1, Stations: testStations(), Grants: []Grant{
		{ID: 1, Sources: []Identity{1, 3}, Targets: []Identity{2}, Allow: terms(t, "udp")},
	}})
	send := func(source Identity, port uint16, now time.Time) {
		p := Passage{Source: source, Flows: flows, Now: now, Frame: ip(source, 2, ether.ProtoUDP, udp(port, 53, 0))}
		if got := v.Ingress(&p, 2, 1); got != Pass {
			t.Fatal(got)
		}
	}
	send(3, 9, t0)
	now := t0
	for port := range 1 << 16 {
		now = now.Add(time.Millisecond)
		send(1, uint16(port), now)
	}
	const most = 16_384
	if n := flows.Len(); n > most+1 || n < most*9/10 {
		t.Errorf("%d flows of one opener, want about %d and no more", n-1, most)
	}
	answered := func(opener Identity, port uint16) bool {
		p := Passage{Source: 2, Flows: flows, Now: now, Frame: ip(2, opener, ether.ProtoUDP, udp(53, port, 0))}
		_, verdict := v.Egress(&p, opener)
		return verdict == Pass
	}
	if !answered(3, 9) {
		t.Error("another's flow is forgotten")
	}
	// Who is evicted is the one of a few that has been silent longest: what has just begun is seldom.
	kept := 0
	for port := 1<<16 - 500; port < 1<<16; port++ {
		if answered(1, uint16(port)) {
			kept++
		}
	}
	if kept < 498 {
		t.Errorf("of the last 500 flows %d are remembered", kept)
	}
	flows.Age(nil, now.Add(udpIdle+1))
	if n := flows.Len(); n != 0 {
		t.Errorf("%d flows are left after all have been silent too long", n)
	}
}

func TestRetainAndAge(t *testing.T) {
	third := Grant{ID: 2, Sources: []Identity{3}, Targets: []Identity{2}, Allow: terms(t, "udp")}
	for _, c := range []struct {
		name string
		do   func(*Flows)
		one  Verdict // of an answer to 1, whose flow is a minute older than that of 3
	}{
		{"nothing", func(*Flows) {}, Pass},
		{"aged at the end of its time", func(f *Flows) { f.Age(nil, t0.Add(udpIdle)) }, Pass},
		{"aged past it", func(f *Flows) { f.Age(nil, t0.Add(udpIdle+1)) }, NotAllowed},
		{"it stays", func(f *Flows) { f.Retain([]Identity{1, 3}) }, Pass},
		{"it is gone", func(f *Flows) { f.Retain([]Identity{3, 4}) }, NotAllowed},
	} {
		n := newNetwork(t, toNode(t, 1, "udp"), third)
		n.send(1, 2, opening(ether.ProtoUDP))
		n.now = n.now.Add(time.Minute)
		n.send(3, 2, ip(3, 2, ether.ProtoUDP, udp(9, 53, 0)))
		c.do(n.flows[2])
		want := 2
		if c.one != Pass {
			want = 1
		}
		if got := n.flows[2].Len(); got != want {
			t.Errorf("%s: %d flows, want %d", c.name, got, want)
		}
		if got := n.send(2, 1, answering(ether.ProtoUDP)); got != c.one {
			t.Errorf("%s: answer to 1: %q, want %q", c.name, got, c.one)
		}
		if got := n.send(2, 3, ip(2, 3, ether.ProtoUDP, udp(53, 9, 0))); got != Pass {
			t.Errorf("%s: answer to 3: %q", c.name, got)
		}
	}
}

// Many at once, while policies change and flows age; run with -race.
func TestFlowsTogether(t *testing.T) {
	flows, stations := NewFlows(), testStations()
	var views []*View
	for generation := range uint64(4) {
		g := Grant{ID: 1, Sources: []Identity{1, 3, 4}, Targets: []Identity{2}, Allow: terms(t, "udp")}
		views = append(views, Compile(Rules{Generation: generation, Self: 2, Stations: stations, Grants: []Grant{g}}))
	}
	var wg sync.WaitGroup
	for worker, source := range []Identity{1, 3, 4, 1} {
		wg.Go(func() {
			for i := range 2000 {
				now, v := t0.Add(time.Duration(i)*time.Millisecond), views[(i+worker)%len(views)]
				p := Passage{Source: source, Flows: flows, Now: now, Frame: ip(source, 2, ether.ProtoUDP, udp(uint16(i%50), 53, 0))}
				if got := v.Ingress(&p, 2, 1); got != Pass {
					t.Errorf("onward: %q", got)
				}
				p = Passage{Source: source, Flows: flows, Now: now, Frame: fragmentOf(false, ether.ProtoUDP, uint16(i), 0, true, udp(9, 53, 0))}
				if got := p.Settle(); got != Pass && source != 1 {
					t.Errorf("fragment: %q", got)
				}
				p = Passage{Source: 2, Flows: flows, Now: now, Frame: ip(2, source, ether.ProtoUDP, udp(53, uint16(i%50), 0))}
				if _, got := v.Egress(&p, source); got != Pass && got != NotAllowed {
					t.Errorf("answer: %q", got)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 200 {
			flows.Age(nil, t0.Add(time.Duration(i)*time.Second))
			flows.Retain([]Identity{1, 2, 3, 4}[:2+i%3])
			flows.Len()
		}
	})
	wg.Wait()
}
