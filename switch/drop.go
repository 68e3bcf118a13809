package vswitch

import (
	"errors"
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
	DropPort
	DropLocked
	DropIsolated
	DropStorm
	DropFrozen
	DropRate
	DropTagDepth
	DropTagKind
	DropEcho
	Answered // not dropped: this node has answered its own host, and nothing need be sent
	numDrops
)

var ownDrops = [...]struct{ code, text string }{ //nolint:gochecknoglobals // a constant table
	0:                             {"short", "frame is shorter than its header"},
	DropPartialTag - DropShort:    {"partial-tag", "frame ends inside its VLAN tag"},
	DropLong - DropShort:          {"long", "frame is longer than the MTU of the segment allows"},
	DropReserved - DropShort:      {"reserved", "destination is reserved for the neighbour on the wire and never forwarded"},
	DropVLAN - DropShort:          {"vlan", "frame carries a VLAN tag; inside a segment only priority tags (VLAN 0) are allowed, unless it is transparent"},
	DropSourceAddress - DropShort: {"source-address", "source address is a group, broadcast or zero"},
	DropIdentity - DropShort:      {"identity", "source identity is not the one behind this link"},
	DropHairpin - DropShort:       {"hairpin", "destination is on the port where the frame came from"},
	DropNoReceiver - DropShort:    {"no-receiver", "no port of this segment may receive the frame"},
	DropPort - DropShort:          {"port", "port is shut, disabled by a fault, blocked by the loop guard, or another gateway carries this VLAN"},
	DropLocked - DropShort:        {"locked", "port is locked, and the source has neither a name nor a static entry there"},
	DropIsolated - DropShort:      {"isolated", "both ports are isolated, or they are of different communities"},
	DropStorm - DropShort:         {"storm", "more frames of this kind enter through the port than its storm limit allows"},
	DropFrozen - DropShort:        {"frozen", "source address has been in two places in turn too often, and this is not where it is believed to be"},
	DropRate - DropShort:          {"rate", "frame exceeds the rate of the port by which it enters or would leave"},
	DropTagDepth - DropShort:      {"tag-depth", "frame carries more VLAN tags than a transparent segment does: two, behind one for its priority"},
	DropTagKind - DropShort:       {"tag-kind", "frame carries a VLAN tag that no segment does: VLAN 4095, or a type from before 802.1ad"},
	DropEcho - DropShort:          {"echo", "the very same frame has come too often, as in a loop: the loop guard is asked, and until it has looked it goes no further"},
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

// benign reports whether the reason is no refusal: hosts send such frames all the time, and nobody was to have them, or not so many.
func (d Drop) benign() bool {
	return d == DropReserved || d == DropHairpin || d == DropNoReceiver || d == DropRate || d == Answered || d == Drop(policy.OtherCopy)
}

// or joins the reason of one receiver to that of those before: the frame is dropped if nobody had it, and then for the last reason.
// But if one takes another copy of it, that is no refusal, whoever else does not get it.
func (d Drop) or(next Drop) Drop {
	if d == Forwarded || d == Drop(policy.OtherCopy) && next != Forwarded {
		return d
	}
	return next
}

// parseDrop names an error of ether.Parse and ether.ParseInside.
func parseDrop(err error) Drop {
	switch {
	case errors.Is(err, ether.ErrPartialTag):
		return DropPartialTag
	case errors.Is(err, ether.ErrTagDepth):
		return DropTagDepth
	case errors.Is(err, ether.ErrTagKind):
		return DropTagKind
	default:
		return DropShort
	}
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
