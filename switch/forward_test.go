package vswitch

import (
	"bytes"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
)

// sink is an Egress that remembers what it was sent.
type sink struct {
	frames [][]byte
	tags   []Tag
}

func (s *sink) Send(frame []byte, _ ether.Offload, tag Tag, _ Lane) {
	s.frames, s.tags = append(s.frames, bytes.Clone(frame)), append(s.tags, tag)
}

func (s *sink) take() (n int) {
	n = len(s.frames)
	s.frames, s.tags = nil, nil
	return n
}

// rig is node 1 with a local port and links to nodes 2, 3 and 4. Nodes 1, 2 and 3 are members; 4 is not.
type rig struct {
	t          *testing.T
	seg        *Segment
	ports      map[policy.Identity]*Port
	out        map[policy.Identity]*sink
	now        time.Time
	generation uint64
}

const grantID policy.GrantID = 7

func macOf(id policy.Identity) ether.MAC { return ether.MAC{2, 0, 0, 0, 0, byte(id)} }

func v4(id policy.Identity) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(id)}) }

func v6(id policy.Identity) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: byte(id)})
}

func newRig(t *testing.T) *rig {
	r := &rig{
		t: t, seg: NewSegment(5, 1, 1500, fdb.Limits{}), now: time.Now(),
		ports: map[policy.Identity]*Port{}, out: map[policy.Identity]*sink{},
	}
	for id := policy.Identity(1); id <= 4; id++ {
		kind := Link
		if id == 1 {
			kind = Local
		}
		r.out[id] = &sink{}
		r.ports[id] = NewPort("p", kind, id, r.out[id])
		r.seg.AddPort(r.ports[id])
	}
	r.grant(1, 2, 3)
	return r
}

func (r *rig) grant(members ...policy.Identity) {
	r.setGrants(policy.Grant{ID: grantID, Segment: true, Sources: members})
}

// setGrants makes these all the grants that there are. Every node has a station.
func (r *rig) setGrants(grants ...policy.Grant) {
	rules := policy.Rules{Self: 1, Stations: map[policy.Identity]*policy.Station{}, Grants: grants}
	for id := policy.Identity(1); id <= 4; id++ {
		rules.Stations[id] = policy.NewStation(macOf(id), []netip.Addr{v4(id), v6(id), macOf(id).LinkLocal()}, false)
	}
	r.seg.SetPolicy(policy.Compile(rules), r.now)
}

// enter sends a frame into the port of a node, tagged as an honest node would.
func (r *rig) enter(from policy.Identity, frame []byte) Drop {
	return r.seg.Forward(r.ports[from], frame, ether.Offload{}, Tag{Source: from, Grant: grantID}, 0, r.now)
}

// seen checks how many frames each node's port was sent since the last look.
func (r *rig) seen(want map[policy.Identity]int) {
	r.t.Helper()
	for id, s := range r.out {
		if got := s.take(); got != want[id] {
			r.t.Errorf("port of node %d was sent %d frames, want %d", id, got, want[id])
		}
	}
}

func data(dst, src ether.MAC, typ ether.Type, payload string) []byte {
	b := append(append(append([]byte{}, dst[:]...), src[:]...), byte(typ>>8), byte(typ))
	return append(b, payload...)
}

const experimental ether.Type = 0x88b5

type sent = map[policy.Identity]int

// L01: an unknown destination is flooded to those who may hear, a known one goes to its port alone.
func TestFloodThenUnicast(t *testing.T) {
	r := newRig(t)
	hello := data(macOf(9), macOf(1), experimental, "hello")
	if d := r.enter(1, hello); d != Forwarded {
		t.Errorf("flood: %v", d)
	}
	r.seen(sent{2: 1, 3: 1})

	r.seg.FDB().Learn(macOf(9), Place{r.ports[2], 2}, r.now)
	r.enter(1, hello)
	r.seen(sent{2: 1})
}

// A station goes by where policy puts it before it has said a word, so that nobody else hears what is for it alone.
func TestStationsAreNotFlooded(t *testing.T) {
	r := newRig(t)
	r.enter(1, data(macOf(2), macOf(1), experimental, "hello"))
	r.seen(sent{2: 1})
	r.enter(2, data(macOf(1), macOf(2), experimental, "answer"))
	r.seen(sent{1: 1})
}

// F11 and split horizon: a frame goes neither back to where it came from nor from link to link.
func TestSplitHorizon(t *testing.T) {
	r := newRig(t)
	r.enter(2, data(ether.Broadcast, macOf(2), experimental, ""))
	r.seen(sent{1: 1})
	r.enter(3, data(macOf(3), macOf(3), experimental, ""))
	r.seen(sent{})
	r.enter(3, data(macOf(2), macOf(3), experimental, "")) // 2 is known behind its link
	r.seen(sent{})
	if d := r.enter(1, data(macOf(1), macOf(1), experimental, "")); d != DropHairpin { // to oneself
		t.Errorf("to oneself: %q", d)
	}
	r.seen(sent{})
	if got := r.ports[3].Stats(); got.RxFrames != 2 || got.RxDropped != 2 {
		t.Errorf("Stats = %+v", got)
	}
}

// Frames keep every byte, whatever is in them (F05), and each receiver gets the grant that lets it have them.
func TestBytesAndTags(t *testing.T) {
	r := newRig(t)
	for _, f := range [][]byte{
		data(ether.Broadcast, macOf(1), 0x0842, "wake"), data(macOf(9), macOf(1), 0x8863, "pppoe"),
		data(ether.MAC{1, 0x1b, 0x19}, macOf(1), 0x88f7, "ptp"), data(macOf(9), macOf(1), 5, "\xaa\xaa\x03\x00\x00"),
		append(data(macOf(9), macOf(1), ether.TypeVLAN, "\xe0\x00\x88\xb5"), "priority tag"...),
	} {
		if d := r.enter(1, f); d != Forwarded {
			t.Errorf("%x: %v", f, d)
		}
		for _, id := range []policy.Identity{2, 3} {
			s := r.out[id]
			if len(s.frames) != 1 || !bytes.Equal(s.frames[0], f) || s.tags[0] != (Tag{1, grantID}) {
				t.Errorf("node %d got %x with %+v", id, s.frames, s.tags)
			}
		}
		r.seen(sent{2: 1, 3: 1})
	}
}

func TestDrops(t *testing.T) {
	partial := data(macOf(2), macOf(1), ether.TypeVLAN, "\x00")
	arp := "\x00\x01\x08\x00\x06\x04\x00\x01" + "\x02\x00\x00\x00\x00\x01" + "\xc0\x00\x02\x09" + "\x00\x00\x00\x00\x00\x00\xc0\x00\x02\x02"
	for _, c := range []struct {
		name string
		from policy.Identity
		in   []byte
		tag  Tag
		want Drop
	}{
		{name: "short", from: 1, in: make([]byte, 13), want: DropShort},
		{name: "partial tag (V08)", from: 1, in: partial, want: DropPartialTag},
		{name: "BPDU (F04)", from: 1, in: data(ether.MAC{1, 0x80, 0xc2}, macOf(1), 38, ""), want: DropReserved},
		{name: "VLAN 10", from: 1, in: data(macOf(2), macOf(1), ether.TypeVLAN, "\x00\x0a\x08\x00"), want: DropVLAN},
		{name: "service tag", from: 1, in: data(macOf(2), macOf(1), ether.TypeQinQ, "\x00\x00\x08\x00"), want: DropVLAN},
		{name: "second tag behind a priority tag", from: 1, in: data(macOf(2), macOf(1), ether.TypeVLAN, "\x00\x00\x81\x00\x00\x05\x08\x00"), want: DropVLAN},
		{name: "group source (L06)", from: 1, in: data(macOf(2), ether.MAC{3}, experimental, ""), want: DropSourceAddress},
		{name: "broadcast source (L06)", from: 1, in: data(macOf(2), ether.Broadcast, experimental, ""), want: DropSourceAddress},
		{name: "zero source (L06)", from: 1, in: data(macOf(2), ether.MAC{}, experimental, ""), want: DropSourceAddress},
		{name: "own node, another's MAC (I01)", from: 1, in: data(macOf(2), macOf(3), experimental, ""), want: Drop(policy.SourceMAC)},
		{name: "own node, another's ARP (I05)", from: 1, in: data(ether.Broadcast, macOf(1), ether.TypeARP, arp), want: Drop(policy.ARPSender)},
		{name: "peer claims another identity", from: 2, in: data(macOf(1), macOf(3), experimental, ""), tag: Tag{3, grantID}, want: DropIdentity},
		{name: "peer with another's MAC (I01)", from: 2, in: data(macOf(1), macOf(3), experimental, ""), tag: Tag{2, grantID}, want: Drop(policy.SourceMAC)},
		{name: "peer names an unknown grant", from: 2, in: data(macOf(1), macOf(2), experimental, ""), tag: Tag{2, 99}, want: Drop(policy.UnknownGrant)},
		{name: "peer that is no member names another's grant", from: 4, in: data(macOf(1), macOf(4), experimental, ""), tag: Tag{4, grantID}, want: Drop(policy.WrongGrant)},
	} {
		r := newRig(t)
		got := r.seg.Forward(r.ports[c.from], c.in, ether.Offload{}, c.tag, 0, r.now)
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		r.seen(sent{})
		if n := r.seg.FDB().Stats().Learned; n != 0 {
			t.Errorf("%s: %d addresses learned from a refused frame", c.name, n)
		}
		if l := r.seg.Drops(); len(l) != 1 || l[0] != (DropCount{c.want, 1}) {
			t.Errorf("%s: counted %v", c.name, l)
		}
	}
}

// A frame is as long as the segment's MTU allows, from either side; a super-frame stands for those that it is cut into.
func TestLong(t *testing.T) {
	super := func(size uint16) ([]byte, ether.Offload) {
		const payload = 4000
		head := "\x45\x00\x0f\xc8\x00\x00\x00\x00\x40\x06\x00\x00" + "\xc0\x00\x02\x01" + "\xc0\x00\x02\x02" +
			"\x00\x01\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x50\x10\x00\x00\x00\x00\x00\x00" // TCP
		return data(macOf(2), macOf(1), ether.TypeIPv4, head+string(make([]byte, payload))),
			ether.Offload{Checksum: true, Start: 34, Field: 16, Size: size}
	}
	r := newRig(t)
	tag := Tag{Source: 1, Grant: grantID}
	full := string(make([]byte, 1500))
	for _, c := range []struct {
		name string
		in   []byte
		want Drop
	}{
		{"full length", data(macOf(2), macOf(1), experimental, full), Forwarded},
		{"full length and a priority tag", data(macOf(2), macOf(1), ether.TypeVLAN, "\x00\x00\x88\xb5"+full), Forwarded},
		{"one byte more", data(macOf(2), macOf(1), experimental, full+"x"), DropLong},
		{"one byte more and a priority tag", data(macOf(2), macOf(1), ether.TypeVLAN, "\x00\x00\x88\xb5"+full+"x"), DropLong},
	} {
		if d := r.seg.Forward(r.ports[1], c.in, ether.Offload{}, tag, 0, r.now); d != c.want {
			t.Errorf("%s: %q, want %q", c.name, d, c.want)
		}
	}
	for size, want := range map[uint16]Drop{1460: Forwarded, 1461: DropLong} {
		frame, undone := super(size)
		if d := r.seg.Forward(r.ports[1], frame, undone, tag, 0, r.now); d != want {
			t.Errorf("a super-frame of %d bytes each: %q, want %q", size, d, want)
		}
	}
	// What cannot be cut stands for no shorter frames.
	uncut := data(macOf(2), macOf(1), experimental, full+"x")
	if d := r.seg.Forward(r.ports[1], uncut, ether.Offload{Checksum: true, Start: 34, Field: 16, Size: 1000}, tag, 0, r.now); d != DropLong {
		t.Errorf("a super-frame that cannot be cut: %q", d)
	}
	r.seen(sent{2: 3})
	if d := r.enter(2, data(macOf(1), macOf(2), experimental, full+"x")); d != DropLong {
		t.Errorf("from a peer: %q", d)
	}
}

// A member without a station on the segment has no address there, so it sends nothing, whichever end judges.
func TestMemberWithoutStation(t *testing.T) {
	r := newRig(t)
	r.seg.SetPolicy(policy.Compile(policy.Rules{Grants: []policy.Grant{{ID: grantID, Segment: true, Sources: []policy.Identity{1, 2}}}}), r.now)
	for _, id := range []policy.Identity{1, 2} {
		if d := r.enter(id, data(ether.Broadcast, macOf(id), experimental, "")); d != Drop(policy.NoStation) {
			t.Errorf("node %d: %q", id, d)
		}
	}
	r.seen(sent{})
}

// What policy takes away is gone at once, both ways, also for addresses already learned.
func TestGrantRemoved(t *testing.T) {
	r := newRig(t)
	r.enter(2, data(ether.Broadcast, macOf(2), experimental, ""))
	r.enter(1, data(macOf(2), macOf(1), experimental, ""))
	r.seen(sent{1: 1, 2: 1})
	r.grant(1, 3)
	if n := len(r.seg.FDB().Entries(r.now)); n != 1 {
		t.Errorf("%d addresses left, want the own one alone", n)
	}
	if d := r.enter(2, data(macOf(1), macOf(2), experimental, "")); d != Drop(policy.WrongGrant) {
		t.Errorf("in: %q", d)
	}
	r.enter(1, data(macOf(2), macOf(1), experimental, ""))
	r.enter(1, data(ether.Broadcast, macOf(1), experimental, ""))
	r.seen(sent{3: 1})

	r.grant()
	if d := r.enter(1, data(ether.Broadcast, macOf(1), experimental, "")); d != Drop(policy.NoGrant) {
		t.Errorf("out: %q", d)
	}
	r.seen(sent{})
}

// A receiver that is no longer a member loses its FDB entry even when a frame in flight has just taught it again.
func TestUnicastIsJudgedPerReceiver(t *testing.T) {
	r := newRig(t)
	r.seg.FDB().Learn(macOf(4), Place{r.ports[4], 4}, r.now)
	if d := r.enter(1, data(macOf(4), macOf(1), experimental, "")); d != Drop(policy.NotMember) {
		t.Errorf("%q", d)
	}
	r.seen(sent{})
}

func TestNoReceiver(t *testing.T) {
	r := newRig(t)
	for id := policy.Identity(2); id <= 4; id++ {
		r.seg.RemovePort(r.ports[id])
	}
	if d := r.enter(1, data(ether.Broadcast, macOf(1), experimental, "")); d != DropNoReceiver {
		t.Errorf("%q", d)
	}
}

// L08: a port that leaves takes its addresses along.
func TestRemovePort(t *testing.T) {
	r := newRig(t)
	r.enter(2, data(ether.Broadcast, macOf(2), experimental, ""))
	r.seg.RemovePort(r.ports[2])
	r.seen(sent{1: 1})
	r.enter(1, data(macOf(2), macOf(1), experimental, ""))
	r.seen(sent{3: 1})
}

// L17, F07: two segments share nothing.
func TestSegmentsAreApart(t *testing.T) {
	a, b := newRig(t), newRig(t)
	a.enter(2, data(ether.Broadcast, macOf(2), experimental, ""))
	b.seen(sent{})
	if n := len(b.seg.FDB().Entries(b.now)); n != 0 {
		t.Errorf("%d addresses crossed", n)
	}
}

func TestDropsHaveTexts(t *testing.T) {
	codes := map[string]Drop{}
	for d := range numDrops {
		if d.String() == "" || d.Code() == "" {
			t.Errorf("drop %d has no text", d)
		}
		if other, twice := codes[d.Code()]; twice {
			t.Errorf("drops %d and %d share the code %q", other, d, d.Code())
		}
		codes[d.Code()] = d
	}
}

// blackhole is an Egress that costs nothing.
type blackhole struct{}

func (blackhole) Send([]byte, ether.Offload, Tag, Lane) {}

func quietRig(t *testing.T) *rig {
	r := newRig(t)
	for _, p := range r.ports {
		p.out = blackhole{}
	}
	r.enter(2, data(ether.Broadcast, macOf(2), experimental, ""))
	return r
}

func TestForwardDoesNotAllocate(t *testing.T) {
	r := quietRig(t)
	for name, c := range map[string]struct {
		from policy.Identity
		in   []byte
	}{
		"unicast out":     {1, data(macOf(2), macOf(1), experimental, "")},
		"flood out":       {1, data(ether.Broadcast, macOf(1), experimental, "")},
		"unicast in":      {2, data(macOf(1), macOf(2), experimental, "")},
		"flood in":        {2, data(ether.Broadcast, macOf(2), experimental, "")},
		"dropped in":      {2, data(macOf(1), macOf(3), experimental, "")},
		"dropped, parsed": {1, make([]byte, 5)},
	} {
		if n := testing.AllocsPerRun(100, func() { r.enter(c.from, c.in) }); n != 0 {
			t.Errorf("%s: %v allocations for each frame", name, n)
		}
	}
}

// Frames on many lanes while ports and policy change; the race detector watches.
func TestConcurrent(t *testing.T) {
	r := quietRig(t)
	var wg sync.WaitGroup
	for lane := range 4 {
		wg.Go(func() {
			for range 5000 {
				r.seg.Forward(r.ports[1], data(macOf(2), macOf(1), experimental, ""), ether.Offload{}, Tag{}, Lane(lane), r.now)
				r.seg.Forward(r.ports[2], data(macOf(1), macOf(2), experimental, ""), ether.Offload{}, Tag{2, grantID}, Lane(lane), r.now)
			}
		})
	}
	for i := range 500 {
		r.seg.RemovePort(r.ports[3])
		r.grant(1, policy.Identity(2+i%2))
		r.seg.AddPort(r.ports[3])
	}
	wg.Wait()
}

func BenchmarkForwardUnicast(b *testing.B) {
	r := quietRig(new(testing.T))
	f := data(macOf(2), macOf(1), experimental, string(make([]byte, 60)))
	for b.Loop() {
		r.seg.Forward(r.ports[1], f, ether.Offload{}, Tag{}, 0, r.now)
	}
}

// I03: who loses its grant takes its own addresses along, and nobody else's.
func TestOnlyItsOwnAddressesAreFlushed(t *testing.T) {
	r := newRig(t)
	r.enter(2, data(ether.Broadcast, macOf(2), experimental, ""))
	r.enter(3, data(ether.Broadcast, macOf(3), experimental, ""))
	if n := len(r.seg.FDB().Entries(r.now)); n != 2 {
		t.Fatalf("%d addresses learned, want 2", n)
	}
	r.grant(1, 3)
	left := r.seg.FDB().Entries(r.now)
	if len(left) != 1 || left[0].MAC != macOf(3) {
		t.Errorf("left are %v, want that of node 3 alone", left)
	}
}

// A fragment that overlaps another goes nowhere, also between members who may send each other everything: hosts differ in which
// of two they believe (RFC 5722).
func TestOverlappingFragments(t *testing.T) {
	fragment := func(from policy.Identity, units byte) []byte {
		head := []byte{
			0x45, 0, 0, 44, 0, 9, 0x20, units, 64, 17, 0, 0, // 24 bytes from units × 8 on; more follow
			192, 0, 2, byte(from), 192, 0, 2, byte(3 - from),
		}
		return data(macOf(3-from), macOf(from), ether.TypeIPv4, string(append(head, make([]byte, 24)...)))
	}
	for from := policy.Identity(1); from <= 2; from++ {
		r := newRig(t)
		if got := r.enter(from, fragment(from, 0)); got != Forwarded {
			t.Errorf("from %d, first fragment: %q", from, got)
		}
		r.seen(sent{3 - from: 1})
		if got := r.enter(from, fragment(from, 2)); got != Drop(policy.BadFragment) {
			t.Errorf("from %d, overlap: %q", from, got)
		}
		r.seen(sent{})
	}
}
