package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/etherloom/etherloom/ether"
)

// Native says whether a member of a trunk, which has a VLAN, has the frames without one, too, and how it sends.
type Native string

// The kinds of Native; empty: frames without a VLAN are not its.
const (
	NativeUntagged Native = "untagged" // it sends without tag
	NativeTagged   Native = "tagged"   // it sends with its tag
)

// Priority says when a frame that is sent without a VLAN has a priority tag: 802.1Q's, with VLAN 0.
type Priority string

// The kinds of Priority; empty: never.
const (
	PriorityNonzero Priority = "nonzero" // if it has a priority, or may be dropped first
	PriorityAlways  Priority = "always"
)

// Tagging says which frames of a trunk a member has, and how those that it sends are tagged. Which they are is decided by the
// outer tag alone. (The words are those of Open vSwitch's port modes; see ovs-vswitchd.conf.db(5), VLAN configuration.)
//
//	VLAN  Native    it has                               it sends
//	0     ""        without tag, or with VLAN 0          without tag       an access port
//	n     ""        with VLAN n                          with VLAN n       a member of a trunk
//	n     untagged  with VLAN n or 0, or without tag     without tag
//	n     tagged    with VLAN n or 0, or without tag     with VLAN n
//
// In a transparent segment tags behind the outer one are payload of a member of a trunk. An access port has all frames there whose
// VLAN is nobody else's on the wire, with their tags.
type Tagging struct {
	VLAN        uint16 // 0 or 1 to 4094
	Native      Native
	Service     bool     // the tag is 802.1ad's
	Priority    Priority // matters to frames that are sent without a VLAN
	Transparent bool     // the segment is
}

// whole reports whether the member has all frames that are nobody else's.
func (t Tagging) whole() bool { return t.Transparent && t.VLAN == 0 }

// Check says what is wrong with the settings.
func (t Tagging) Check() error {
	switch {
	case t.VLAN > ether.MaxVLAN:
		return fmt.Errorf("VLAN %d does not exist: give one of 1 to %d, or 0 for frames without a tag", t.VLAN, ether.MaxVLAN)
	case t.Native != "" && t.Native != NativeUntagged && t.Native != NativeTagged:
		return fmt.Errorf("native is %q: give %q or %q, or leave it out", t.Native, NativeUntagged, NativeTagged)
	case t.Priority != "" && t.Priority != PriorityNonzero && t.Priority != PriorityAlways:
		return fmt.Errorf("priority is %q: give %q or %q, or leave it out", t.Priority, PriorityNonzero, PriorityAlways)
	case t.VLAN == 0 && t.Native != "":
		return errors.New("a native VLAN needs its number: give a VLAN, or leave native out for frames without a tag alone")
	case t.VLAN == 0 && t.Service:
		return errors.New("a service tag needs its VLAN: give one of 1 to 4094")
	}
	return nil
}

// untagged reports whether frames without a VLAN are the member's.
func (t Tagging) untagged() bool { return t.VLAN == 0 || t.Native != "" }

func (t Tagging) tagType() ether.Type {
	if t.Service {
		return ether.TypeQinQ
	}
	return ether.TypeVLAN
}

// Why a frame is nobody's.
var (
	ErrForeignVLAN = errors.New("bridge: no member of the trunk has this VLAN")
	ErrNoVLAN      = errors.New("bridge: VLAN 4095 is reserved")
	ErrTagInside   = errors.New("bridge: a frame that is sent without a tag begins with one of its own")
)

// Egress says which tag a frame of the segment is sent with, in the place of its own priority tag: Writer.WriteTagged puts it
// there. It refuses a frame that is sent without a tag and has one of its own, by which it would get onto another VLAN; but for that
// of a member that has all VLANs which are nobody else's: of these Trunk.Egress knows.
func (t Tagging) Egress(frame []byte) (ether.Tag, error) {
	own, err := ether.OuterTag(frame)
	if err != nil {
		return ether.Tag{}, err
	}
	var priority uint16
	if own.IsPriority() {
		priority = own.Priority()
	}
	if t.VLAN != 0 && t.Native != NativeUntagged {
		return ether.MakeTag(t.tagType(), priority|t.VLAN), nil
	}
	if !t.whole() && (own.IsPriority() && ether.Type(binary.BigEndian.Uint16(frame[16:])).IsTag() || own != (ether.Tag{}) && !own.IsPriority()) {
		return ether.Tag{}, ErrTagInside
	}
	if t.Priority == PriorityAlways || t.Priority == PriorityNonzero && priority != 0 {
		return ether.MakeTag(ether.TypeVLAN, priority), nil
	}
	return ether.Tag{}, nil
}

// Member is one of those who share a trunk.
type Member[P comparable] struct {
	Tagging
	Port P
}

// Trunk says of each frame of a wire whose it is. It is immutable.
type Trunk[P comparable] struct {
	members []Member[P]
	// By VLAN, for 802.1Q's tags and 802.1ad's, the number of the member plus one; 0: nobody's. At 0 are frames without VLAN.
	customer, service [ether.MaxVLAN + 1]uint16
	rest              uint16 // of the member that has what is nobody else's
}

// NewTrunk makes a trunk of members. No two may have the same frames.
func NewTrunk[P comparable](members ...Member[P]) (*Trunk[P], error) {
	t := &Trunk[P]{members: members}
	for i, m := range members {
		if err := m.Check(); err != nil {
			return nil, fmt.Errorf("%v: %w", m.Port, err)
		}
		table := &t.customer
		if m.Service {
			table = &t.service
		}
		if m.VLAN != 0 {
			if had := table[m.VLAN]; had != 0 {
				return nil, fmt.Errorf("%v and %v both have VLAN %d: give one of them another VLAN", members[had-1].Port, m.Port, m.VLAN)
			}
			table[m.VLAN] = uint16(i + 1)
		}
		if !m.untagged() {
			continue
		}
		if had := t.customer[0]; had != 0 {
			return nil, fmt.Errorf("%v and %v both have the frames without a VLAN: give one of them a VLAN that is not native", members[had-1].Port, m.Port)
		}
		t.customer[0] = uint16(i + 1)
		if m.whole() {
			t.rest = uint16(i + 1)
		}
		// Of an 802.1ad tag with VLAN 0 only the one knows who sends such tags.
		if m.Service {
			t.service[0] = uint16(i + 1)
		}
	}
	return t, nil
}

// Ingress says whose a frame is, and makes it one of the segment, in place: without its tag, or with a priority tag if the tag
// had a priority. What comes back lies in frame. A frame that is nobody's is left as it was; the error is ether.ErrShort,
// ether.ErrPartialTag, ErrForeignVLAN or ErrNoVLAN.
func (t *Trunk[P]) Ingress(frame []byte, undone ether.Offload) (P, []byte, ether.Offload, error) {
	m, tag, err := t.find(frame)
	if err != nil {
		var none P
		return none, frame, undone, err
	}
	if tag != (ether.Tag{}) {
		frame, undone = ether.StripVLAN(frame, undone, m.Transparent)
	}
	return m.Port, frame, undone, nil
}

// Owner says whose a frame is, and leaves it as it is. The errors are Ingress's.
func (t *Trunk[P]) Owner(frame []byte) (P, error) {
	m, _, err := t.find(frame)
	if err != nil {
		var none P
		return none, err
	}
	return m.Port, nil
}

// find gives the member whose a frame is, and the tag by which it is; none if it has whatever is nobody else's.
func (t *Trunk[P]) find(frame []byte) (*Member[P], ether.Tag, error) {
	tag, err := ether.OuterTag(frame)
	if err != nil {
		return nil, tag, err
	}
	if tag.VLAN() > ether.MaxVLAN {
		return nil, tag, ErrNoVLAN
	}
	if n := t.owner(tag); n != 0 {
		return &t.members[n-1], tag, nil
	}
	if t.rest != 0 {
		return &t.members[t.rest-1], ether.Tag{}, nil
	}
	return nil, tag, ErrForeignVLAN
}

// owner is the number of the member that has an outer tag, plus one; 0: nobody.
func (t *Trunk[P]) owner(tag ether.Tag) uint16 {
	if tag.Type() == ether.TypeQinQ {
		return t.service[tag.VLAN()]
	}
	return t.customer[tag.VLAN()]
}

// Egress is Tagging.Egress of a member. A frame of a transparent segment that is sent without a tag may have tags of its own, but none
// by which it would get onto a VLAN of somebody else's: which of this wire's VLANs it is on, who is attached to it chooses alone.
func (t *Trunk[P]) Egress(member Tagging, frame []byte) (ether.Tag, error) {
	if member.whole() {
		f, err := ether.ParseInside(frame)
		if err != nil {
			return ether.Tag{}, err
		}
		if own := f.Inner.Outer(); own != (ether.Tag{}) && t.owner(own) != 0 {
			return ether.Tag{}, ErrTagInside
		}
	}
	return member.Egress(frame)
}
