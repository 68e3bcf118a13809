package node

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/policy"
)

// Flow is one line of `etherloom flows`.
type Flow struct {
	Segment  string     `json:"segment"`
	VNI      uint32     `json:"vni"`
	From     string     `json:"from"` // who has begun it
	To       string     `json:"to"`
	Protocol string     `json:"protocol"` // icmp, tcp, udp or proto N
	Src      netip.Addr `json:"src"`
	Dst      netip.Addr `json:"dst"`
	SrcPort  uint16     `json:"src_port"` // of ICMP echo both are its identifier
	DstPort  uint16     `json:"dst_port"`
	VLAN     string     `json:"vlan,omitempty"` // inside a transparent segment, such as "10", or "20.10" with the outer one first
	Grant    uint32     `json:"grant"`
	Observed uint32     `json:"observed,omitempty"` // the grant in mode observe that would have let it begin
	Frames   uint64     `json:"frames"`             // from its beginning on
	Octets   uint64     `json:"octets"`

	AnswerFrames uint64    `json:"answer_frames"`
	AnswerOctets uint64    `json:"answer_octets"`
	Began        time.Time `json:"began"`
	Last         time.Time `json:"last"`
}

// Flows lists the flows that this node remembers, the newest last.
func (d *Daemon) Flows() []Flow {
	d.mu.Lock()
	segments, contents := d.sortedSegmentsLocked(), d.contents
	d.mu.Unlock()
	out := []Flow{}
	for _, s := range segments {
		for _, f := range s.sw.Flows().Live() {
			t := &f.Tuple
			out = append(out, Flow{
				Segment: s.name, VNI: uint32(s.vni), From: partyOf(contents, f.Opener).Name, To: partyOf(contents, f.Other).Name,
				Protocol: protocolName(uint8(t.Protocol)), Src: t.Source(), Dst: t.Target(), SrcPort: t.SrcPort, DstPort: t.DstPort,
				VLAN: f.VLANs.String(), Grant: uint32(f.Grant), Observed: uint32(f.Observed), Frames: f.Frames[0], Octets: f.Octets[0],
				AnswerFrames: f.Frames[1], AnswerOctets: f.Octets[1], Began: f.Began, Last: f.Last,
			})
		}
	}
	slices.SortFunc(out, func(a, b Flow) int {
		return cmp.Or(cmp.Compare(a.VNI, b.VNI), a.Began.Compare(b.Began), cmp.Compare(a.SrcPort, b.SrcPort))
	})
	return out
}

// GrantUse is one line of `etherloom grants`.
type GrantUse struct {
	ID      uint32    `json:"id"`
	Segment string    `json:"segment"`
	VNI     uint32    `json:"vni"`
	From    []string  `json:"from"` // nodes that this one is told of
	To      []string  `json:"to"`   // the same; none: the segment
	Allow   []string  `json:"allow"`
	Both    bool      `json:"both"`
	Observe bool      `json:"observe"` // passes nothing: the counts are of what it would let begin
	Expires time.Time `json:"expires,omitzero"`
	Frames  uint64    `json:"frames"` // that it has let pass here since the daemon began
	Octets  uint64    `json:"octets"`
	Flows   uint64    `json:"flows"`
	Last    time.Time `json:"last,omitzero"`
}

// Grants lists the grants that concern this node, with what each has let pass here.
func (d *Daemon) Grants() []GrantUse {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []GrantUse{}
	if d.contents == nil {
		return out
	}
	used := map[policy.GrantID]policy.Use{}
	for _, u := range d.uses {
		for _, one := range u.List() {
			used[one.Grant] = one
		}
	}
	add := func(g *controlv1.Reach) {
		u := used[policy.GrantID(g.GetId())]
		line := GrantUse{
			ID: g.GetId(), Segment: d.contents.Segments[g.GetVni()].GetName(), VNI: g.GetVni(), From: d.namesOfLocked(g.GetSources()),
			To: d.namesOfLocked(g.GetTargets()), Allow: slices.Clone(g.GetAllow()), Both: g.GetBoth(), Observe: g.GetObserve(),
			Frames: u.Frames, Octets: u.Octets, Flows: u.Flows, Last: u.Last,
		}
		if len(line.Allow) == 0 {
			line.Allow = []string{"any"}
		}
		if g.GetExpires() != nil {
			line.Expires = g.GetExpires().AsTime()
		}
		out = append(out, line)
	}
	for _, id := range slices.Sorted(maps.Keys(d.contents.Grants)) {
		g := d.contents.Grants[id]
		add(&controlv1.Reach{Id: g.GetId(), Vni: g.GetVni(), Sources: g.GetSources(), Expires: g.GetExpires(), Segment: true})
	}
	for _, id := range slices.Sorted(maps.Keys(d.contents.Reaches)) {
		add(d.contents.Reaches[id])
	}
	slices.SortFunc(out, func(a, b GrantUse) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

func (d *Daemon) namesOfLocked(ids []uint32) []string {
	out := []string{}
	for _, id := range ids {
		out = append(out, partyOf(d.contents, policy.Identity(id)).Name)
	}
	return out
}
