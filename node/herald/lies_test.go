package herald

import (
	"encoding/hex"
	"fmt"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// named is a host with a MAC of its own, behind node 2 alone.
const named policy.Identity = 200

func withHost(r policy.Rules) policy.Rules {
	m := policy.NewMachine(mac(500), nil)
	m.Gateways, m.Attachments = []policy.Identity{2}, []policy.Identity{lan(2)}
	r.Stations[named] = m
	r.Grants[0].Sources = append(r.Grants[0].Sources, named)
	return r
}

// liar says what it likes, as node 1, to one node.
type liar struct {
	n              *simulated
	epoch, version uint64
}

func (l *liar) say(n notice) {
	n.vni, n.kind = vni, kindAddresses
	l.n.herald.Hear(l.n.links[1], n.append(nil), l.n.w.now)
}

func list(entries ...entry) (b []byte) {
	for i := range entries {
		b = entries[i].append(b)
	}
	return b
}

// whole is a list of one part.
func (l *liar) whole(entries ...entry) {
	l.version++
	l.say(notice{full: true, parts: 1, epoch: l.epoch, version: l.version, entries: list(entries...)})
}

// changed is what leads from the last list to the next.
func (l *liar) changed(entries ...entry) {
	l.version++
	l.say(notice{parts: 1, epoch: l.epoch, base: l.version - 1, version: l.version, entries: list(entries...)})
}

func says(m ether.MAC, who policy.Identity, seq uint32) entry {
	return entry{mac: m, claim: claim{who: who, seq: seq}}
}

// A gateway is believed only about machines for which the signed state lets it speak, and MACs that these may use.
func TestLies(t *testing.T) {
	const highest = math.MaxUint32
	for name, c := range map[string]struct {
		who  policy.Identity
		mac  ether.MAC
		want policy.Identity // behind which node plain believes it to be then
	}{
		"its own machine":                {lan(1), mac(1), 1},
		"its own machine, at node 2 now": {lan(1), mac(2), 1}, // it outranks, and may: nobody has that MAC by name
		"another's machine":              {lan(2), mac(1), 0},
		"another's machine, at node 2":   {lan(2), mac(2), 2},
		"a host of another's":            {named, mac(500), 2},
		"a host's MAC as its own":        {lan(1), mac(500), 2},
		"a node's MAC":                   {lan(1), ether.MAC{6, 5: 2}, 0},
		"the listener's MAC":             {lan(1), ether.MAC{6, 5: byte(plain)}, 0},
		"itself":                         {1, mac(1), 0},
		"itself with its own MAC":        {1, ether.MAC{6, 5: 1}, 0},
		"another node":                   {2, ether.MAC{6, 5: 2}, 0},
		"the listener":                   {plain, ether.MAC{6, 5: byte(plain)}, 0},
		"nobody":                         {0, mac(1), 0},
		"who is not there":               {4711, mac(1), 0},
		"everybody's MAC":                {lan(1), ether.Broadcast, 0},
		"a group's MAC":                  {lan(1), ether.MAC{1, 0, 0x5e}, 0},
		"no MAC":                         {lan(1), ether.MAC{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1, withHost(rules(1, 2, everybody(2))), 2, plain)
			w.nodes[2].learn(mac(2))
			w.nodes[2].sw.FDB().Learn(mac(500), placeOf(w.nodes[2], named), w.now)
			w.pass(time.Second)
			l := &liar{n: w.nodes[plain], epoch: 1}
			l.whole(says(c.mac, c.who, highest))
			if got := l.n.where(c.mac); got != c.want {
				t.Errorf("as a list: behind node %d, want %d", got, c.want)
			}
			l.changed(says(c.mac, c.who, highest))
			if got := l.n.where(c.mac); got != c.want {
				t.Errorf("as a change: behind node %d, want %d", got, c.want)
			}
			l.changed(entry{mac: c.mac, gone: true, claim: claim{seq: highest}})
			if got := l.n.where(c.mac); got == 1 || c.want == 2 && got != 2 {
				t.Errorf("withdrawn: behind node %d, want %d", got, c.want)
			}
		})
	}
}

// A lie that is permitted ends with the liar: what it has hidden is found again, without anybody saying anything.
func TestLieEnds(t *testing.T) {
	w := newWorld(t, 2, rules(1, 3, everybody(3)), 2, 3, plain)
	w.nodes[2].learn(mac(1))
	w.pass(500 * time.Millisecond)
	l := &liar{n: w.nodes[plain], epoch: 1}
	l.whole(says(mac(1), lan(1), math.MaxUint32))
	if at := l.n.where(mac(1)); at != 1 {
		t.Fatalf("behind node %d", at)
	}
	w.pass(time.Second)
	w.agreed("the liar is silent", mac(1), 2)
	w.nodes[3].learn(mac(1))
	w.pass(500 * time.Millisecond)
	w.agreed("it moves", mac(1), 3)
}

// Withdrawing what one has not announced changes nothing: neither where it is, nor its number.
func TestWithdrawOfAnothers(t *testing.T) {
	w := newWorld(t, 3, rules(1, 3, everybody(3)), 2, 3, plain)
	w.nodes[2].learn(mac(1))
	w.pass(500 * time.Millisecond)
	for _, id := range []policy.Identity{2, 3, plain} {
		l := &liar{n: w.nodes[id], epoch: 1}
		l.whole()
		l.changed(entry{mac: mac(1), gone: true, claim: claim{who: lan(2), seq: math.MaxUint32}})
		for _, e := range l.n.sw.FDB().Entries(w.now) {
			if e.Seq != 0 {
				t.Errorf("node %d: %+v", id, e)
			}
		}
	}
	w.pass(100 * time.Millisecond)
	w.agreed("afterwards", mac(1), 2)
}

// Lists without end, epochs that change with each message, parts that never become whole: memory stays within its limit, and what
// is then said in order is heard.
func TestFloodIsBounded(t *testing.T) {
	w := newWorld(t, 4, rules(1, 2, everybody(2)), 2, plain)
	n := w.nodes[plain]
	l := &liar{n: n}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var before uint64
	for round := range 2 {
		for i := range 2000 {
			l.epoch++
			var entries []entry
			for j := range maxEntries {
				entries = append(entries, says(mac(i*maxEntries+j), lan(1), uint32(i)))
			}
			l.say(notice{full: true, part: uint16(i % maxParts), parts: maxParts, epoch: l.epoch, version: uint64(i), entries: list(entries...)})
		}
		if len(n.herald.heard) != 1 || len(n.herald.heard[1].claims) > n.most() {
			t.Fatalf("%d claims are kept", len(n.herald.heard[1].claims))
		}
		if round == 0 {
			before = heap()
		}
	}
	if after := heap(); after > before+1<<20 {
		t.Errorf("memory grows from %d to %d", before, after)
	}
	l.version = 10_000
	l.whole(says(mac(1<<20), lan(1), 0))
	l.version-- // the first has only made room; so the list was asked for, and it is the same
	l.whole(says(mac(1<<20), lan(1), 0))
	if got := n.herald.heard[1].claims; len(got) != 1 || n.where(mac(1<<20)) != 1 {
		t.Errorf("afterwards %d claims, behind node %d", len(got), n.where(mac(1<<20)))
	}
}

// A list that does not fit is not asked for without end.
func TestFloodOfOneList(t *testing.T) {
	w := newWorld(t, 4, rules(1, 1, everybody(1)), plain)
	n := w.nodes[plain]
	n.limits.Entries = 5
	n.start()
	l := &liar{n: n, epoch: 1}
	var entries []entry
	for i := range 6 {
		entries = append(entries, says(mac(i), lan(1), 0))
	}
	l.whole(entries...)
	if x := n.herald.heard[1]; !x.known || x.lacks || len(x.claims) != 5 {
		t.Errorf("%+v", x)
	}
}

// Who is no gateway is not remembered, whatever it says, and who is told nothing gets no answer.
func TestStrangersCostNothing(t *testing.T) {
	w := newWorld(t, 5, rules(1, 1, everybody(1)), 1, plain)
	n := w.nodes[1]
	l := notice{vni: vni, kind: kindAddresses, full: true, parts: 1, version: 1, entries: list(says(mac(1), lan(1), 9))}
	n.herald.Hear(n.links[plain], l.append(nil), w.now)
	if len(n.herald.heard) != 0 || n.where(mac(1)) != 0 {
		t.Errorf("%d are heard", len(n.herald.heard))
	}
	ask := notice{vni: vni, kind: kindAsk}
	for range 50 {
		n.herald.Hear(n.links[plain], ask.append(nil), w.now)
		w.pass(20 * time.Millisecond)
	}
	if w.sent != 0 {
		t.Errorf("%d messages", w.sent)
	}
	// Who is told something is not answered more often than each 200 ms.
	for i := range 1000 {
		n.learn(mac(i))
	}
	w.pass(200 * time.Millisecond)
	w.sent = 0
	for range 100 {
		n.herald.Hear(n.links[plain], ask.append(nil), w.now)
		w.step()
	}
	if most := 15 * 6; w.sent > most {
		t.Errorf("%d messages in a second, want at most %d", w.sent, most)
	}
}

// A message of another segment, or that contradicts itself, is not heard.
func TestMalformed(t *testing.T) {
	w := newWorld(t, 6, rules(1, 1, everybody(1)), 1, plain)
	n := w.nodes[plain]
	good := notice{vni: vni, kind: kindAddresses, full: true, parts: 1, epoch: 5, version: 1, entries: list(says(mac(1), lan(1), 0))}
	for name, edit := range map[string]func(*notice){
		"another segment":            func(n *notice) { n.vni++ },
		"another kind":               func(n *notice) { n.kind = 3 },
		"no kind":                    func(n *notice) { n.kind = 0 },
		"no parts":                   func(n *notice) { n.parts = 0 },
		"a part too many":            func(n *notice) { n.part = 1 },
		"too many parts":             func(n *notice) { n.parts = maxParts + 1 },
		"half an entry":              func(n *notice) { n.entries = n.entries[:8] },
		"a change that leads back":   func(n *notice) { n.full, n.base = false, 2 },
		"a change without entries":   func(n *notice) { n.full, n.entries = false, nil },
		"entries without any change": func(n *notice) { n.full, n.base = false, 1 },
	} {
		bad := good
		edit(&bad)
		n.herald.Hear(n.links[1], bad.append(nil), w.now)
		if len(n.herald.heard) != 0 {
			t.Errorf("%s: is heard", name)
			clear(n.herald.heard)
		}
	}
	frame := good.append(nil)
	frame[0] = 0
	n.herald.Hear(n.links[1], frame, w.now)
	n.herald.Hear(n.links[1], good.append(nil)[:headLen-1], w.now)
	n.herald.Hear(n.links[1], good.append(nil)[:headLen-entryLen], w.now)
	if len(n.herald.heard) != 0 {
		t.Error("what is no notice is heard")
	}
	if _, ok := SegmentOf(frame); ok {
		t.Error("what is no notice has a segment")
	}
	if got, ok := SegmentOf(good.append(nil)); !ok || got != vni {
		t.Errorf("the segment is %d, %t", got, ok)
	}
	n.herald.Hear(n.links[1], (&notice{vni: vni, kind: kindAsk}).append(nil), w.now) // who tells nothing is asked
	n.herald.Hear(n.links[1], good.append(nil), w.now)
	if n.where(mac(1)) != 1 {
		t.Error("the good one is not heard")
	}
}

// Old lists and changes that come late undo nothing.
func TestLate(t *testing.T) {
	w := newWorld(t, 7, rules(1, 1, everybody(1)), 1, plain)
	l := &liar{n: w.nodes[plain], epoch: 1}
	check := func(what string, want policy.Identity) {
		t.Helper()
		if got := l.n.where(mac(1)); got != want {
			t.Errorf("%s: behind node %d, want %d", what, got, want)
		}
	}
	l.say(notice{parts: 1, base: 0, version: 1, entries: list(says(mac(1), lan(1), 0))})
	check("a change before any list", 0)
	l.whole(entry{mac: mac(1), gone: true, claim: claim{who: lan(1)}})
	check("gone, in a list", 0)
	l.changed(says(mac(1), lan(1), 0)) // 2
	l.changed(entry{mac: mac(1), gone: true})
	check("gone", 0)
	l.say(notice{parts: 1, epoch: 1, base: 1, version: 2, entries: list(says(mac(1), lan(1), 0))})
	check("a change, again", 0)
	if l.n.herald.heard[1].lacks {
		t.Error("what came late is asked for")
	}
	l.say(notice{full: true, parts: 1, epoch: 1, version: 2, entries: list(says(mac(1), lan(1), 0))})
	check("a list, late", 0)
	l.say(notice{parts: 1, epoch: 1, base: 4, version: 5, entries: list(says(mac(1), lan(1), 0))})
	check("a change too early", 0)
	if !l.n.herald.heard[1].lacks {
		t.Error("what was missed is not asked for")
	}
	l.say(notice{parts: 1, epoch: 2, base: 3, version: 4, entries: list(says(mac(1), lan(1), 0))})
	check("a change of another epoch", 0)
	l.say(notice{full: true, part: 1, parts: 2, epoch: 1, version: 6, entries: list(says(mac(1), lan(1), 0))})
	l.say(notice{full: true, part: 0, parts: 2, epoch: 1, version: 5, entries: list(says(mac(2), lan(1), 0))})
	l.say(notice{full: true, part: 0, parts: 2, epoch: 1, version: 6})
	check("the newer list", 1)
	if at := l.n.where(mac(2)); at != 0 {
		t.Errorf("a list that is older than another that comes: behind node %d", at)
	}
}

// A part that comes twice is counted once: a list is whole only when it is.
func TestPartTwice(t *testing.T) {
	w := newWorld(t, 8, rules(1, 1, everybody(1)), 1, plain)
	l := &liar{n: w.nodes[plain], epoch: 1}
	l.whole(says(mac(1), lan(1), 0), says(mac(2), lan(1), 0))
	for range 3 {
		l.say(notice{full: true, part: 0, parts: 2, epoch: 1, version: 2, entries: list(says(mac(1), lan(1), 0))})
	}
	if l.n.where(mac(2)) != 1 {
		t.Error("what is in the part that is missing is withdrawn")
	}
	l.say(notice{full: true, part: 1, parts: 2, epoch: 1, version: 2})
	if l.n.where(mac(2)) != 0 || l.n.where(mac(1)) != 1 {
		t.Error("what is in no part stays")
	}
	if x := l.n.herald.heard[1]; !x.known || x.lacks {
		t.Error("the list that is whole is asked for")
	}
}

// What was told over a link that is another now went with it: nothing is taken for known that is not in the table.
func TestRestartOfLink(t *testing.T) {
	w := newWorld(t, 8, rules(1, 1, everybody(1)), 1, plain)
	l := &liar{n: w.nodes[plain], epoch: 1}
	l.whole(says(mac(1), lan(1), 0))
	old := l.n.links[1]
	l.n.sw.RemovePort(old)
	l.n.links[1] = vswitch.NewPort("again", vswitch.Link, 1, nil)
	l.n.sw.AddPort(l.n.links[1])
	l.changed(says(mac(2), lan(1), 0))
	if x := l.n.herald.heard[1]; x.known || !x.lacks || x.port != l.n.links[1] {
		t.Errorf("%+v", x)
	}
	l.whole(says(mac(1), lan(1), 0))
	if at, _ := l.n.sw.FDB().Lookup(mac(1), w.now); at.Port != l.n.links[1] {
		t.Errorf("at %+v", at)
	}
}

// A claim for another machine of the same gateway, or with a lower number, is taken at its word, and another's may then be better.
func TestClaimsChange(t *testing.T) {
	w := newWorld(t, 9, withHost(rules(1, 2, everybody(2))), 2, plain)
	(&liar{n: w.nodes[2], epoch: 1}).whole(says(mac(1), lan(1), 0))
	w.nodes[2].learn(mac(1)) // with number 1
	w.pass(500 * time.Millisecond)
	l := &liar{n: w.nodes[plain], epoch: 1}
	for i, c := range []struct {
		claims []entry
		want   policy.Identity
	}{
		{nil, 2},
		{[]entry{says(mac(1), lan(1), 3)}, 1},
		{[]entry{says(mac(1), lan(1), 0)}, 2},
		{[]entry{says(mac(1), lan(1), 1)}, 1},
		{[]entry{says(mac(1), lan(2), 1)}, 2},
		{[]entry{says(mac(1), lan(1), 2)}, 1},
		{nil, 2},
	} {
		l.whole(c.claims...)
		if got := l.n.where(mac(1)); got != c.want {
			t.Errorf("step %d: behind node %d, want %d", i, got, c.want)
		}
	}
}

func FuzzNotice(f *testing.F) {
	f.Add((&notice{vni: vni, kind: kindAsk}).append(nil))
	f.Add((&notice{vni: vni, kind: kindAddresses, full: true, parts: 2, part: 1, epoch: 1, version: 2, entries: list(says(mac(1), lan(1), 3))}).append(nil))
	f.Add((&notice{vni: vni, kind: kindAddresses, parts: 1, epoch: 1, base: 2, version: 3, entries: list(entry{mac: mac(1), gone: true})}).append(nil))
	f.Add([]byte{Format})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, ok := parseNotice(b)
		if !ok {
			return
		}
		// All that is read is written again; the rest is reserved.
		again, ok := parseNotice(n.append(nil))
		if !ok || len(n.append(nil)) != len(b) || fmt.Sprint(n) != fmt.Sprint(again) {
			t.Errorf("%x\nis read as %+v,\nand again as %+v, %t", b, n, again, ok)
		}
		for i := range n.count() {
			e := n.entry(i)
			if o := (&notice{entries: e.append(nil)}).entry(0); o != e {
				t.Errorf("entry %d is read as %+v, and again as %+v", i, e, o)
			}
		}
		w := newWorld(t, 1, rules(1, 1, everybody(1)), plain)
		l := w.nodes[plain]
		l.herald.Hear(l.links[1], b, w.now)
		for _, e := range l.sw.FDB().Entries(w.now) {
			if e.Port.Who != lan(1) || !e.MAC.IsStation() {
				t.Errorf("%+v is believed", e)
			}
		}
	})
}

// What is on the wire, as docs/protocol.md draws it.
func TestWire(t *testing.T) {
	n := notice{
		vni: 0x010203, kind: kindAddresses, full: true, part: 0x0405, parts: 0x0506, epoch: 0x1112131415161718, base: 0x2122232425262728,
		version: 0x3132333435363738, entries: list(entry{mac: ether.MAC{2, 4, 6, 8, 10, 12}, gone: true, claim: claim{who: 0x41424344, seq: 0x51525354}}),
	}
	const want = "020102030101040505060000111213141516171821222324252627283132333435363738" + "020406080a0c01004142434451525354"
	if got := hex.EncodeToString(n.append(nil)); got != want {
		t.Errorf("on the wire is\n%s, want\n%s", got, want)
	}
}
