package policy

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// exchange is one node's memory and what it has counted.
type exchange struct {
	t     *testing.T
	self  Identity
	flows *Flows
	uses  *Uses
	view  *View
}

func newExchange(t *testing.T, self Identity, grants ...Grant) *exchange {
	x := &exchange{t: t, self: self, flows: NewFlows(), uses: NewUses()}
	x.compile(1, grants...)
	return x
}

func (x *exchange) compile(generation uint64, grants ...Grant) {
	x.view = Compile(Rules{Generation: generation, Self: x.self, Stations: goldenStations(), Grants: grants, Uses: x.uses})
}

// tcpClass is the class of a TCP packet.
func tcpClass(from, to Identity, src, dst uint16) Class {
	return Class{
		Kind: Packet, Type: ether.TypeIPv4, Dst: ether.MAC{2, 5: byte(to)},
		Tuple: Tuple{Src: addressOf(from), Dst: addressOf(to), SrcPort: src, DstPort: dst, Protocol: ether.ProtoTCP},
	}
}

func (x *exchange) passage(from Identity, c Class, size int, at time.Time) *Passage {
	return &Passage{Source: from, Flows: x.flows, Now: at, Frame: ether.Frame{Data: make([]byte, size)}, class: c, classed: true}
}

// out sends a frame of size bytes and says by which grant.
func (x *exchange) out(from, to Identity, c Class, size int, at time.Time) (GrantID, Verdict) {
	return x.view.Egress(x.passage(from, c, size, at), to)
}

// used checks the counts.
func (x *exchange) used(what string, want ...Use) {
	x.t.Helper()
	got := x.uses.List()
	if !slices.EqualFunc(got, want, func(a, b Use) bool {
		return a.Grant == b.Grant && a.Frames == b.Frames && a.Octets == b.Octets && a.Flows == b.Flows && a.Last.Equal(b.Last)
	}) {
		x.t.Errorf("%s: counted %+v, want %+v", what, got, want)
	}
}

func ssh(id GrantID) Grant {
	return Grant{ID: id, Sources: []Identity{1}, Targets: []Identity{2}, Allow: []Term{{Scope: PortRange, Protocol: 6, From: 22, To: 22}}}
}

// Both ends count what a grant lets pass: what begins, what goes on, what answers. What is refused counts nowhere.
func TestUses(t *testing.T) {
	later := t0.Add(5 * time.Second)
	for _, self := range []Identity{1, 2} {
		x := newExchange(t, self, ssh(7), ssh(9))
		x.used("at first", Use{Grant: 7}, Use{Grant: 9})
		pass := func(from, to Identity, c Class, size int, at time.Time) {
			t.Helper()
			id := GrantID(7)
			var v Verdict
			if from == self {
				id, v = x.out(from, to, c, size, at)
			} else {
				v = x.view.Ingress(x.passage(from, c, size, at), to, id)
			}
			if id != 7 || v != Pass {
				t.Fatalf("by grant %d, %q", id, v)
			}
		}
		pass(1, 2, tcpClass(1, 2, 4242, 22), 100, t0)
		pass(2, 1, tcpClass(2, 1, 22, 4242), 60, t0)
		pass(1, 2, tcpClass(1, 2, 4242, 22), 40, later)
		x.used("a flow", Use{Grant: 7, Frames: 3, Octets: 200, Flows: 1, Last: later}, Use{Grant: 9})
		if _, v := x.out(1, 2, tcpClass(1, 2, 4242, 23), 100, later); v != NotAllowed {
			t.Errorf("to another port: %q", v)
		}
		x.used("what is refused", Use{Grant: 7, Frames: 3, Octets: 200, Flows: 1, Last: later}, Use{Grant: 9})
		p := x.passage(1, tcpClass(1, 2, 4243, 22), 100, later)
		p.Dry = true
		if _, v := x.view.Egress(p, 2); v != Pass || x.view.Ingress(p, 2, 7) != Pass {
			t.Errorf("asked: %q", v)
		}
		x.used("what is only asked", Use{Grant: 7, Frames: 3, Octets: 200, Flows: 1, Last: later}, Use{Grant: 9})
	}
}

// Counts outlive the Views that count into them, and are forgotten with the grants.
func TestUsesRetain(t *testing.T) {
	x := newExchange(t, 1, ssh(7))
	x.out(1, 2, tcpClass(1, 2, 4242, 22), 100, t0)
	x.compile(2, ssh(7), ssh(8))
	x.out(1, 2, tcpClass(1, 2, 4242, 22), 100, t0)
	x.used("another generation", Use{Grant: 7, Frames: 2, Octets: 200, Flows: 1, Last: t0}, Use{Grant: 8})
	x.uses.Retain([]GrantID{8})
	x.used("grant 7 is gone", Use{Grant: 8})
}

// A grant that only observes passes nothing, and counts what it would let begin, whether that passes by another grant or not.
func TestObserve(t *testing.T) {
	watched := ssh(5)
	watched.Observe = true
	x := newExchange(t, 1, watched)
	p := x.passage(1, tcpClass(1, 2, 4242, 22), 100, t0)
	if _, v := x.view.Egress(p, 2); v == Pass || p.Observed != 5 {
		t.Errorf("alone: %q, observed %d", v, p.Observed)
	}
	x.used("alone", Use{Grant: 5, Frames: 1, Octets: 100, Last: t0})
	if v := x.view.Ingress(x.passage(1, tcpClass(1, 2, 4242, 22), 100, t0), 2, 5); v != WrongGrant {
		t.Errorf("a frame that names it: %q", v)
	}

	x = newExchange(t, 1, watched, Grant{ID: 6, Segment: true, Sources: []Identity{1, 2}})
	x.flows.RecordAll(true)
	for _, c := range []struct {
		name     string
		from, to Identity
		class    Class
		observed GrantID
	}{
		{"what it covers", 1, 2, tcpClass(1, 2, 4242, 22), 5},
		{"another port", 1, 2, tcpClass(1, 2, 4242, 23), 0},
		{"the other way", 2, 1, tcpClass(2, 1, 4242, 22), 0},
		{"to another", 1, 3, tcpClass(1, 3, 4242, 22), 0},
	} {
		p := x.passage(c.from, c.class, 100, t0)
		if x.view.Egress(p, c.to); p.Observed != c.observed {
			t.Errorf("%s: observed %d, want %d", c.name, p.Observed, c.observed)
		}
	}
	x.used("beside another", Use{Grant: 5, Frames: 1, Octets: 100, Last: t0}, Use{Grant: 6, Frames: 3, Octets: 300, Flows: 3, Last: t0})
	observed := map[uint16]GrantID{}
	for _, r := range x.flows.Live() {
		if r.Opener == 1 {
			observed[r.Tuple.DstPort] = r.Observed
		}
	}
	if want := map[uint16]GrantID{22: 5, 23: 0}; !maps.Equal(observed, want) {
		t.Errorf("flows are observed by %v, want %v", observed, want)
	}

	watched.Expires = t0
	x = newExchange(t, 1, watched)
	x.out(1, 2, tcpClass(1, 2, 4242, 22), 100, t0)
	x.used("expired", Use{Grant: 5})
}

// Who is a member by an enforced grant is one for a grant that observes, too, whatever becomes of another that observes.
func TestObserveMembers(t *testing.T) {
	all := []Identity{1, 2}
	observed := func(id GrantID, end time.Time, sources ...Identity) Grant {
		return Grant{ID: id, Segment: true, Sources: sources, Observe: true, Allow: ssh(0).Allow, Expires: end}
	}
	x := newExchange(t, 1, Grant{ID: 6, Segment: true, Sources: all}, observed(4, t0, all...), observed(5, time.Time{}, 1))
	x.out(1, 2, tcpClass(1, 2, 4242, 22), 100, t0)
	x.used("members", Use{Grant: 4}, Use{Grant: 5, Frames: 1, Octets: 100, Last: t0}, Use{Grant: 6, Frames: 1, Octets: 100, Last: t0})
}

// However many grants only observe, a frame is held against few of them (TestFrameCostDoesNotGrow has the other kinds).
func TestObserveMany(t *testing.T) {
	const times = 20
	var took []time.Duration
	for _, n := range []int{10, 10_000} {
		grants := make([]Grant, n)
		for i := range grants {
			grants[i] = ssh(GrantID(i + 1))                                                                    //nolint:gosec // few
			grants[i].Allow[0].From, grants[i].Allow[0].To, grants[i].Observe = uint16(1+i), uint16(1+i), true //nolint:gosec // few
		}
		x := newExchange(t, 1, grants...)
		took = append(took, best(15, func() {
			for range 1000 {
				x.out(1, 2, tcpClass(1, 2, 4242, 60000), 100, t0)
			}
		}))
	}
	if took[1] > times*took[0] {
		t.Errorf("1000 frames take %v beside 10 grants, %v beside 10 000", took[0], took[1])
	}
}
