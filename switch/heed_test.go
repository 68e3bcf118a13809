package vswitch

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// bpdu is an 802.3 frame with LLC from a switch of the site.
func bpdu(dst, header string, body ...byte) []byte {
	b := append([]byte(dst), 2, 0, 0, 0, 8, 1, 0, byte(len(header)+len(body)))
	return append(append(b, header...), body...)
}

// lldp is an LLDPDU from a switch of the site.
func lldp(body string) []byte {
	return data(ether.MAC{1, 0x80, 0xc2, 5: 0x0e}, ether.MAC{2, 0, 0, 0, 8, 1}, typeLLDP, body)
}

// rest is what a configuration BPDU has behind its flags.
var rest = make([]byte, 31)

// said are frames of spanning tree, and what each says.
func said() []struct {
	name       string
	frame      []byte
	is, change bool
} {
	conf := func(flags byte) []byte { return append([]byte{0, 0, flags}, rest...) }
	rapid := func(version, flags byte) []byte { return append([]byte{version, 2, flags}, rest...) }
	short := bpdu(bridgeGroup, stpHeader, 0, 0x80)
	return []struct {
		name       string
		frame      []byte
		is, change bool
	}{
		{"STP", bpdu(bridgeGroup, stpHeader, conf(0)...), true, false},
		{"STP, acknowledgement", bpdu(bridgeGroup, stpHeader, conf(0x80)...), true, false},
		{"STP, topology change", bpdu(bridgeGroup, stpHeader, conf(1)...), true, true},
		{"STP, topology change notification", short, true, true},
		{"the same, padded", append(bytes.Clone(short), rest...), true, true},
		{"RSTP", bpdu(bridgeGroup, stpHeader, rapid(2, 0x3c)...), true, false},
		{"RSTP, topology change", bpdu(bridgeGroup, stpHeader, rapid(2, 0x3d)...), true, true},
		{"MSTP, topology change", bpdu(bridgeGroup, stpHeader, append(rapid(3, 1), rest...)...), true, true},
		{"between S-VLANs", bpdu(providerGroup, stpHeader, rapid(2, 0x3c)...), true, false},
		{"between S-VLANs, topology change", bpdu(providerGroup, stpHeader, rapid(2, 1)...), true, true},
		{"PVST+", bpdu(pvstGroup, pvstHeader, conf(0)...), true, false},
		{"PVST+, topology change", bpdu(pvstGroup, pvstHeader, conf(1)...), true, true},
		{"PVST+, topology change notification", bpdu(pvstGroup, pvstHeader, 0, 0x80), true, true},
		{"Rapid PVST+, topology change", bpdu(pvstGroup, pvstHeader, rapid(2, 1)...), true, true},
		{"of a type that nobody knows", bpdu(bridgeGroup, stpHeader, 0, 7, 1), true, false},
		{"cut in front of its flags", bpdu(bridgeGroup, stpHeader, 0, 0), true, false},
		{"cut in front of its type", bpdu(bridgeGroup, stpHeader, 0), false, false},
		{"cut in its header", bpdu(bridgeGroup, stpHeader[:4]), false, false},
		{"nothing", bpdu(bridgeGroup, ""), false, false},
		{"of another protocol", bpdu(bridgeGroup, "\x42\x42\x03\x00\x01", 0, 0x80), false, false},
		{"of another LLC", bpdu(bridgeGroup, "\xaa\xaa\x03\x00\x00", 0, 0x80), false, false},
		{"PVST+ to the bridges' group", bpdu(bridgeGroup, pvstHeader, 0, 0x80), false, false},
		{"STP to the group of PVST+", bpdu(pvstGroup, stpHeader, 0, 0x80), false, false},
		{"to another reserved group", bpdu("\x01\x80\xc2\x00\x00\x02", stpHeader, 0, 0x80), false, false},
		{"to one machine", bpdu("\x02\x00\x00\x00\x00\x01", stpHeader, 0, 0x80), false, false},
		{"with an EtherType", data(ether.MAC([]byte(bridgeGroup)), macOf(50), 0x8042, stpHeader+"\x00\x80"), false, false},
		{"with a priority tag", data(ether.MAC([]byte(bridgeGroup)), macOf(50), ether.TypeVLAN, "\xe0\x00\x00\x07"+stpHeader+"\x00\x80"), true, true},
		{"CDP", bpdu("\x01\x00\x0c\xcc\xcc\xcc", "\xaa\xaa\x03\x00\x00\x0c\x20\x00", 2, 180), false, false},
	}
}

// A BPDU is told from what is none, and whether it tells of a change.
func TestBPDUs(t *testing.T) {
	for _, c := range said() {
		f, err := ether.Parse(c.frame)
		if err != nil {
			t.Fatal(err)
		}
		body, is := bpduOf(&f)
		if is != c.is || is && changed(body) != c.change {
			t.Errorf("%s: %v, %v", c.name, is, body)
		}
	}
}

// filled is a mesh whose gateway has learned addresses on its VLANs, and has some pinned.
func filled(t *testing.T) (*mesh, func() []string) {
	m := newMesh(t, false)
	m.grant(members(1, 2, 3, siteA, 21, siteB, 31))
	for _, who := range []policy.Identity{1, siteA, 21, siteB} {
		m.says(who, data(ether.Broadcast, macAt(who), experimental, ""))
	}
	table, here := m.segments[3].FDB(), Place{m.ports[3]["vlan 20"], siteA}
	table.AddStatic(ether.MAC{2, 0, 0, 0, 9, 1}, here)
	table.AddSticky(ether.MAC{2, 0, 0, 0, 9, 2}, here, m.now)
	m.heard()
	return m, func() (out []string) {
		for _, e := range table.Entries(m.now) {
			out = append(out, fmt.Sprint(e.MAC[4], ".", e.MAC[5], " ", e.Kind))
		}
		return out
	}
}

var (
	everything = []string{"0.1 dynamic", "0.21 dynamic", "1.20 dynamic", "1.30 dynamic", "9.1 static", "9.2 sticky"}
	elsewhere  = []string{"0.1 dynamic", "1.30 dynamic", "9.1 static", "9.2 sticky"}
)

// G14: a change of topology on a VLAN makes what was learned there be learned anew, and nothing else: what is pinned stays, and what
// was learned on other ports. No BPDU goes on.
func TestTopologyChangeG14(t *testing.T) {
	for _, c := range said() {
		m, left := filled(t)
		if !slices.Equal(left(), everything) {
			t.Fatalf("before: %q", left())
		}
		m.forward(3, m.ports[3]["vlan 20"], c.frame, Tag{})
		m.run()
		if c.name != "to one machine" {
			m.expect(c.name, sent{})
		}
		want := map[bool][]string{false: everything, true: elsewhere}[c.change]
		_, bpdus, changes := m.ports[3]["vlan 20"].Heard()
		if got := left(); !slices.Equal(got, want) && c.name != "to one machine" {
			t.Errorf("%s leaves %q, want %q", c.name, got, want)
		}
		if (bpdus == 1) != c.is || (changes == 1) != c.change {
			t.Errorf("%s: %d BPDUs, %d changes are counted", c.name, bpdus, changes)
		}
	}
	// Not by one that a peer sends: it is on no wire here.
	m, left := filled(t)
	m.forward(3, m.ports[3]["link 1"], bpdu(bridgeGroup, stpHeader, 0, 0x80), Tag{1, grantID})
	if _, bpdus, _ := m.ports[3]["link 1"].Heard(); bpdus != 0 || !slices.Equal(left(), everything) {
		t.Errorf("over a link: %d BPDUs, left are %q", bpdus, left())
	}
}

// However many changes are told, what is learned is forgotten once a second at most, and the last one told is not missed.
func TestManyTopologyChanges(t *testing.T) {
	m, _ := filled(t)
	change, start := bpdu(bridgeGroup, stpHeader, 0, 0x80), m.now
	flushes := 0
	for ms := range 10_000 {
		m.now = start.Add(time.Duration(ms) * time.Millisecond)
		m.segments[3].FDB().Learn(macAt(siteA), Place{m.ports[3]["vlan 20"], siteA}, m.now)
		m.segments[3].Forward(m.ports[3]["vlan 20"], change, ether.Offload{}, Tag{}, 0, m.now)
		if _, ok := m.segments[3].FDB().Lookup(macAt(siteA), m.now); !ok {
			flushes++
		}
	}
	if _, bpdus, changes := m.ports[3]["vlan 20"].Heard(); flushes != 10 || bpdus != 10_000 || changes != 10_000 {
		t.Errorf("%d flushes in 10 s, of %d BPDUs and %d changes", flushes, bpdus, changes)
	}
	if n := testing.AllocsPerRun(100, func() {
		m.segments[3].Forward(m.ports[3]["vlan 20"], change, ether.Offload{}, Tag{}, 0, m.now)
	}); n != 0 {
		t.Errorf("%v allocations for each", n)
	}
}

// G10: with guard, the first BPDU disables the port, within the frame; none goes on, what was learned there is forgotten, and it
// carries again when it recovers.
func TestGuardG10(t *testing.T) {
	for _, c := range said() {
		if c.name == "to one machine" {
			continue
		}
		for port, other := range map[string]string{"vlan 20": "vlan 30", "tap": "vlan 20"} {
			m, left := filled(t)
			m.set(3, port, "guard=on", "recovery=1m")
			p := m.ports[3][port]
			m.forward(3, p, c.frame, Tag{})
			m.run()
			m.expect(c.name, sent{})
			f := p.Fault(m.now)
			if (f != nil) != c.is {
				t.Errorf("%s at %s: the fault is %+v", c.name, port, f)
			}
			if m.ports[3][other].Fault(m.now) != nil {
				t.Errorf("%s: another port is disabled", c.name)
			}
			if f == nil {
				continue
			}
			if src := ether.MAC(c.frame[6:12]).String(); !strings.Contains(f.Reason, src) || !strings.Contains(f.Reason, "BPDU") {
				t.Errorf("%s: the reason is %q", c.name, f.Reason)
			}
			if got := left(); port == "vlan 20" && !slices.Equal(got, elsewhere) {
				t.Errorf("%s leaves %q", c.name, got)
			}
			for range 5 { // the port carries nothing, so these are not even looked at
				if d := m.forward(3, p, c.frame, Tag{}); d != DropPort {
					t.Errorf("%s again: %q", c.name, d.Code())
				}
			}
			if _, bpdus, _ := p.Heard(); bpdus != 1 {
				t.Errorf("%s: %d BPDUs are counted", c.name, bpdus)
			}
			m.now = m.now.Add(time.Minute)
			if p.Fault(m.now) != nil {
				t.Errorf("%s: it does not recover", c.name)
			}
			m.forward(3, p, c.frame, Tag{})
			if p.Fault(m.now) == nil {
				t.Errorf("%s: after it has recovered, the next BPDU does nothing", c.name)
			}
		}
	}
}

// Who floods a port with something else does not hide a BPDU from guard.
func TestGuardInFlood(t *testing.T) {
	m, _ := filled(t)
	m.set(3, "vlan 20", "guard=on")
	p := m.ports[3]["vlan 20"]
	for range 10_000 {
		m.segments[3].Forward(p, lldp("noise"), ether.Offload{}, Tag{}, 0, m.now)
	}
	if p.Fault(m.now) != nil {
		t.Fatal("LLDP disables the port")
	}
	m.segments[3].Forward(p, bpdu(bridgeGroup, stpHeader, 0, 0x80), ether.Offload{}, Tag{}, 0, m.now)
	if p.Fault(m.now) == nil {
		t.Error("a BPDU behind a flood is not seen")
	}
}

// What a neighbour says of itself is kept, a copy, once a second at most; what is too long to be LLDP is not.
func TestLLDP(t *testing.T) {
	m, _ := filled(t)
	p, start := m.ports[3]["vlan 20"], m.now
	say := func(in string, frame []byte) {
		t.Helper()
		if d := m.forward(3, m.ports[3][in], frame, Tag{}); in == "vlan 20" && d != DropReserved {
			t.Errorf("%q", d.Code())
		}
	}
	want := func(what, lldp string, at time.Time) {
		t.Helper()
		if n, bpdus, _ := p.Heard(); string(n.LLDP) != lldp || !n.At.Equal(at) || bpdus != 0 {
			t.Errorf("%s: %+v, %d BPDUs", what, n, bpdus)
		}
	}
	want("nothing said", "", time.Time{})
	frame := lldp("first")
	say("vlan 20", frame)
	copy(frame[ether.HeaderLen:], "XXXXX") // the batch's memory is used again
	want("first", "first", start)
	say("vlan 20", lldp("at once"))
	want("at once", "first", start)
	m.now = start.Add(time.Second)
	say("vlan 20", lldp("second"))
	want("a second later", "second", m.now)
	second := m.now
	m.now = start.Add(5 * time.Second)
	if d := m.segments[3].Forward(p, lldp(strings.Repeat("x", 1501)), ether.Offload{}, Tag{}, 0, m.now); d == Forwarded {
		t.Error("a long one goes on")
	}
	want("a long one", "second", second)
	say("vlan 30", lldp("of another"))
	say("link 1", lldp("of a peer"))
	want("others", "second", second)
	if n, _, _ := m.ports[3]["link 1"].Heard(); n.LLDP != nil {
		t.Errorf("a peer's is kept: %q", n.LLDP)
	}
	m.expect("LLDP", sent{})
	frame = lldp("many")
	m.segments[3].Forward(p, frame, ether.Offload{}, Tag{}, 0, m.now)
	if n := testing.AllocsPerRun(100, func() { m.segments[3].Forward(p, frame, ether.Offload{}, Tag{}, 0, m.now) }); n != 0 {
		t.Errorf("%v allocations for each", n)
	}
}

// FuzzBPDU: whatever a neighbour says, it is looked at within its bytes, goes nowhere, and only a BPDU disables a port.
func FuzzBPDU(f *testing.F) {
	for _, c := range said() {
		f.Add(c.frame)
	}
	f.Add(lldp("\x02\x07\x04\x02\x00\x00\x00\x08\x01"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		m, _ := filled(t)
		m.set(3, "vlan 20", "guard=on")
		p := m.ports[3]["vlan 20"]
		d := m.segments[3].Forward(p, bytes.Clone(frame), ether.Offload{}, Tag{}, 0, m.now)
		parsed, err := ether.Parse(frame)
		if err != nil {
			return
		}
		body, is := bpduOf(&parsed)
		if is && changed(body) && len(body) < 2 {
			t.Error("a change is told by nothing")
		}
		if is != (p.Fault(m.now) != nil) || is && (!parsed.Dst.IsReserved() || d == Forwarded) {
			t.Errorf("a BPDU: %v, the fault is %+v, and it was %q", is, p.Fault(m.now), d.Code())
		}
		if parsed.Dst.IsReserved() && (d == Forwarded || len(m.queue) > 0 || len(m.out) > 0) {
			t.Errorf("%q: a reserved frame goes on", d.Code())
		}
	})
}
