package vswitch

import (
	"sync/atomic"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// Drop is the reason why a frame went nowhere. The first values are those of policy.Verdict.
type Drop uint8

// The reasons that are the switch's own.
const (
	Forwarded Drop = Drop(policy.Pass) // not dropped

	DropShort Drop = Drop(policy.NumVerdicts) + iota - 1
	DropPartialTag
	DropLong
	DropReserved
	DropVLAN
	DropSourceAddress
	DropIdentity
	DropHairpin
	DropNoReceiver
	Answered // not dropped: this node has answered its own host, and nothing need be sent
	numDrops
)

var ownDrops = [...]struct{ code, text string }{ //nolint:gochecknoglobals // a constant table
	0:                             {"short", "frame is shorter than its header"},
	DropPartialTag - DropShort:    {"partial-tag", "frame ends inside its VLAN tag"},
	DropLong - DropShort:          {"long", "frame is longer than the MTU of the segment allows"},
	DropReserved - DropShort:      {"reserved", "destination is reserved for the neighbour on the wire and never forwarded"},
	DropVLAN - DropShort:          {"vlan", "frame carries a VLAN tag; inside a segment only priority tags (VLAN 0) are allowed"},
	DropSourceAddress - DropShort: {"source-address", "source address is a group, broadcast or zero"},
	DropIdentity - DropShort:      {"identity", "source identity is not the one behind this link"},
	DropHairpin - DropShort:       {"hairpin", "destination is on the port where the frame came from"},
	DropNoReceiver - DropShort:    {"no-receiver", "no port of this segment may receive the frame"},
	Answered - DropShort:          {"answered", "this node answers its own host from the signed state, and nothing is sent to anybody"},
}

// String says in one line what happened, for an operator.
func (d Drop) String() string {
	if d < DropShort {
		return policy.Verdict(d).String()
	}
	return ownDrops[d-DropShort].text
}

// Code is the reason as a stable word for scripts.
func (d Drop) Code() string {
	if d < DropShort {
		return policy.Verdict(d).Code()
	}
	return ownDrops[d-DropShort].code
}

// benign reports whether the reason is no refusal: hosts send such frames all the time, and nobody was to have them.
func (d Drop) benign() bool {
	return d == DropReserved || d == DropHairpin || d == DropNoReceiver || d == Answered
}

// parseDrop names an error of ether.Parse.
func parseDrop(err error) Drop {
	if err == ether.ErrPartialTag { //nolint:errorlint // Parse returns its sentinels bare; this runs for each frame
		return DropPartialTag
	}
	return DropShort
}

// drops counts by reason.
type drops [numDrops]atomic.Uint64

// DropCount is one reason and how often it happened.
type DropCount struct {
	Drop  Drop
	Count uint64
}

// list returns the reasons that have happened.
func (d *drops) list() []DropCount {
	var out []DropCount
	for i := range d {
		if n := d[i].Load(); n > 0 && Drop(i) != Forwarded {
			out = append(out, DropCount{Drop(i), n})
		}
	}
	return out
}
