package policy

import (
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// shared is the passage of a frame of which other gateways are to know.
func (n *network) shared(at, source Identity, f ether.Frame) *Passage {
	return &Passage{Frame: f, Source: source, Flows: n.flows[at], Now: n.now, Shared: true}
}

// A gateway that was told of a flow lets its answers pass, and nothing else; policy cuts it there as it does everywhere.
func TestAdopt(t *testing.T) {
	for _, proto := range []ether.Protocol{ether.ProtoTCP, ether.ProtoUDP, ether.ProtoICMP} {
		grant := toNode(t, 1, "tcp", "udp", "icmp")
		n := newNetwork(t, grant)
		if _, v := n.views[2].Egress(n.shared(2, 2, answering(proto)), 1); v == Pass {
			t.Fatal("an answer passes to which there is no flow")
		}
		if v := n.views[2].Ingress(n.shared(2, 1, opening(proto)), 2, 1); v != Pass {
			t.Fatal(v)
		}
		news, lost := n.flows[2].News()
		if len(news) != 1 || lost != 0 || news[0].Opener != 1 || news[0].Other != 2 || news[0].Answered {
			t.Fatalf("news are %+v", news)
		}
		other := NewFlows() // of the other gateway, under the same policy
		if !other.Adopt(n.views[2], &news[0], n.now) {
			t.Fatal("it is not adopted")
		}
		pass := func(f ether.Frame) Verdict {
			p := Passage{Frame: f, Source: 2, Flows: other, Now: n.now}
			_, v := n.views[2].Egress(&p, 1)
			return v
		}
		if v := pass(answering(proto)); v != Pass {
			t.Errorf("protocol %d: its answer: %v", proto, v)
		}
		if v := pass(ip(2, 1, proto, udp(1, 2, 20))); v == Pass {
			t.Errorf("protocol %d: another flow passes", proto)
		}
		n.replace(2)
		if v := pass(answering(proto)); v == Pass {
			t.Errorf("protocol %d: it passes without a grant", proto)
		}
	}
}

// What no grant that is known here lets begin is not remembered, whoever tells of it.
func TestAdoptRefuses(t *testing.T) {
	good := Fellow{Opener: 1, Other: 2, Grant: 1, Dst: ether.MAC{2, 5: 2}, Tuple: Tuple{
		Src: addressOf(1), Dst: addressOf(2), SrcPort: 9, DstPort: 80, Protocol: ether.ProtoTCP,
	}}
	expired := toNode(t, 2, "tcp:80")
	expired.Expires = t0.Add(-time.Second)
	observed := toNode(t, 3, "tcp:80")
	observed.Observe = true
	n := newNetwork(t, toNode(t, 1, "tcp:80"), expired, observed)
	for name, edit := range map[string]func(*Fellow){
		"":                     func(*Fellow) {},
		"of an unknown grant":  func(x *Fellow) { x.Grant = 9 },
		"of one that is over":  func(x *Fellow) { x.Grant = 2 },
		"of one that observes": func(x *Fellow) { x.Grant = 3 },
		"the other way round":  func(x *Fellow) { x.Opener, x.Other = 2, 1 },
		"of somebody else":     func(x *Fellow) { x.Opener = 3 },
		"to another port":      func(x *Fellow) { x.Tuple.DstPort = 81 },
		"to another address":   func(x *Fellow) { x.Tuple.Dst = addressOf(3) },
		"to another MAC":       func(x *Fellow) { x.Dst = ether.MAC{2, 5: 3} },
	} {
		x, flows := good, NewFlows()
		edit(&x)
		if got := flows.Adopt(n.views[2], &x, n.now); got != (name == "") || flows.Len() != boolInt(got) {
			t.Errorf("%q is adopted: %v, %d flows", name, got, flows.Len())
		}
	}
	x, flows := good, NewFlows()
	flows.Adopt(n.views[2], &x, n.now)
	if x.VLANs = 10; !flows.Adopt(n.views[2], &x, n.now) || flows.Len() != 2 {
		t.Errorf("the same flow on another VLAN makes %d flows", flows.Len())
	}
	void := Compile(Rules{Generation: 1, Self: 2, Stations: n.stations, Grants: []Grant{toNode(t, 1, "tcp:80")}, Expires: t0.Add(-time.Second)})
	if NewFlows().Adopt(void, &good, n.now) {
		t.Error("it is adopted under a policy that is too old")
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// What another gateway tells never pushes out a flow, nor changes under which grant one goes on; it keeps one from being forgotten.
func TestAdoptKeeps(t *testing.T) {
	n := newNetwork(t, toNode(t, 1, "udp"), toNode(t, 2, "udp"))
	f, v := NewFlows(), n.views[2]
	x := Fellow{Opener: 1, Other: 2, Grant: 1, Dst: ether.MAC{2, 5: 2}, Tuple: Tuple{Src: addressOf(1), Dst: addressOf(2), Protocol: ether.ProtoUDP}}
	for i := range 3 * flowShards * maxShardFlows {
		x.Tuple.SrcPort, x.Tuple.DstPort = uint16(i), uint16(i>>8)
		f.Adopt(v, &x, n.now)
	}
	if n := f.Len(); n > flowShards*maxShardFlows || n < flowShards*maxShardFlows/2 {
		t.Errorf("%d flows", n)
	}
	if ended, _ := f.Collect(n.now, time.Hour); len(ended) != 0 {
		t.Errorf("%d flows have ended for it", len(ended))
	}
	f = NewFlows()
	f.Adopt(v, &x, n.now)
	other := x
	other.Grant = 2
	if f.Adopt(v, &other, n.now) {
		t.Error("it goes on under another grant")
	}
	later := n.now.Add(udpIdle - time.Second)
	f.Adopt(v, &x, later)
	f.Age(v, later.Add(udpIdle-time.Second))
	if f.Len() != 1 {
		t.Error("a flow that the other gateway carries is forgotten")
	}
	f.Age(v, later.Add(udpIdle+time.Second))
	if ended, _ := f.Collect(n.now, time.Hour); f.Len() != 0 || len(ended) != 0 {
		t.Errorf("%d flows are left, %d records tell of what another has carried", f.Len(), len(ended))
	}
}

// A flow that has been silent for too long is none: in its place another begins, by whichever grant, though there is no room for more.
func TestAdoptAnew(t *testing.T) {
	n := newNetwork(t, toNode(t, 1, "udp"), toNode(t, 2, "udp"))
	f, v := NewFlows(), n.views[2]
	first := Fellow{Opener: 1, Other: 2, Grant: 1, Dst: ether.MAC{2, 5: 2}, Answered: true, Tuple: Tuple{Src: addressOf(1), Dst: addressOf(2), Protocol: ether.ProtoUDP}}
	x := first
	for i := range 3 * flowShards * maxShardFlows {
		x.Tuple.SrcPort, x.Tuple.DstPort = uint16(i), uint16(i>>8)
		f.Adopt(v, &x, n.now)
	}
	before, later := f.Len(), n.now.Add(udpIdle+time.Second)
	first.Grant, first.Answered = 2, false
	if f.Adopt(v, &first, later.Add(-time.Second)) {
		t.Error("it goes on under another grant while it lasts")
	}
	if !f.Adopt(v, &first, later) || f.Len() != before {
		t.Errorf("it does not begin anew: %d flows, and %d before", f.Len(), before)
	}
	got := f.Fellows(func(Identity) bool { return true }, n.now)
	if len(got) != 1 || got[0] != first {
		t.Errorf("it has become %+v", got)
	}
}

// News are of what begins and of first answers, once each; Fellows are of all that is in use.
func TestNews(t *testing.T) {
	n := newNetwork(t, toNode(t, 1, "tcp"))
	pokes := 0
	n.flows[2].SetPoke(func() { pokes++ })
	say := func(source, receiver Identity, f ether.Frame) {
		t.Helper()
		if source == 1 {
			n.views[2].Ingress(n.shared(2, 1, f), receiver, 1)
		} else {
			n.views[2].Egress(n.shared(2, 2, f), receiver)
		}
	}
	told := func(want int) []Fellow {
		t.Helper()
		news, _ := n.flows[2].News()
		if len(news) != want {
			t.Errorf("%d news, want %d: %+v", len(news), want, news)
		}
		return news
	}
	say(1, 2, opening(ether.ProtoTCP))
	told(1)
	say(1, 2, ip(1, 2, ether.ProtoTCP, tcp(9, 80, flagACK, 0)))
	told(0)
	say(2, 1, answering(ether.ProtoTCP))
	if news := told(1); len(news) == 1 && !news[0].Answered {
		t.Error("the answer is not told of")
	}
	say(2, 1, answering(ether.ProtoTCP))
	told(0)
	if pokes != 2 {
		t.Errorf("poked %d times", pokes)
	}
	all := func(Identity) bool { return true }
	if got := n.flows[2].Fellows(all, n.now.Add(-time.Second)); len(got) != 1 || !got[0].Answered {
		t.Errorf("in use: %+v", got)
	}
	if got := n.flows[2].Fellows(all, n.now); len(got) != 0 {
		t.Errorf("since now: %+v", got)
	}
	if got := n.flows[2].Fellows(func(id Identity) bool { return id == 3 }, time.Time{}); len(got) != 0 {
		t.Errorf("of another: %+v", got)
	}
	say(1, 2, ip(1, 2, ether.ProtoTCP, tcp(10, 80, flagSYN, 0)))
	say(1, 2, ip(1, 2, ether.ProtoTCP, tcp(11, 80, flagSYN, 0)))
	if told(2); pokes != 3 {
		t.Errorf("poked %d times, want once more for two that wait", pokes)
	}
	// A frame that is only asked about, and one of no concern to others, is no news.
	n = newNetwork(t, toNode(t, 1, "tcp"))
	p := n.shared(2, 1, opening(ether.ProtoTCP))
	p.Dry = true
	n.views[2].Ingress(p, 2, 1)
	p = n.shared(2, 1, opening(ether.ProtoTCP))
	p.Shared = false
	n.views[2].Ingress(p, 2, 1)
	told(0)
}

// More flows than there is room to tell of are counted, so that all can be told of again.
func TestNewsOverflow(t *testing.T) {
	f := NewFlows()
	for range maxFellows + 5 {
		f.fellows.note(Fellow{})
	}
	if news, lost := f.News(); len(news) != maxFellows || lost != 5 {
		t.Errorf("%d news, %d lost", len(news), lost)
	}
}

// Both directions of a flow, its errors and its fragments have one number; others have others.
func TestFlowHash(t *testing.T) {
	n := newNetwork(t)
	hash := func(f ether.Frame, settle bool) uint64 {
		p := Passage{Frame: f, Source: 1, Flows: n.flows[1], Now: n.now}
		if settle {
			if v := p.Settle(); v != Pass {
				t.Fatal(v)
			}
		}
		return p.FlowHash()
	}
	seen := map[uint64]string{}
	for name, pair := range map[string][2]ether.Frame{
		"TCP":      {opening(ether.ProtoTCP), answering(ether.ProtoTCP)},
		"UDP":      {opening(ether.ProtoUDP), answering(ether.ProtoUDP)},
		"echo":     {opening(ether.ProtoICMP), answering(ether.ProtoICMP)},
		"no ports": {ip(1, 2, 47, nil), ip(2, 1, 47, nil)},
		"no IP":    {frameOf(0x88b5, 1, 2, nil), frameOf(0x88b5, 2, 1, nil)},
		"others":   {ip(1, 3, ether.ProtoUDP, udp(9, 53, 0)), ip(3, 1, ether.ProtoUDP, udp(53, 9, 0))},
		"ports":    {ip(1, 2, ether.ProtoUDP, udp(10, 53, 0)), ip(2, 1, ether.ProtoUDP, udp(53, 10, 0))},
	} {
		a, b := hash(pair[0], false), hash(pair[1], false)
		if a != b {
			t.Errorf("%s: %x and %x", name, a, b)
		}
		if other, is := seen[a]; is {
			t.Errorf("%s has the number of %s", name, other)
		}
		seen[a] = name
	}
	for _, six := range []bool{false, true} {
		body := udp(9, 53, 1400)
		first := hash(fragmentOf(six, ether.ProtoUDP, 5, 0, true, body[:800]), true)
		if second := hash(fragmentOf(six, ether.ProtoUDP, 5, 800, false, body[800:]), true); first != second {
			t.Errorf("fragments of one datagram, IPv6 %v: %x and %x", six, first, second)
		}
	}
	quoted := packetV4(addressOf(1), addressOf(2), ether.ProtoUDP, 1, 0, false, udp(9, 53, 0))
	unreachable := ip(2, 1, ether.ProtoICMP, append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, quoted...))
	if a, b := hash(unreachable, false), hash(opening(ether.ProtoUDP), false); a != b {
		t.Errorf("an error about a flow has %x, the flow %x", a, b)
	}
}

// A frame can be judged alone if everything may pass, if it is of no flow, or if its flow is known.
func TestByItself(t *testing.T) {
	n := newNetwork(t, toNode(t, 1, "udp"))
	alone := func(f ether.Frame) bool {
		p := Passage{Frame: f, Source: 2, Flows: n.flows[2], Now: n.now}
		return n.views[2].ByItself(&p, 1)
	}
	if alone(answering(ether.ProtoUDP)) || !alone(frameOf(0x88b5, 2, 1, nil)) || !alone(frameOf(ether.TypeARP, 2, 1, nil)) {
		t.Error("a flow that nobody knows can be judged, or what is none cannot")
	}
	quoted := packetV4(addressOf(1), addressOf(2), ether.ProtoUDP, 1, 0, false, udp(9, 53, 0))
	unreachable := ip(2, 1, ether.ProtoICMP, append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, quoted...))
	if alone(unreachable) {
		t.Error("an error about a flow that nobody knows can be judged")
	}
	n.send(1, 2, opening(ether.ProtoUDP))
	if !alone(answering(ether.ProtoUDP)) || !alone(unreachable) {
		t.Error("a flow that is known cannot be judged")
	}
	n = newNetwork(t, Grant{ID: 1, Segment: true, Sources: []Identity{1, 2}})
	if !alone(answering(ether.ProtoUDP)) {
		t.Error("where everything may pass a flow cannot be judged")
	}
	n.views[2] = Compile(Rules{Generation: 1, Self: 2, Stations: n.stations, Expires: t0.Add(-time.Second)})
	if !alone(answering(ether.ProtoUDP)) {
		t.Error("under a policy that is too old somebody else is asked")
	}
}

// Another gateway of a machine cannot have it answer what nobody has begun: of flows of its own, and of machines behind it alone, a
// gateway hears from nobody else.
func TestNobodyBeginsForAnother(t *testing.T) {
	n := newNetwork(t, toNode(t, 1, "tcp:80"))
	stations := maps.Clone(n.stations)
	shared := NewMachine(stations[2].MAC, []netip.Addr{netip.AddrFrom16(addressOf(2)).Unmap()})
	shared.Gateways = []Identity{1, 4} // 1 is this node, which may reach the machine
	stations[2] = shared
	v := Compile(Rules{Generation: 1, Self: 1, Stations: stations, Grants: []Grant{toNode(t, 1, "tcp:80")}})
	lie := Fellow{Opener: 1, Other: 2, Grant: 1, Dst: ether.MAC{2, 5: 2}, Tuple: Tuple{
		Src: addressOf(1), Dst: addressOf(2), SrcPort: 22, DstPort: 80, Protocol: ether.ProtoTCP,
	}}
	if v.Fellows(4, 1, &lie) {
		n.flows[1].Adopt(v, &lie, n.now)
	}
	p := &Passage{Frame: ip(2, 1, ether.ProtoTCP, tcp(80, 22, 16, 10)), Source: 2, Flows: n.flows[1], Now: n.now}
	if got := v.Ingress(p, 1, 1); got == Pass {
		t.Error("what this host has not asked for reaches its port 22")
	}
	if !v.Fellows(4, 1, &Fellow{Opener: 3, Other: 2}) {
		t.Error("of what others begin towards the machine it is not told")
	}
}

// Two nodes may tell each other of a flow if both are gateways of the same end, and who speaks for the opener hears of no other.
func TestFellows(t *testing.T) {
	machine := func(gateways ...Identity) *Station {
		m := NewMachine(ether.MAC{2, 9, 5: byte(gateways[0])}, nil)
		m.Gateways = gateways
		return m
	}
	stations := testStations()
	stations[50], stations[51], stations[52], stations[53] = machine(1, 2), machine(1), machine(2), machine(2, 3)
	v := Compile(Rules{Generation: 1, Self: 2, Stations: stations})
	for _, c := range []struct {
		opener, other Identity
		want          bool
	}{
		{3, 50, true},
		{50, 3, true},
		{3, 51, false},
		{51, 52, false},
		{1, 2, false},
		{3, 4, false},
		{3, 99, false},
		// Both ends are at one of the two.
		{51, 50, true},
		{1, 50, true},
		{50, 52, true},
		{50, 2, true},
		{52, 50, false}, // node 2 would have seen it begin
		{2, 50, false},
		{53, 50, false},
	} {
		if got := v.Fellows(1, 2, &Fellow{Opener: c.opener, Other: c.other}); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
