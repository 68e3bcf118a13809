package vswitch

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// L15: a frame for an address on the port where it comes in goes nowhere, on a VLAN as behind a link.
func TestHairpinL15(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, 2, 3, siteA))
	neighbour := ether.MAC{2, 0, 0, 0, 2, 9}
	m.says(siteA, data(ether.Broadcast, neighbour, experimental, ""))
	m.heard()
	if d := m.says(siteA, data(neighbour, macAt(siteA), experimental, "")); d != DropHairpin {
		t.Errorf("on the VLAN: %q", d.Code())
	}
	if d := m.says(siteA, data(macAt(siteA), macAt(siteA), experimental, "")); d != DropHairpin {
		t.Errorf("to itself: %q", d.Code())
	}
	if d := m.forward(1, m.ports[1]["link 3"], data(neighbour, macAt(siteA), experimental, ""), Tag{siteA, grantID}); d != DropHairpin {
		t.Errorf("behind a link: %q", d.Code())
	}
	if d := m.forward(1, m.ports[1]["link 3"], data(macAt(siteA), macAt(siteA), experimental, ""), Tag{siteA, grantID}); d != Forwarded && d != DropHairpin {
		t.Errorf("to itself, behind a link: %q", d.Code())
	}
	m.run()
}

// F04: what is for the neighbour on the wire stays there; the addresses next to those pass, once to each.
func TestReservedF04(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, 2, siteA, siteB))
	all := sent{1: 1, 2: 1, siteB: 1, 31: 1, roaming: 1}
	for last := range byte(0x10) {
		if d := m.says(siteA, data(ether.MAC{1, 0x80, 0xc2, 5: last}, macAt(siteA), experimental, "")); d != DropReserved {
			t.Errorf("reserved %#x: %q", last, d.Code())
		}
	}
	for _, dst := range []ether.MAC{{1, 0, 0x0c, 0xcc, 0xcc, 0xcc}, {1, 0, 0x0c, 0xcc, 0xcc, 0xcd}, {0, 0xe0, 0x2b, 0, 0, 4}} {
		if d := m.says(siteA, data(dst, macAt(siteA), experimental, "")); d != DropReserved {
			t.Errorf("%v: %q", dst, d.Code())
		}
	}
	m.expect("reserved", sent{})
	for _, dst := range []ether.MAC{
		{1, 0x80, 0xc2, 5: 0x10}, {1, 0x80, 0xc2, 5: 0x14}, {1, 0x80, 0xc2, 5: 0x15}, {1, 0x1b, 0x19}, {9, 0, 7, 0xff, 0xff, 0xff},
	} {
		m.says(siteA, data(dst, macAt(siteA), experimental, ""))
		m.expect(dst.String(), all)
	}
}

// F05: frames of every kind keep every byte on their way from a VLAN to a TAP and another VLAN, those with a priority tag, too.
func TestBytesF05(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, 2, siteA, siteB))
	for _, typ := range []ether.Type{5, 0x0842, 0x88f7, 0x8863, 0x8864, 0x88cc, 0x6003, 0xabcd, ether.TypeVLAN} {
		for _, dst := range []ether.MAC{ether.Broadcast, {9, 0, 7, 0, 0, 1}, macOf(99)} {
			body := "\xe0\x00\x88\xb5 bytes" // behind 0x8100 it is priority 7, VLAN 0
			frame := data(dst, macAt(siteA), typ, body)
			if d := m.says(siteA, frame); d != Forwarded {
				t.Errorf("%#x to %v: %q", typ, dst, d.Code())
			}
			for _, d := range m.out {
				if !bytes.Equal(d.frame, frame) {
					t.Errorf("%#x to %v: %x", typ, dst, d.frame)
				}
			}
			m.expect("bytes", sent{1: 1, 2: 1, siteB: 1, 31: 1, roaming: 1})
		}
	}
	if d := m.says(siteA, data(ether.Broadcast, macAt(siteA), ether.TypeVLAN, "\x00\x0a\x88\xb5")); d != DropVLAN {
		t.Errorf("VLAN 10: %q", d.Code())
	}
	m.grant(members(1, 21, 22)) // a copy for a host keeps its tag
	tagged := data(ether.Broadcast, macAt(1), ether.TypeVLAN, "\xe0\x00\x88\xb5 bytes")
	m.says(1, tagged)
	for _, d := range m.out {
		if !bytes.Equal(d.frame[6:], tagged[6:]) {
			t.Errorf("a copy is %x", d.frame)
		}
	}
	m.expect("copies", sent{21: 1, 22: 1})
}

// F13: a node that cannot be reached takes nothing from the others, and has them get nothing twice.
func TestUnreachableF13(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, 2, 3, siteA, siteB))
	m.segments[1].RemovePort(m.ports[1]["link 2"])
	m.segments[3].RemovePort(m.ports[3]["link 2"])
	for range 10 {
		m.says(1, datagram(1, ether.Broadcast, everybody4))
	}
	m.expect("to the others", sent{3: 10, siteA: 10, 21: 10, 22: 10, siteB: 10, 31: 10, roaming: 10})
	for range 10 {
		m.says(siteA, datagram(siteA, ether.Broadcast, everybody4))
	}
	m.expect("from a VLAN", sent{1: 10, 3: 10, siteB: 10, 31: 10, roaming: 10})
}

// randomMix is a mix of grants to the segment and to nodes, with terms and without.
func randomMix(t *testing.T, r *rand.Rand, parties []policy.Identity) (grants []policy.Grant) {
	pick := func() (ids []policy.Identity) {
		for _, id := range parties {
			if r.IntN(3) > 0 {
				ids = append(ids, id)
			}
		}
		return ids
	}
	texts := []string{"any", "broadcast", "multicast:239.0.0.1", "ethertype:0x88b5", "udp:8192", "ip"}
	for id := range 1 + r.IntN(5) {
		g := policy.Grant{ID: policy.GrantID(10 + id), Sources: pick(), Both: r.IntN(3) == 0, Segment: r.IntN(2) == 0}
		if !g.Segment {
			g.Targets = pick()
		}
		if r.IntN(2) == 0 {
			g.Expires = time.Now().Add(time.Duration(1+r.IntN(5)) * time.Hour)
		}
		for range r.IntN(3) {
			g.Allow = append(g.Allow, terms(t, texts[r.IntN(len(texts))])...)
		}
		grants = append(grants, g)
	}
	return grants
}

// F10: whatever mix of grants there is, each who may have a frame for many gets it once, and nobody else does. On a VLAN everybody
// hears what those may have whom nobody named.
func TestExactlyOnceF10(t *testing.T) {
	parties := []policy.Identity{1, 2, 3, siteA, 21, 22, siteB, 31, roaming}
	got, none := 0, 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // not for secrets
		m := newMesh(t, false)
		if r.IntN(2) == 0 {
			m.at[roaming] = siteA
		}
		m.grant(randomMix(t, r, parties)...)
		for range 12 {
			who := parties[r.IntN(len(parties))]
			frame := [...][]byte{
				datagram(who, ether.Broadcast, everybody4), datagram(who, groupMAC, group4),
				data(ether.Broadcast, macAt(who), experimental, "test"), asks(who, v4(99)),
			}[r.IntN(4)]
			f, _ := ether.Parse(frame)
			node, _ := m.door(who)
			p := policy.Passage{Frame: f, Source: who, Flows: policy.NewFlows(), Now: m.now}
			may := func(id policy.Identity) bool { return m.views[node].Choice(&p, id) != 0 }
			want := map[policy.Identity]int{}
			_, seek := m.views[node].Seek(who, ether.Mapped(v4(99).As4()), m.now)
			for _, id := range parties {
				site := m.at[id]
				silent := f.Type == ether.TypeARP && seek != policy.Pass
				if id != who && (site == 0 || site != m.at[who]) && !silent && (may(id) || site != 0 && may(site)) {
					want[id] = 1
				}
			}
			m.says(who, frame)
			got += len(want)
			if len(want) == 0 {
				none++
			}
			m.expect("a frame for many", want)
			if t.Failed() {
				t.Fatalf("seed %d: from %d: %x", seed, who, frame)
			}
		}
	}
	if got < 2000 || none < 300 {
		t.Errorf("%d were to get a frame, and %d frames were for nobody: the cases say too little", got, none)
	}
}
