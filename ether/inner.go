package ether

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A segment that is transparent carries the tags of those who use it as they are, as a provider's bridge carries its customers'
// (IEEE 802.1Q clause 15.3, a port-based service). What is judged is the frame behind them, so every tag is looked through, and what
// has more than can be looked through is no frame.
//
//	+-----+-----+----------------+---------------+---------------+-----------+---- - -
//	| dst | src | 8100, VLAN 0   | tag           | tag           | EtherType | payload
//	+-----+-----+----------------+---------------+---------------+-----------+---- - -
//	             the segment's    the user's own: at most MaxInner, of 802.1Q or 802.1ad
//
// The first is there if the frame has a priority that an attachment has taken from the tag of its VLAN (StripVLAN).

// MaxInner is how many tags of its user's own a frame of a transparent segment has at most.
const MaxInner = 2

// maxTags is how many it has in all.
const maxTags = 1 + MaxInner

// VLANs are those of a frame's tags, the outer one first. The zero VLANs are none. What carries a priority alone is not among them: a
// host takes such a frame for the same as one without that tag (IEEE 802.1Q table 9-2).
//
//	 1 bit   3     12 bits              1 bit   3     12 bits
//	+-------+-----+------------------+-------+-----+------------------+
//	| 802.1ad | 0 | outer, or 0      | 802.1ad | 0 | inner, or the only one
//	+-------+-----+------------------+-------+-----+------------------+
type VLANs uint32

const serviceVLAN = 0x8000

// with adds the VLAN of a tag further in.
func (v VLANs) with(t Type, vlan uint16) VLANs {
	if vlan == 0 {
		return v
	}
	if t == TypeQinQ {
		vlan |= serviceVLAN
	}
	return v<<16 | VLANs(vlan)
}

// List returns their numbers, the outer one first.
func (v VLANs) List() []uint16 {
	var out []uint16
	for _, half := range [...]VLANs{v >> 16, v} {
		if n := uint16(half & vlanMask); n != 0 {
			out = append(out, n)
		}
	}
	return out
}

// String is such as "10", or "s20.10" for VLAN 10 inside VLAN 20 of 802.1ad; empty for none.
func (v VLANs) String() string {
	text, dot := "", ""
	for _, half := range [...]VLANs{v >> 16, v} {
		n, service := half&vlanMask, ""
		if n == 0 {
			continue
		}
		if half&serviceVLAN != 0 {
			service = "s"
		}
		text += fmt.Sprintf("%s%s%d", dot, service, n)
		dot = "."
	}
	return text
}

// ParseVLANs reads what String writes.
func ParseVLANs(text string) (v VLANs, err error) {
	if text == "" {
		return 0, nil
	}
	parts := strings.Split(text, ".")
	for _, part := range parts {
		number, service := strings.CutPrefix(part, "s")
		n, _ := strconv.ParseUint(number, 10, 16) // 0 is what is no number, and 65535 what is too large
		if n == 0 || n > MaxVLAN || len(parts) > MaxInner {
			return 0, fmt.Errorf("expected a VLAN from 1 to %d such as 10, or two of which the first is the outer one, such as 20.10, each with "+
				"an s in front if its tag is 802.1ad's, found %q", MaxVLAN, text)
		}
		t := TypeVLAN
		if service {
			t = TypeQinQ
		}
		v = v.with(t, uint16(n))
	}
	return v, nil
}

// Outer is the tag, without priority, of the outer one; none if there are no VLANs.
func (v VLANs) Outer() Tag {
	half := v >> 16
	if half == 0 {
		half = v
	}
	if half == 0 {
		return Tag{}
	}
	return half.tag()
}

// tag is that of the inner one.
func (v VLANs) tag() Tag {
	if v&serviceVLAN != 0 {
		return MakeTag(TypeQinQ, uint16(v&vlanMask))
	}
	return MakeTag(TypeVLAN, uint16(v&vlanMask))
}

// Tag returns a copy of a frame with tags of the VLANs in front of those that it has.
func (v VLANs) Tag(frame []byte) []byte {
	out := append(make([]byte, 0, len(frame)+MaxInner*tagLen), frame[:macsLen]...)
	for _, half := range [...]VLANs{v >> 16, v} {
		if half&vlanMask != 0 {
			tag := half.tag()
			out = append(out, tag[:]...)
		}
	}
	return append(out, frame[macsLen:]...)
}

// Errors of ParseInside, beside those of Parse.
var (
	ErrTagDepth = errors.New("ether: frame has more VLAN tags than can be looked through")
	ErrTagKind  = errors.New("ether: frame has a VLAN tag with VLAN 4095, or of a type from before IEEE 802.1ad")
)

// ParseInside looks at the header of a frame of a transparent segment: Type and Payload are those behind all tags.
func ParseInside(data []byte) (Frame, error) {
	f, err := Parse(data)
	if err == nil {
		err = f.unwrap()
	}
	return f, err
}

// unwrap looks behind the tags that Parse has left. Each is complete with the EtherType behind it (IEEE 802.1Q section 9.3).
func (f *Frame) unwrap() error {
	left := MaxInner
	if vlan := f.VLAN(); vlan != 0 { // of the tag that Parse has taken off; otherwise that is the segment's own
		f.Inner, left = f.Inner.with(TypeVLAN, vlan), left-1
		if vlan > MaxVLAN {
			return ErrTagKind
		}
	}
	for ; f.Type.IsTag(); left-- {
		if len(f.Payload) < tagLen {
			return ErrPartialTag
		}
		if left == 0 {
			return ErrTagDepth
		}
		vlan := binary.BigEndian.Uint16(f.Payload) & vlanMask
		if vlan > MaxVLAN {
			return ErrTagKind
		}
		f.Inner = f.Inner.with(f.Type, vlan)
		f.Type, f.Payload = Type(binary.BigEndian.Uint16(f.Payload[2:])), f.Payload[tagLen:]
	}
	switch {
	case f.Type.isOldTag():
		return ErrTagKind
	case f.Type < MinType:
		f.Type = 0
	}
	return nil
}

// isOldTag reports whether a tag of this type stands in front of the EtherType for switches that were made before IEEE 802.1ad, or
// are set to be as those were. Behind it could be anything, which nobody has looked at.
func (t Type) isOldTag() bool { return t == 0x9100 || t == 0x9200 || t == 0x9300 }

// AppendReply appends the header of a frame that answers f from one address to another. If f is on VLANs inside its segment, so is
// the answer, with the same tags.
func (f *Frame) AppendReply(b []byte, to, from MAC) []byte {
	b = append(append(b, to[:]...), from[:]...)
	if f.Inner != 0 {
		b = append(b, f.Data[macsLen:len(f.Data)-len(f.Payload)-2]...)
	}
	return binary.BigEndian.AppendUint16(b, uint16(f.Type))
}
