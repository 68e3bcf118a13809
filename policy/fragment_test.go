package policy

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// step is a fragment and what becomes of it.
type step struct {
	offset, size int
	more         bool
	want         Verdict
}

func TestSettle(t *testing.T) {
	first := step{0, 24, true, Pass}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"in order", []step{first, {24, 8, true, Pass}, {32, 1, false, Pass}}},
		{"the first twice", []step{first, {0, 24, true, BadFragment}}},
		{"another twice, and what follows", []step{first, {24, 8, true, Pass}, {24, 8, true, BadFragment}, {32, 8, false, BadFragment}}},
		{"overlap of what came before", []step{first, {24, 16, true, Pass}, {32, 16, true, BadFragment}}},
		{"overlap of what comes behind", []step{first, {32, 8, true, Pass}, {24, 16, true, BadFragment}}},
		{"around another", []step{first, {32, 8, true, Pass}, {24, 24, true, BadFragment}}},
		{"within another", []step{first, {24, 24, true, Pass}, {32, 8, true, BadFragment}}},
		{"overlap by an octet, cut off the multiple of eight", []step{{0, 25, true, BadFragment}}},
		{"the last by an octet over one that came", []step{first, {32, 8, true, Pass}, {24, 9, false, BadFragment}}},
		{"empty", []step{first, {24, 0, true, BadFragment}}},
		{"empty at the end", []step{first, {24, 0, false, BadFragment}}},
		{"tiny first fragment", []step{{0, 16, true, BadFragment}}},
		{"behind eight bytes (RFC 3128)", []step{{8, 16, false, BadFragment}}},
		{"behind sixteen bytes", []step{{16, 8, false, BadFragment}}},
		{"behind the header", []step{{24, 8, false, Pass}}},
		{"up to the greatest length", []step{first, {65528, 7, false, Pass}}},
		{"beyond the greatest length", []step{first, {65528, 8, false, BadFragment}}},
		{"two ends", []step{first, {40, 8, false, Pass}, {48, 8, false, BadFragment}}},
		{"two ends, the second nearer", []step{first, {40, 8, false, Pass}, {32, 8, false, BadFragment}}},
		{"beyond its end", []step{first, {40, 8, false, Pass}, {48, 8, true, BadFragment}}},
		{"an end before what has come", []step{first, {40, 8, true, Pass}, {24, 8, false, BadFragment}}},
		{"the next with the number of one that is whole", []step{first, {24, 8, false, Pass}, first, {24, 8, false, Pass}}},
		{"whole out of order, then the next", []step{{24, 8, false, Pass}, first, first, {24, 8, true, Pass}}},
		{"eight gaps", append(gapped(8), step{16 + 16*9, 8, true, BadFragment})},
		{"a gap is closed", append(gapped(8), step{24, 8, true, Pass}, step{16 + 16*9, 8, true, Pass})},
	} {
		for _, six := range []bool{false, true} {
			flows := NewFlows()
			for i, s := range c.steps {
				body := append(tcp(9, 80, flagACK, 0), make([]byte, 1480)...)[:s.size]
				p := Passage{Frame: fragmentOf(six, ether.ProtoTCP, 5, s.offset, s.more, body), Source: 1, Flows: flows, Now: t0, Dry: true}
				if got := p.Settle(); got != s.want {
					t.Errorf("%s, IPv6 %v: somebody asks about fragment %d: %q, want %q", c.name, six, i, got, s.want)
				}
				p.Dry = false
				if got := p.Settle(); got != s.want {
					t.Errorf("%s, IPv6 %v: fragment %d: %q, want %q", c.name, six, i, got, s.want)
				}
			}
		}
	}
}

// gapped is a first fragment and others apart, so many parts in all.
func gapped(parts int) []step {
	steps := []step{{0, 24, true, Pass}}
	for i := 1; i < parts; i++ {
		steps = append(steps, step{16 + 16*i, 8, true, Pass})
	}
	return steps
}

func TestAtomicFragmentIsAlone(t *testing.T) {
	n := newNetwork(t, toNode(t, 1, "tcp:80"))
	for _, want := range []Verdict{Pass, BadFragment} { // RFC 6946: it has to do with no other fragment of its number
		if got := n.send(1, 2, fragmentOf(true, ether.ProtoTCP, 5, 0, true, tcp(9, 80, flagACK, 4))); got != want {
			t.Errorf("first: %q", got)
		}
		if got := n.send(1, 2, fragmentOf(true, ether.ProtoTCP, 5, 0, false, tcp(9, 80, flagACK, 4))); got != Pass {
			t.Errorf("atomic: %q", got)
		}
	}
	if got := n.send(1, 2, fragmentOf(true, ether.ProtoTCP, 6, 0, false, tcp(9, 445, flagSYN, 4))); got != NotAllowed {
		t.Errorf("atomic, for another port: %q", got)
	}
}

// A later fragment is judged as its first was: it opens what that opens, answers what that answers.
func TestLaterFragmentIsAsItsFirst(t *testing.T) {
	for _, c := range []struct {
		name string
		body []byte
		p    ether.Protocol
		want Verdict
	}{
		{"an answer", tcp(80, 9, flagACK, 4), ether.ProtoTCP, Pass},
		{"a SYN between the ports of a flow", tcp(80, 9, flagSYN, 4), ether.ProtoTCP, WrongGrant},
		{"an echo request with a flow's identifier", icmp(echoV4, 3, 0, 0, 0, 0, 0, 0, 0, 0), ether.ProtoICMP, WrongGrant},
		{"an echo reply", icmp(replyV4, 3, 0, 0, 0, 0, 0, 0, 0, 0), ether.ProtoICMP, Pass},
	} {
		n := newNetwork(t, toNode(t, 1, "tcp:80", "icmp"))
		for _, f := range []ether.Frame{ip(1, 2, ether.ProtoTCP, tcp(9, 80, flagSYN, 0)), ip(1, 2, ether.ProtoICMP, icmp(echoV4, 3))} {
			if got := n.send(1, 2, f); got != Pass {
				t.Fatal(got)
			}
		}
		for i, f := range []ether.Frame{
			frameOf(ether.TypeIPv4, 2, 1, packetV4(addressOf(2), addressOf(1), c.p, 7, 0, true, c.body[:len(c.body)/8*8])),
			frameOf(ether.TypeIPv4, 2, 1, packetV4(addressOf(2), addressOf(1), c.p, 7, len(c.body)/8*8, false, []byte("rest"))),
		} {
			if got := n.deliver(2, 1, f, 1); got != c.want {
				t.Errorf("%s: fragment %d: %q, want %q", c.name, i, got, c.want)
			}
		}
	}
	// An echo reply begins nothing, its later fragments neither.
	n := newNetwork(t, toNode(t, 1, "icmp"))
	for i, f := range []ether.Frame{
		fragmentOf(false, ether.ProtoICMP, 8, 0, true, icmp(replyV4, 3, 0, 0, 0, 0, 0, 0, 0, 0)), fragmentOf(false, ether.ProtoICMP, 8, 16, false, []byte("rest")),
	} {
		if got := n.send(1, 2, f); got != NotAllowed {
			t.Errorf("echo reply, fragment %d: %q", i, got)
		}
	}
	if n.flows[1].Len() != 0 {
		t.Error("an echo reply that nobody asked for begins a flow")
	}
}

// Before the first fragment nothing tells what a later one is.
func TestLaterFragmentFirst(t *testing.T) {
	n := newNetwork(t, toNode(t, 1, "udp:53"), Grant{ID: 2, Segment: true, Sources: []Identity{3, 4}})
	later, first := fragmentOf(false, ether.ProtoUDP, 5, 16, false, []byte("rest")), fragmentOf(false, ether.ProtoUDP, 5, 0, true, udp(9, 53, 8))
	if got := n.send(1, 2, later); got != NotAllowed {
		t.Errorf("later fragment first: %q", got)
	}
	if got := n.send(1, 2, first); got != Pass {
		t.Errorf("then the first: %q", got)
	}
	// Who may send everything need not be told what it is.
	later.Payload = packetV4(addressOf(3), addressOf(4), ether.ProtoUDP, 5, 16, false, []byte("rest"))
	if got := n.send(3, 4, later); got != Pass {
		t.Errorf("between members: %q", got)
	}
}

func TestFragmentsOfAnother(t *testing.T) {
	flows := NewFlows()
	settle := func(source Identity, id uint16, s step) Verdict {
		p := Passage{Frame: fragmentOf(false, ether.ProtoTCP, id, s.offset, s.more, tcp(9, 80, flagACK, 100)[:s.size]), Source: source, Flows: flows, Now: t0}
		return p.Settle()
	}
	first, second := step{offset: 0, size: 24, more: true}, step{offset: 24, size: 8, more: true}
	if got := settle(1, 5, first); got != Pass {
		t.Fatal(got)
	}
	for id := range uint16(1000) { // more than there are places for
		if got := settle(2, id, first); got != Pass {
			t.Fatalf("another's datagram %d: %q", id, got)
		}
	}
	settle(2, 5, second)
	if got := settle(1, 5, second); got != Pass {
		t.Errorf("another has sent as many as it likes: %q", got)
	}
	if got := settle(1, 5, second); got != BadFragment {
		t.Errorf("what has come is forgotten: %q", got)
	}
	// Its own it forgets: the first of a datagram that is forgotten begins another.
	for id := range uint16(maxDatagrams) {
		settle(1, 1000+id, first)
	}
	if got := settle(1, 5, first); got != Pass {
		t.Errorf("the oldest has no place any more: %q", got)
	}
}

func TestFragmentsAreForgotten(t *testing.T) {
	first := fragmentOf(false, ether.ProtoTCP, 5, 0, true, tcp(9, 80, flagACK, 4))
	settle := func(flows *Flows, after time.Duration) Verdict {
		p := Passage{Frame: first, Source: 1, Flows: flows, Now: t0.Add(after)}
		return p.Settle()
	}
	for _, c := range []struct {
		name  string
		do    func(*Flows)
		after time.Duration
		want  Verdict
		left  int
	}{
		{"at once", func(*Flows) {}, 0, BadFragment, 1},
		{"at the end of its time", func(f *Flows) { f.Age(nil, t0.Add(assembly)) }, assembly, BadFragment, 1},
		{"past its time", func(*Flows) {}, assembly + 1, Pass, 1},
		{"past its time, aged", func(f *Flows) { f.Age(nil, t0.Add(assembly+1)) }, assembly + 1, Pass, 0},
		{"of one who stays", func(f *Flows) { f.Retain([]Identity{1, 2}) }, 0, BadFragment, 1},
		{"of one who is gone", func(f *Flows) { f.Retain([]Identity{2}) }, 0, Pass, 0},
	} {
		flows := NewFlows()
		settle(flows, 0)
		c.do(flows)
		if n := len(flows.datagrams.of); n != c.left {
			t.Errorf("%s: %d sources, want %d", c.name, n, c.left)
		}
		if got := settle(flows, c.after); got != c.want {
			t.Errorf("%s: the first again: %q, want %q", c.name, got, c.want)
		}
	}
}

// Of IPv4 the protocol is a part of what a host puts fragments together by, of IPv6 it is not.
func TestFragmentsOfTwoProtocols(t *testing.T) {
	for six, want := range map[bool]Verdict{false: Pass, true: BadFragment} {
		flows := NewFlows()
		for i, f := range []ether.Frame{
			fragmentOf(six, ether.ProtoTCP, 5, 0, true, tcp(9, 80, flagACK, 4)), fragmentOf(six, ether.ProtoUDP, 5, 0, true, udp(9, 53, 16)),
		} {
			p := Passage{Frame: f, Source: 1, Flows: flows, Now: t0}
			if got := p.Settle(); i == 0 && got != Pass || i == 1 && got != want {
				t.Errorf("IPv6 %v, datagram %d: %q", six, i, got)
			}
		}
	}
}

// TestInsert holds the list of parts against a map of every unit.
func TestInsert(t *testing.T) {
	const units = 40
	refused, full := 0, 0
	for seed := range uint64(20_000) {
		r := rand.New(rand.NewPCG(seed, 3)) //nolint:gosec // not for secrets
		var d datagram
		var have [units + 1]bool // the last is never set
		for range 24 {
			from := r.IntN(units)
			p := part{from, min(units, from+1+r.IntN(4))}
			next, want := have, true
			for i := p.from; i < p.to; i++ {
				want, next[i] = want && !have[i], true
			}
			var runs []part
			for i, is := range next {
				switch {
				case !is:
				case i > 0 && next[i-1]:
					runs[len(runs)-1].to = i + 1
				default:
					runs = append(runs, part{i, i + 1})
				}
			}
			if want && len(runs) > maxGaps {
				want = false
				full++
			}
			if got := d.insert(p); got != want {
				t.Fatalf("seed %d: insert %v into %v: %v", seed, p, d.parts, got)
			}
			if !want {
				refused++
				continue
			}
			if have = next; !slices.Equal(d.parts, runs) {
				t.Fatalf("seed %d: %v, want %v", seed, d.parts, runs)
			}
		}
	}
	if refused == 0 || full == 0 {
		t.Errorf("%d refused, %d for too many gaps: the cases say too little", refused, full)
	}
}

func TestFragmentsDoNotAllocate(t *testing.T) {
	flows := NewFlows()
	first, last := fragmentOf(false, ether.ProtoUDP, 5, 0, true, udp(9, 53, 8)), fragmentOf(false, ether.ProtoUDP, 5, 16, false, []byte("rest"))
	if n := testing.AllocsPerRun(100, func() {
		for _, f := range []*ether.Frame{&first, &last} {
			p := Passage{Frame: *f, Source: 1, Flows: flows, Now: t0}
			if got := p.Settle(); got != Pass {
				t.Error(got)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A host that has not got all of a datagram waits for the rest: what has its number next would be put to what it has, under other
// ports or another protocol.
func TestDatagramThatLacksParts(t *testing.T) {
	tcpFirst := fragmentOf(true, ether.ProtoTCP, 5, 0, true, tcp(9, 80, flagSYN, 4))
	tcpRest := fragmentOf(true, ether.ProtoTCP, 5, 24, false, []byte("rest"))
	udpFirst := fragmentOf(true, ether.ProtoUDP, 5, 0, true, udp(9, 53, 0))
	grant := toNode(t, 1, "tcp:80", "udp:53")
	t.Run("its end came first", func(t *testing.T) {
		n := newNetwork(t, grant)
		for i, c := range []struct {
			frame ether.Frame
			want  Verdict
		}{{tcpRest, NotAllowed}, {tcpFirst, Pass}, {udpFirst, BadFragment}, {tcpFirst, BadFragment}} {
			if got := n.deliver(1, 2, c.frame, 1); got != c.want {
				t.Errorf("fragment %d at the receiver: %q, want %q", i, got, c.want)
			}
			if _, got := n.egress(c.frame, 2); got != c.want {
				t.Errorf("fragment %d at the sender: %q, want %q", i, got, c.want)
			}
		}
		n.now = n.now.Add(assembly + 1)
		if got := n.deliver(1, 2, udpFirst, 1); got != Pass {
			t.Errorf("when no host waits for it any more: %q", got)
		}
	})
	t.Run("its end is refused", func(t *testing.T) {
		n := newNetwork(t, grant)
		for i, c := range []struct {
			frame  ether.Frame
			grants []Grant
			want   Verdict
		}{{tcpFirst, []Grant{grant}, Pass}, {tcpRest, nil, UnknownGrant}, {udpFirst, []Grant{grant}, BadFragment}} {
			n.replace(uint64(2+i), c.grants...)
			if got := n.deliver(1, 2, c.frame, 1); got != c.want {
				t.Errorf("fragment %d: %q, want %q", i, got, c.want)
			}
		}
	})
	t.Run("another has not got it", func(t *testing.T) {
		n := newNetwork(t, grant)
		for i, f := range []ether.Frame{tcpFirst, tcpRest} {
			if _, got := n.egress(f, 3, 2); got != Pass {
				t.Errorf("fragment %d: %q", i, got)
			}
		}
	})
	t.Run("many parts of one are refused", func(t *testing.T) {
		n := newNetwork(t, grant)
		first := fragmentOf(true, ether.ProtoTCP, 6, 0, true, tcp(9, 80, flagSYN, 4))
		rest := fragmentOf(true, ether.ProtoTCP, 6, 24, false, []byte("rest"))
		if got := n.deliver(1, 2, first, 1); got != Pass {
			t.Fatal(got)
		}
		for i := range 2 * maxDatagrams {
			later := fragmentOf(true, ether.ProtoTCP, 5, 24+8*i, true, []byte("eight by"))
			if got := n.deliver(1, 2, later, 1); got != NotAllowed {
				t.Fatalf("fragment %d without its first: %q", i, got)
			}
		}
		if got := n.deliver(1, 2, rest, 1); got != Pass {
			t.Errorf("another datagram goes on: %q", got)
		}
	})
	t.Run("somebody only asks", func(t *testing.T) {
		n := newNetwork(t, grant)
		p := Passage{Frame: tcpRest, Source: 1, Flows: n.flows[2], Now: n.now, Dry: true}
		if p.Settle() != Pass || n.views[2].Ingress(&p, 2, 1) != NotAllowed {
			t.Fatal("a later fragment passes without its first")
		}
		for _, f := range []ether.Frame{tcpFirst, tcpRest, tcpFirst} {
			if got := n.deliver(1, 2, f, 1); got != Pass {
				t.Errorf("afterwards: %q", got)
			}
		}
	})
}

// egress judges a frame at its sender for several receivers, and returns what is said of the last.
func (n *network) egress(f ether.Frame, receivers ...Identity) (grant GrantID, v Verdict) {
	p := Passage{Frame: f, Source: 1, Flows: n.flows[1], Now: n.now}
	if v = p.Settle(); v != Pass {
		return 0, v
	}
	for _, r := range receivers {
		grant, v = n.views[1].Egress(&p, r)
	}
	return grant, v
}

// A whole packet that is refused takes no place of a datagram in parts.
func TestRefusedWholeTakesNoPlace(t *testing.T) {
	n := newNetwork(t, toNode(t, 1, "tcp:80"))
	first := func(id uint16) ether.Frame {
		return fragmentOf(false, ether.ProtoTCP, id, 0, true, tcp(9, 80, flagACK, 4)[:24])
	}
	for id := range uint16(maxDatagrams) {
		n.now = n.now.Add(time.Millisecond)
		if got := n.deliver(1, 2, first(id), 1); got != Pass {
			t.Fatalf("datagram %d: %q", id, got)
		}
	}
	if got := n.deliver(1, 2, ip(1, 2, ether.ProtoTCP, tcp(9, 81, flagSYN, 0)), 1); got != NotAllowed {
		t.Fatalf("another port: %q", got)
	}
	if got := n.deliver(1, 2, first(0), 1); got != BadFragment {
		t.Errorf("the oldest datagram has been forgotten: %q", got)
	}
}
