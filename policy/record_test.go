package policy

import (
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// Records tell how flows end, and the deltas of each add up to what it has carried.
func TestRecords(t *testing.T) {
	fin := tcpClass(1, 2, 4242, 22)
	fin.Ends = true
	udp := Grant{ID: 8, Sources: []Identity{1}, Targets: []Identity{2}, Allow: []Term{{Scope: PortRange, Protocol: 17, From: 53, To: 53}}}
	query := tcpClass(1, 2, 4242, 53)
	query.Tuple.Protocol = ether.ProtoUDP
	for _, c := range []struct {
		name  string
		last  Class
		after func(*exchange)
		want  End
	}{
		{"idle", query, func(x *exchange) { x.flows.Age(x.view, t0.Add(time.Hour)) }, Idle},
		{"closed", fin, func(x *exchange) { x.flows.Age(x.view, t0.Add(time.Hour)) }, Closed},
		{"its grant is gone", fin, func(x *exchange) { x.compile(2); x.flows.Age(x.view, t0.Add(time.Second)) }, Cut},
		{"its opener is gone", fin, func(x *exchange) { x.flows.Retain([]Identity{2}) }, Cut},
		{"begun anew after long", query, func(x *exchange) { x.out(1, 2, query, 100, t0.Add(time.Hour)) }, Idle},
	} {
		x := newExchange(t, 1, ssh(7), udp)
		x.out(1, 2, c.last, 100, t0)
		x.out(2, 1, Class{Kind: Packet, Type: c.last.Type, Dst: ether.MAC{2, 5: 1}, Tuple: c.last.Tuple.Reverse()}, 60, t0)
		live := x.flows.Live()
		if len(live) != 1 || live[0].Frames != [2]uint64{1, 1} || live[0].Octets != [2]uint64{100, 60} || live[0].Opener != 1 ||
			live[0].Other != 2 || live[0].Tuple != c.last.Tuple || !live[0].Began.Equal(t0) || live[0].End != Active {
			t.Fatalf("%s: live %+v", c.name, live)
		}
		first, _ := x.flows.Collect(t0.Add(time.Second), 0)
		x.out(1, 2, c.last, 40, t0.Add(2*time.Second))
		c.after(x)
		second, lost := x.flows.Collect(t0.Add(2*time.Hour), 24*time.Hour)
		if len(first) != 1 || first[0].End != Active || len(second) != 1 || second[0].End != c.want || lost != 0 {
			t.Fatalf("%s: %+v, then %+v, %d lost", c.name, first, second, lost)
		}
		if a, b := first[0], second[0]; a.Frames != [2]uint64{1, 1} || b.Frames != [2]uint64{1, 0} || a.Octets != [2]uint64{100, 60} ||
			b.Octets != [2]uint64{40, 0} || !a.Began.Equal(b.Began) || !b.Last.Equal(t0.Add(2*time.Second)) {
			t.Errorf("%s: %+v, then %+v", c.name, a, b)
		}
		if again, _ := x.flows.Collect(t0.Add(3*time.Hour), 24*time.Hour); len(again) != 0 {
			t.Errorf("%s: told twice: %+v", c.name, again)
		}
	}
}

// A live flow is told when it has carried something and was not told for long enough.
func TestCollectEvery(t *testing.T) {
	x := newExchange(t, 1, ssh(7))
	x.out(1, 2, tcpClass(1, 2, 4242, 22), 100, t0)
	for _, c := range []struct {
		after time.Duration
		send  bool
		want  int
	}{{9 * time.Second, false, 0}, {10 * time.Second, false, 1}, {30 * time.Second, false, 0}, {35 * time.Second, true, 0}, {40 * time.Second, false, 1}} {
		if c.send {
			x.out(1, 2, tcpClass(1, 2, 4242, 22), 1, t0.Add(c.after))
		}
		if got, _ := x.flows.Collect(t0.Add(c.after), 10*time.Second); len(got) != c.want {
			t.Errorf("after %v: %d records, want %d", c.after, len(got), c.want)
		}
	}
}

// Who begins more than a shard holds loses the oldest, and what nobody collects is counted and bounded.
func TestEvictedAndLost(t *testing.T) {
	x := newExchange(t, 1, Grant{ID: 7, Sources: []Identity{1}, Targets: []Identity{2}})
	const room, begun = flowShards * maxShardFlows, 40_000
	for i := range begun {
		x.out(1, 2, tcpClass(1, 2, uint16(1+i), uint16(1+i>>4)), 60, t0.Add(time.Duration(i)))
	}
	ended, lost := x.flows.Collect(t0.Add(time.Minute), time.Hour)
	live := x.flows.Len()
	if live > room || len(ended) != maxEnded || live+len(ended)+int(lost) != begun || ended[0].End != Evicted || ended[0].Frames[onward] != 1 {
		t.Errorf("%d live, %d ended (%+v), %d lost", live, len(ended), ended[0], lost)
	}
	if _, lost := x.flows.Collect(t0.Add(time.Minute), time.Hour); lost != 0 {
		t.Errorf("%d lost again", lost)
	}
}

// Between members nothing is remembered unless somebody wants it recorded, and recording changes nothing of what is sent: the
// other end may not record.
func TestRecordAll(t *testing.T) {
	own := func(id GrantID, who Identity) Grant { return Grant{ID: id, Segment: true, Sources: []Identity{who}} }
	a, b := newExchange(t, 1, own(7, 1), own(8, 2)), newExchange(t, 2, own(7, 1), own(8, 2))
	b.flows.RecordAll(true)
	for i := range 3 {
		at := t0.Add(time.Duration(i) * time.Second)
		there, back := tcpClass(1, 2, 4242, 22), tcpClass(2, 1, 22, 4242)
		there.Opens = i == 0
		for _, c := range []struct {
			from, to *exchange
			class    Class
		}{{a, b, there}, {b, a, back}} {
			id, v := c.from.out(c.from.self, c.to.self, c.class, 100, at)
			if v != Pass || id != GrantID(6+c.from.self) {
				t.Errorf("node %d sends by grant %d, %q", c.from.self, id, v)
			}
			if v := c.to.view.Ingress(c.to.passage(c.from.self, c.class, 100, at), c.to.self, id); v != Pass {
				t.Errorf("node %d refuses what comes by grant %d: %q", c.to.self, id, v)
			}
		}
	}
	if n := a.flows.Len(); n != 0 {
		t.Errorf("%d flows remembered that nobody asked for", n)
	}
	live := b.flows.Live()
	if len(live) != 1 || live[0].Opener != 1 || live[0].Frames != [2]uint64{3, 3} || live[0].Octets != [2]uint64{300, 300} || live[0].Grant != 7 {
		t.Errorf("recorded %+v", live)
	}
	p := b.passage(1, tcpClass(1, 2, 9, 9), 100, t0)
	p.Dry = true
	if b.view.Ingress(p, 2, 7); b.flows.Len() != 1 {
		t.Error("what is only asked is recorded")
	}
}

// A frame that names another grant than its flow stands by is counted once.
func TestOtherGrantCountsOnce(t *testing.T) {
	x := newExchange(t, 2, ssh(7), ssh(9))
	for _, id := range []GrantID{7, 9} {
		if v := x.view.Ingress(x.passage(1, tcpClass(1, 2, 4242, 22), 100, t0), 2, id); v != Pass {
			t.Fatalf("by grant %d: %q", id, v)
		}
	}
	if live := x.flows.Live(); len(live) != 1 || live[0].Frames != [2]uint64{2, 0} || live[0].Grant != 9 {
		t.Errorf("%+v", live)
	}
}
