package vswitch

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// set changes attributes of a port of a mesh: "key=value".
func (m *mesh) set(node policy.Identity, port string, pairs ...string) {
	m.t.Helper()
	p := m.ports[node][port]
	a := p.Attributes()
	for _, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		if err := a.Set(key, value); err != nil {
			m.t.Fatal(err)
		}
	}
	p.SetAttributes(a)
}

// dropped is how many frames a node has dropped for a reason.
func (m *mesh) dropped(node policy.Identity, drop Drop) uint64 {
	for _, d := range m.segments[node].Drops() {
		if d.Drop == drop {
			return d.Count
		}
	}
	return 0
}

// without is a copy of what was wanted, without some.
func without(all sent, ids ...policy.Identity) sent {
	out := maps.Clone(all)
	for _, id := range ids {
		delete(out, id)
	}
	return out
}

// Each attribute does to frames what it is called after, and nothing else. What is asked before is what happens (mesh.forward).
func TestAttributes(t *testing.T) {
	all := sent{1: 1, 2: 1, 3: 1, siteA: 1, 21: 1, 22: 1, siteB: 1, 31: 1, roaming: 1}
	broadcast := func(who policy.Identity) []byte { return datagram(who, ether.Broadcast, everybody4) }
	unknown := func(who policy.Identity) []byte { return data(macOf(99), macAt(who), experimental, "") }
	to := func(who, other policy.Identity) []byte { return data(macAt(other), macAt(who), experimental, "") }
	onA, onB := []policy.Identity{siteA, 21, 22}, []policy.Identity{siteB, 31, roaming}
	of1, ofA := without(all, 1), without(all, onA...)
	gone := numDrops // it is not the first node that drops it
	for _, c := range []struct {
		name  string
		set   string // port of node 3, and its attributes
		who   policy.Identity
		frame []byte
		first Drop // of the first node
		want  sent
	}{
		{"nothing set, to all", "vlan 20", 1, broadcast(1), Forwarded, of1},
		{"nothing set, to a group", "vlan 20", 1, datagram(1, groupMAC, group4), Forwarded, of1},
		{"nothing set, to nobody who was seen", "vlan 20", 1, unknown(1), Forwarded, of1},

		{"shut, into it", "vlan 20 shut=on", 21, to(21, 1), DropPort, nil},
		{"shut, to all", "vlan 20 shut=on", 1, broadcast(1), Forwarded, without(of1, onA...)},
		{"shut, to one", "vlan 20 shut=on", 1, to(1, 21), gone, nil},
		{"shut, to others", "vlan 20 shut=on", 31, to(31, 1), Forwarded, sent{1: 1}},

		{"bcast_flood, to all", "vlan 20 bcast_flood=off", 1, broadcast(1), Forwarded, without(of1, onA...)},
		{"bcast_flood, to a group", "vlan 20 bcast_flood=off", 1, datagram(1, groupMAC, group4), Forwarded, of1},
		{"bcast_flood, to nobody who was seen", "vlan 20 bcast_flood=off", 1, unknown(1), Forwarded, of1},
		{"bcast_flood, out of it", "vlan 20 bcast_flood=off", 21, broadcast(21), Forwarded, ofA},
		{"mcast_flood, to all", "vlan 20 mcast_flood=off", 1, broadcast(1), Forwarded, of1},
		{"mcast_flood, to a group", "vlan 20 mcast_flood=off", 1, datagram(1, groupMAC, group4), Forwarded, without(of1, onA...)},
		{"mcast_flood, to nobody who was seen", "vlan 20 mcast_flood=off", 1, unknown(1), Forwarded, of1},
		{"flood, to all", "vlan 20 flood=off", 1, broadcast(1), Forwarded, of1},
		{"flood, to a group", "vlan 20 flood=off", 1, datagram(1, groupMAC, group4), Forwarded, of1},
		{"flood, to nobody who was seen", "vlan 20 flood=off", 1, unknown(1), Forwarded, without(of1, onA...)},
		{"flood, to one", "vlan 20 flood=off", 1, to(1, siteA), Forwarded, sent{siteA: 1, 21: 1, 22: 1}},
		{"flood, on a link", "link 1 flood=off", 21, unknown(21), Forwarded, without(ofA, 1)},

		{"isolated, to one", "vlan 20 isolated=on; vlan 30 isolated=on", 21, to(21, 31), DropIsolated, nil},
		{"isolated, to all", "vlan 20 isolated=on; vlan 30 isolated=on", 21, broadcast(21), Forwarded, without(ofA, onB...)},
		{"one community, to one", "vlan 20 community=a; vlan 30 community=a", 21, to(21, 31), Forwarded, sent{31: 1}},
		{"two communities, to one", "vlan 20 community=a; vlan 30 community=b", 21, to(21, 31), DropIsolated, nil},
		{"two communities, to all", "vlan 20 community=a; vlan 30 community=b", 21, broadcast(21), Forwarded, without(ofA, onB...)},
		{"isolated, from others", "vlan 20 isolated=on; vlan 30 isolated=on", 1, broadcast(1), Forwarded, of1},
		{"one isolated, to one", "vlan 20 isolated=on", 21, to(21, 31), Forwarded, sent{31: 1}},
		{"the other isolated, to one", "vlan 30 isolated=on", 21, to(21, 31), Forwarded, sent{31: 1}},
		{"one isolated, to all", "vlan 20 isolated=on", 21, broadcast(21), Forwarded, ofA},

		{"locked, one whom nobody named", "vlan 20 locked=on", siteA, broadcast(siteA), DropLocked, nil},
		{"locked, a host", "vlan 20 locked=on", 21, broadcast(21), Forwarded, ofA},
		{"locked, to it", "vlan 20 locked=on", 1, to(1, siteA), Forwarded, sent{siteA: 1, 21: 1, 22: 1}},
		{"locked, another port", "vlan 30 locked=on", siteA, broadcast(siteA), Forwarded, ofA},
		{"locked, a tap", "tap locked=on", 3, broadcast(3), Forwarded, without(all, 3)},
		{"guard and no BPDU", "vlan 20 guard=on", 21, broadcast(21), Forwarded, ofA},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMesh(t, false)
			m.grant(members(1, 2, 3, siteA, 21, 22, siteB, 31, roaming))
			for _, who := range []policy.Identity{1, siteA, 21, 31} {
				m.says(who, data(ether.Broadcast, macAt(who), experimental, "here I am"))
			}
			m.heard()
			for _, set := range strings.Split(c.set, "; ") {
				words := strings.Fields(set)
				if words[0] != "tap" {
					words = append([]string{words[0] + " " + words[1]}, words[2:]...)
				}
				m.set(3, words[0], words[1:]...)
			}
			was := m.dropped(3, DropPort)
			switch d := m.says(c.who, c.frame); {
			case c.first == gone && (d != Forwarded || m.dropped(3, DropPort) != was+1):
				t.Errorf("%q, and node 3 has dropped %d", d.Code(), m.dropped(3, DropPort)-was)
			case c.first != gone && d != c.first:
				t.Errorf("%q, want %q", d.Code(), c.first.Code())
			}
			m.expect("frame", c.want)
		})
	}
}

// Where a machine is whose port does not learn is not remembered; what is pinned stays.
func TestLearningOff(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, 2, 3, siteA, siteB))
	m.set(3, "vlan 20", "learning=off")
	m.says(siteA, data(ether.Broadcast, macAt(siteA), experimental, ""))
	m.heard()
	m.learned(3, macAt(siteA), "", 0)
	m.says(1, data(macAt(siteA), macAt(1), experimental, ""))
	m.says(3, data(macAt(siteA), macAt(3), experimental, ""))
	if got := m.heard(); got[siteA] != 2 || got[siteB] != 2 {
		t.Errorf("what is for it: %v", got)
	}
	m.set(3, "vlan 20", "learning=on")
	m.says(siteA, data(ether.Broadcast, macAt(siteA), experimental, ""))
	m.learned(3, macAt(siteA), "vlan 20", siteA)
}

// On a locked port those whom nobody named need an entry that an administrator has made, on that port.
func TestLockedPort(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, siteA, siteB))
	m.set(3, "vlan 20", "locked=on")
	table, frame := m.segments[3].FDB(), data(ether.Broadcast, macAt(siteA), experimental, "")
	here, there := Place{m.ports[3]["vlan 20"], siteA}, Place{m.ports[3]["vlan 30"], siteB}
	for _, c := range []struct {
		name string
		make func()
		want Drop
	}{
		{"unknown", func() {}, DropLocked},
		{"learned", func() { table.Learn(macAt(siteA), here, m.now) }, DropLocked},
		{"static elsewhere", func() { table.AddStatic(macAt(siteA), there) }, DropLocked},
		{"static", func() { table.AddStatic(macAt(siteA), here) }, Forwarded},
		{"sticky", func() { table.AddSticky(macAt(siteA), here, m.now) }, Forwarded},
		{"removed", func() { table.Remove(macAt(siteA)) }, DropLocked},
	} {
		c.make()
		if d := m.says(siteA, frame); d != c.want {
			t.Errorf("%s: %q, want %q", c.name, d.Code(), c.want.Code())
		}
	}
	m.learned(3, macAt(siteA), "", 0)
}

// Each kind of frame that goes to many has a storm limit of its own on each port, which is kept to the frame; what goes to one alone
// has none.
func TestStormLimits(t *testing.T) {
	kinds := map[string]func(policy.Identity) []byte{
		"storm_broadcast": func(who policy.Identity) []byte { return datagram(who, ether.Broadcast, everybody4) },
		"storm_multicast": func(who policy.Identity) []byte { return datagram(who, groupMAC, group4) },
		"storm_unknown":   func(who policy.Identity) []byte { return data(macOf(99), macAt(who), experimental, "") },
	}
	for key, frame := range kinds {
		t.Run(key, func(t *testing.T) {
			m := newMesh(t, false)
			m.grant(members(1, 21, 22, 31))
			m.says(1, data(macAt(21), macAt(1), experimental, "here I am"))
			m.heard()
			m.set(3, "vlan 20", key+"=100")
			passed, start := 0, m.now
			for ms := range 2000 {
				m.now = start.Add(time.Duration(ms) * time.Millisecond)
				switch d := m.says(21, frame(21)); d {
				case Forwarded:
					passed++
				case DropStorm:
				default:
					t.Fatalf("%q", d.Code())
				}
			}
			// 100 in each second, and what comes together in a twentieth: what is due at 1.999 s and 50 ms later.
			if passed != 204 || m.dropped(3, DropStorm) != 2000-204 {
				t.Errorf("%d passed, %d were dropped", passed, m.dropped(3, DropStorm))
			}
			if got := m.heard(); got[1] != 204 || got[31] != 204 && key != "storm_unknown" {
				t.Errorf("heard %v", got)
			}
			for other, frame := range kinds {
				if d := m.says(21, frame(21)); (d == Forwarded) != (other != key) {
					t.Errorf("then a frame of %s: %q", other, d.Code())
				}
			}
			for name, d := range map[string]Drop{
				"to one": m.says(21, data(macAt(1), macAt(21), experimental, "")), "from another port": m.says(1, frame(1)), "from another VLAN": m.says(31, frame(31)),
			} {
				if d != Forwarded {
					t.Errorf("%s: %q", name, d.Code())
				}
			}
			if d := m.says(22, frame(22)); d != DropStorm {
				t.Errorf("another machine on the port: %q", d.Code())
			}
			m.now = m.now.Add(time.Second)
			if d := m.says(21, frame(21)); d != Forwarded {
				t.Errorf("a second later: %q", d.Code())
			}
		})
	}
}

// A super-frame to a group counts against the storm limit as what it is cut into.
func TestStormCountsSuperFrames(t *testing.T) {
	r := newRig(t)
	a := r.ports[1].Attributes()
	a.StormMulticast = 100
	r.ports[1].SetAttributes(a)
	const size, count = 1000, 19
	n := 28 + size*count
	head := "\x45\x00" + string([]byte{byte(n >> 8), byte(n)}) + "\x00\x00\x00\x00\x40\x11\x00\x00" + "\xc0\x00\x02\x01" + "\xe1\x01\x02\x03" +
		"\x13\x88\x13\x89" + string([]byte{byte((n - 20) >> 8), byte(n - 20)}) + "\x00\x00"
	frame := data(ether.MAC{1, 0, 0x5e, 1, 2, 3}, macOf(1), ether.TypeIPv4, head+string(make([]byte, size*count)))
	undone := ether.Offload{Checksum: true, Start: 34, Field: 6, Size: size}
	passed, start := 0, r.now
	for ms := range 10_000 {
		if d := r.seg.Forward(r.ports[1], frame, undone, Tag{}, 0, start.Add(time.Duration(ms)*time.Millisecond)); d == Forwarded {
			passed++
		} else if d != DropStorm {
			t.Fatalf("%q", d.Code())
		}
	}
	if passed != 51 { // headers are taken for payload: 20 frames each, 200 ms, and the first at once
		t.Errorf("%d super-frames of %d passed in 10 s, want 51", passed, count)
	}
}

// A fault disables a port both ways for as long as its attributes say, and then it carries again.
func TestRecovery(t *testing.T) {
	for _, c := range []struct {
		recovery string
		lasts    time.Duration // 0: until it is enabled
	}{{"5m", 5 * time.Minute}, {"1s", time.Second}, {"0s", 0}} {
		m := newMesh(t, false)
		m.grant(members(1, 21))
		m.says(21, data(macAt(1), macAt(21), experimental, ""))
		m.heard()
		m.set(3, "vlan 20", "recovery="+c.recovery)
		port, start := m.ports[3]["vlan 20"], m.now
		port.Disable("first", start)
		port.Disable("second", start.Add(time.Millisecond))
		carries := func(want bool) {
			t.Helper()
			n := map[bool]int{true: 1}[want]
			if d := m.says(21, data(macAt(1), macAt(21), experimental, "")); (d == Forwarded) != want || !want && d != DropPort {
				t.Errorf("recovery %s: in: %q", c.recovery, d.Code())
			}
			m.expect("in", sent{1: n})
			m.says(1, data(macAt(21), macAt(1), experimental, ""))
			m.expect("out", sent{21: n})
			m.says(1, datagram(1, ether.Broadcast, everybody4))
			m.expect("flooded", sent{21: n})
		}
		carries(false)
		f := port.Fault(m.now)
		if f == nil || f.Reason != "first" || f.Since != start || f.Until.IsZero() != (c.lasts == 0) {
			t.Errorf("recovery %s: the fault is %+v", c.recovery, f)
		}
		if c.lasts != 0 {
			m.now = start.Add(c.lasts - time.Nanosecond)
			carries(false)
			m.now = start.Add(c.lasts)
		} else {
			m.now = start.Add(1000 * time.Hour)
			carries(false)
			port.Enable()
		}
		m.says(21, data(macAt(1), macAt(21), experimental, "")) // what was learned may be too old
		m.heard()
		carries(true)
		port.Disable("third", m.now)
		if f := port.Fault(m.now); f == nil || f.Reason != "third" {
			t.Errorf("recovery %s: the next fault is %+v", c.recovery, f)
		}
		port.Enable()
		carries(true)
	}
}

// What Set takes and refuses, and what it says to that.
func TestSet(t *testing.T) {
	long := strings.Repeat("d", 128)
	for _, c := range []struct{ key, value, says string }{
		{"shut", "on", ""},
		{"shut", "off", ""},
		{"shut", "yes", `shut is on or off, found "yes"`},
		{"shut", "", "on or off"},
		{"guard", "ON", "on or off"},
		{"storm_broadcast", "0", ""},
		{"storm_broadcast", "10000000", ""},
		{"storm_multicast", "10000001", "from 0 (any number) to 10000000"},
		{"storm_unknown", "-1", "frames a second"},
		{"storm_unknown", "many", `found "many"`},
		{"storm_unknown", "1.5", "frames a second"},
		{"description", long, ""},
		{"description", "", ""},
		{"description", "Büro, Raum 1", ""},
		{"description", long + "d", "at most 128 bytes"},
		{"description", "two\nlines", "one line"},
		{"description", "\x1b[2J", "printable"},
		{"description", "\u009b2J", "printable"},
		{"description", "\x7f", "printable"},
		{"description", "\xff", "printable"},
		{"description", "\u2028", "printable"},
		{"recovery", "0", ""},
		{"recovery", "1s", ""},
		{"recovery", "2h30m", ""},
		{"recovery", "999ms", "at least 1s"},
		{"recovery", "-5m", "at least 1s"},
		{"recovery", "5", "such as 5m"},
		{"recovery", "never", `found "never"`},
		{"community", "shops", ""},
		{"community", "none", ""},
		{"community", "", "without blanks"},
		{"community", "two words", "without blanks"},
		{"backup_port", "attached:two", ""},
		{"backup_port", "\x1b", "without blanks"},
		{"backup_port", long + "d", "without blanks"},
		{"speed", "1", `there is no attribute "speed": there are backup_port, bcast_flood, burst_in, burst_out, community, description, flood, guard, isolated, learning, locked, ` +
			`mcast_flood, neigh_suppress, rate_in, rate_out, recovery, shut, storm_broadcast, storm_multicast, storm_unknown`},
		{"Shut", "on", `there is no attribute "Shut"`},
		{"", "", "there is no attribute"},
		{"hairpin", "on", "hairpin is not an attribute here: no frame leaves through the port that it came in by"},
		{"fastleave", "on", "fastleave is not an attribute here: "},
		{"root_block", "on", "guard=on"},
		{"state", "3", "shut=on"},
	} {
		a := DefaultAttributes()
		err := a.Set(c.key, c.value)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s=%q: %v, want %q", c.key, c.value, err, c.says)
		}
		if err != nil && a != DefaultAttributes() {
			t.Errorf("%s=%q is refused, and has changed %+v", c.key, c.value, a)
		}
	}
	if a := DefaultAttributes(); a != (Attributes{Learning: true, Flood: true, McastFlood: true, BcastFlood: true, Recovery: 5 * time.Minute}) {
		t.Errorf("a new port has %+v", a)
	}
}

// What Values tells, Set takes: each attribute by itself, and all at once.
func TestValuesRoundTrip(t *testing.T) {
	a := DefaultAttributes()
	names := a.Names()
	if values := a.Values(); !slices.Equal(slices.Sorted(maps.Keys(values)), names) {
		t.Errorf("values of %v, names are %v", values, names)
	}
	all := DefaultAttributes()
	for i, name := range names {
		other := map[string]string{"on": "off", "off": "on"}[a.Values()[name]]
		switch {
		case strings.HasPrefix(name, "storm_"):
			other = fmt.Sprint(i + 1)
		case name == "description":
			other = "a port"
		case name == "recovery":
			other = "1m30s"
		case name == "community" || name == "backup_port":
			other = name + "1"
		case strings.HasPrefix(name, "rate_"):
			other = fmt.Sprint(i+1, "mbit")
		case strings.HasPrefix(name, "burst_"):
			other = fmt.Sprint(i+1, "k")
		}
		one := DefaultAttributes()
		for _, to := range []*Attributes{&one, &all} {
			if err := to.Set(name, other); err != nil {
				t.Fatal(err)
			}
		}
		want := a.Values()
		want[name] = other
		if !maps.Equal(one.Values(), want) || one == a {
			t.Errorf("%s=%s: %v", name, other, one.Values())
		}
	}
	var again Attributes
	for key, value := range all.Values() {
		if err := again.Set(key, value); err != nil {
			t.Fatal(err)
		}
	}
	if again != all {
		t.Errorf("%+v became %+v", all, again)
	}
}

// Forget takes what frames have taught about one port: no more.
func TestForget(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, 2, 3, siteA, siteB, 21, 31))
	s, here, there := m.segments[3], m.ports[3]["vlan 20"], m.ports[3]["vlan 30"]
	mac := func(n byte) ether.MAC { return ether.MAC{2, 0, 0, 0, 9, n} }
	table := s.FDB()
	table.Learn(mac(1), Place{here, siteA}, m.now)
	table.Learn(mac(2), Place{there, siteB}, m.now)
	table.AddStatic(mac(3), Place{here, siteA})
	table.AddSticky(mac(4), Place{here, siteA}, m.now)
	for range 6 {
		table.Learn(mac(5), Place{here, siteA}, m.now)
		table.Learn(mac(5), Place{there, siteB}, m.now)
	}
	table.Learn(mac(6), Place{here, 21}, m.now)
	if n := s.Forget(here, m.now); n != 2 {
		t.Errorf("%d are forgotten, want 2", n)
	}
	var left []string
	for _, e := range table.Entries(m.now) {
		left = append(left, fmt.Sprint(e.MAC[5], e.Kind, e.Frozen))
	}
	if want := []string{"2 dynamic false", "3 static false", "4 sticky false", "5 dynamic true"}; !slices.Equal(left, want) {
		t.Errorf("left are %q", left)
	}
}

// With all attributes set, frames allocate nothing: neither those that pass nor those that are stopped.
func TestAttributesDoNotAllocate(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, 2, 3, siteA, 21, siteB, 31))
	for _, p := range m.ports[3] {
		p.out = blackhole{}
	}
	for _, port := range []string{"vlan 20", "vlan 30", "tap", "link 1"} {
		m.set(3, port, "isolated=on", "guard=on", "storm_broadcast=1000000", "storm_multicast=1", "storm_unknown=1000000", "neigh_suppress=on",
			"rate_in=1gbit", "rate_out=1gbit", "backup_port=link2")
	}
	m.set(3, "vlan 20", "locked=on")
	m.set(3, "tap", "isolated=off")
	m.segments[3].Forward(m.ports[3]["vlan 30"], asks(31, v4(1)), ether.Offload{}, Tag{}, 0, m.now)
	for name, c := range map[string]struct {
		port  string
		frame []byte
		want  Drop
	}{
		"broadcast": {"vlan 20", datagram(21, ether.Broadcast, everybody4), Forwarded}, "unknown": {"vlan 20", data(macOf(99), macAt(21), experimental, ""), Forwarded},
		"storm": {"vlan 20", datagram(21, groupMAC, group4), DropStorm}, "isolated": {"vlan 20", data(macAt(31), macAt(21), experimental, ""), DropIsolated},
		"ARP that is known": {"vlan 30", asks(31, v4(1)), Forwarded},
	} {
		say := func() Drop {
			return m.segments[3].Forward(m.ports[3][c.port], c.frame, ether.Offload{}, Tag{}, 0, m.now)
		}
		for range 3 {
			say()
		}
		if d := say(); d != c.want {
			t.Errorf("%s: %q, want %q", name, d.Code(), c.want.Code())
		}
		if n := testing.AllocsPerRun(100, func() { say() }); n != 0 {
			t.Errorf("%s: %v allocations for each frame", name, n)
		}
	}
	m.set(3, "vlan 20", "shut=on")
	frame := data(macAt(1), macAt(21), experimental, "")
	if n := testing.AllocsPerRun(100, func() {
		m.segments[3].Forward(m.ports[3]["vlan 20"], frame, ether.Offload{}, Tag{}, 0, m.now)
	}); n != 0 {
		t.Errorf("shut: %v allocations", n)
	}
}
