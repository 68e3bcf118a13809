package vswitch

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// state is all that a frame may change in a segment.
func (r *rig) state() string {
	s := fmt.Sprint(r.seg.FDB().Entries(r.now), r.seg.FDB().Stats(), r.seg.Drops())
	for id := policy.Identity(1); id <= 4; id++ {
		s += fmt.Sprint(r.ports[id].Stats(), len(r.out[id].frames))
	}
	return s
}

// agree asks what would become of a frame, and then sends it. Asking changes nothing, and foretells drop, receivers and tags.
func (r *rig) agree(what string, from policy.Identity, frame []byte, tag Tag) Explanation {
	r.t.Helper()
	before := r.state()
	e := r.seg.Explain(r.ports[from], frame, tag, r.now)
	if after := r.state(); after != before {
		r.t.Errorf("%s: asking has changed the segment:\nbefore %s\nafter  %s", what, before, after)
	}
	drop := r.seg.Forward(r.ports[from], frame, ether.Offload{}, tag, 0, r.now)
	if e.Drop != drop {
		r.t.Errorf("%s: explained as %q, and was %q", what, e.Drop.Code(), drop.Code())
	}
	want, got := map[policy.Identity]Tag{}, map[policy.Identity]Tag{}
	for _, rec := range e.Receivers {
		if rec.Drop == Forwarded {
			want[rec.Port.Identity] = rec.Tag
		}
	}
	for id, s := range r.out {
		if len(s.tags) > 1 {
			r.t.Errorf("%s: node %d got it %d times", what, id, len(s.tags))
		}
		for _, t := range s.tags {
			got[id] = t
		}
		s.take()
	}
	if drop == Answered {
		want[from] = Tag{} // no receiver was judged: it goes back to who asked
	}
	if !maps.Equal(want, got) {
		r.t.Errorf("%s: explained as going to %v, and went to %v", what, want, got)
	}
	if (drop == Forwarded || drop == Answered) != (len(got) > 0) {
		r.t.Errorf("%s: %q, and %d received it", what, drop.Code(), len(got))
	}
	return e
}

// Explain says of every frame what Forward then does with it.
func TestExplainIsForward(t *testing.T) {
	hello := func(dst, src policy.Identity) []byte { return data(macOf(dst), macOf(src), experimental, "") }
	for _, c := range []struct {
		name      string
		from      policy.Identity
		in        []byte
		tag       Tag
		prepare   func(*rig)
		want      Drop
		flooded   bool
		receivers int // judged
	}{
		{name: "unknown destination", from: 1, in: hello(9, 1), want: Forwarded, flooded: true, receivers: 3},
		{name: "destination of which nothing was seen", from: 1, in: hello(2, 1), want: Forwarded, receivers: 1},
		{name: "broadcast", from: 1, in: data(ether.Broadcast, macOf(1), experimental, ""), want: Forwarded, flooded: true, receivers: 3},
		{
			name: "known destination", from: 1, in: hello(2, 1), want: Forwarded, receivers: 1,
			prepare: func(r *rig) { r.seg.FDB().Learn(macOf(2), Place{r.ports[2], 2}, r.now) },
		},
		{
			name: "known destination that is no member", from: 1, in: hello(4, 1), want: Drop(policy.NotMember), receivers: 1,
			prepare: func(r *rig) { r.seg.FDB().Learn(macOf(4), Place{r.ports[4], 4}, r.now) },
		},
		{
			name: "entry that has aged", from: 1, in: hello(9, 1), want: Forwarded, flooded: true, receivers: 3,
			prepare: func(r *rig) { r.seg.FDB().Learn(macOf(9), Place{r.ports[2], 2}, r.now.Add(-time.Hour)) },
		},
		{name: "from a link", from: 2, in: hello(1, 2), tag: Tag{2, grantID}, want: Forwarded, receivers: 1},
		{
			name: "from a link to a link", from: 3, in: hello(2, 3), tag: Tag{3, grantID}, want: DropHairpin, receivers: 1,
			prepare: func(r *rig) { r.seg.FDB().Learn(macOf(2), Place{r.ports[2], 2}, r.now) },
		},
		{name: "to its own source", from: 1, in: hello(1, 1), want: DropHairpin, receivers: 1},
		{
			name: "to its own source, seen elsewhere", from: 1, in: hello(1, 1), want: DropHairpin, receivers: 1,
			prepare: func(r *rig) { r.seg.FDB().Learn(macOf(1), Place{r.ports[2], 2}, r.now) },
		},
		{
			name: "to its own source, pinned elsewhere", from: 1, in: hello(1, 1), want: Forwarded, receivers: 1,
			prepare: func(r *rig) { _ = r.seg.FDB().AddStatic(macOf(1), Place{r.ports[2], 2}) },
		},
		{
			name: "pinned where it came from, as another's", from: 1, in: hello(9, 1), want: DropHairpin, receivers: 1,
			prepare: func(r *rig) { _ = r.seg.FDB().AddStatic(macOf(9), Place{r.ports[1], 3}) },
		},
		{name: "short", from: 1, in: make([]byte, 13), want: DropShort},
		{name: "reserved", from: 1, in: data(ether.MAC{1, 0x80, 0xc2}, macOf(1), 38, ""), want: DropReserved},
		{name: "VLAN 10", from: 1, in: data(macOf(2), macOf(1), ether.TypeVLAN, "\x00\x0a\x08\x00"), want: DropVLAN},
		{name: "another's MAC", from: 1, in: hello(2, 3), want: Drop(policy.SourceMAC)},
		{name: "another's identity", from: 2, in: hello(1, 2), tag: Tag{3, grantID}, want: DropIdentity},
		{name: "unknown grant", from: 2, in: hello(1, 2), tag: Tag{2, 99}, want: Drop(policy.UnknownGrant), receivers: 1},
		{name: "another's grant", from: 4, in: hello(1, 4), tag: Tag{4, grantID}, want: Drop(policy.WrongGrant), receivers: 1},
		{
			name: "no grant", from: 1, in: hello(9, 1), want: Drop(policy.NoGrant), flooded: true, receivers: 3,
			prepare: func(r *rig) { r.grant(2, 3) },
		},
		{
			name: "nobody else", from: 1, in: hello(9, 1), want: DropNoReceiver, flooded: true,
			prepare: func(r *rig) {
				for id := policy.Identity(2); id <= 4; id++ {
					r.seg.RemovePort(r.ports[id])
				}
			},
		},
	} {
		r := newRig(t)
		if c.prepare != nil {
			c.prepare(r)
		}
		e := r.agree(c.name, c.from, c.in, c.tag)
		if e.Drop != c.want || e.Flooded != c.flooded || len(e.Receivers) != c.receivers {
			t.Errorf("%s: %q, flooded %t, %d judged; want %q, %t, %d", c.name, e.Drop.Code(), e.Flooded, len(e.Receivers),
				c.want.Code(), c.flooded, c.receivers)
		}
	}
}

// reaching is a grant of node 1 to reach each other node whose bit is set.
func reaching(bits byte) (grants []policy.Grant) {
	for id := policy.Identity(1); id <= 4; id++ {
		if bits>>(id-1)&1 != 0 {
			grants = append(grants, policy.Grant{ID: 10 + policy.GrantID(id), Sources: []policy.Identity{1}, Targets: []policy.Identity{id}})
		}
	}
	return grants
}

// FuzzExplain: whatever the frame, its port, its tag, who is a member or reached, and what has been learned, Explain foretells
// Forward.
func FuzzExplain(f *testing.F) {
	arp := "\x00\x01\x08\x00\x06\x04\x00\x01" + "\x02\x00\x00\x00\x00\x01" + "\xc0\x00\x02\x01" + "\x00\x00\x00\x00\x00\x00\xc0\x00\x02\x02"
	for _, frame := range [][]byte{
		data(macOf(2), macOf(1), experimental, ""), data(macOf(1), macOf(2), experimental, ""), data(macOf(3), macOf(2), experimental, ""),
		data(macOf(1), macOf(1), experimental, ""), data(ether.Broadcast, macOf(1), ether.TypeARP, arp), make([]byte, 13),
		data(macOf(2), macOf(1), ether.TypeVLAN, "\x00\x00\x88\xb5"), data(ether.MAC{1, 0x80, 0xc2}, macOf(1), 38, ""),
	} {
		for from := range byte(4) {
			f.Add(from, uint32(from)+1, uint32(grantID), byte(0b0111), byte(0b0110), frame)
			f.Add(from, uint32(from)+1, uint32(grantID), byte(0b0010_0101), byte(0), frame)
		}
	}
	f.Add(byte(1), uint32(2), uint32(99), byte(0b1111), byte(0), data(macOf(1), macOf(2), experimental, ""))
	f.Fuzz(func(t *testing.T, from byte, source, grant uint32, members, learned byte, frame []byte) {
		r := newRig(t)
		var list []policy.Identity
		for id := policy.Identity(1); id <= 4; id++ {
			if members>>(id-1)&1 != 0 {
				list = append(list, id)
			}
		}
		r.setGrants(append(reaching(members>>4), policy.Grant{ID: grantID, Segment: true, Sources: list})...)
		for id := policy.Identity(1); id <= 4; id++ {
			switch at := r.ports[id]; {
			case learned>>(id+3)&1 != 0:
				_ = r.seg.FDB().AddStatic(macOf(id), Place{r.ports[id%4+1], id%4 + 1})
			case learned>>(id-1)&1 != 0:
				r.seg.FDB().Learn(macOf(id), Place{at, id}, r.now)
			}
		}
		r.agree("frame", policy.Identity(from%4)+1, frame, Tag{policy.Identity(source), policy.GrantID(grant)})
	})
}
