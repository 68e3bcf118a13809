//go:build !openswitch

package vswitch

import (
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// admit decides whether the frame may be in the switch at all. asked says that somebody only wants to know.
func (l *layout) admit(in *Port, f *ether.Frame, undone ether.Offload, tag Tag, now time.Time, asked bool) Drop {
	if len(f.Payload) > l.mtu && l.tooLong(f, undone) {
		return DropLong
	}
	// IEEE 802.1Q section 8.6.3: a bridge never relays frames to the addresses of table 8-1.
	if f.Dst.IsReserved() {
		return DropReserved
	}
	// A tag would choose a VLAN behind a far gateway; the mapping is made at attachments alone. Parse has taken one tag off, so
	// a type that is still 802.1Q is a second one.
	if f.VLAN() != 0 || f.Type == ether.TypeQinQ || f.Type == ether.TypeVLAN {
		return DropVLAN
	}
	if !f.Src.IsStation() {
		return DropSourceAddress
	}
	// The session proves who the peer is; a frame cannot claim to be from another.
	if tag.Source != in.Identity {
		return DropIdentity
	}
	station := l.policy.Station(tag.Source)
	if station == nil {
		return Drop(policy.NoStation)
	}
	class, v := station.Check(f, undone.Size != 0)
	if v != policy.Pass {
		return Drop(v)
	}
	if in.Kind == Link {
		if v := l.policy.Ingress(tag.Source, l.self, tag.Grant, now); v != policy.Pass {
			return Drop(v)
		}
	}
	return l.meter(in, class, f, undone, now, asked)
}

// lateTolerance is how many times as much a receiver bears at once as the sender's own node does.
const lateTolerance = 2

// meter holds the frame against what its source may send in a second. There is one port for each identity on a segment, so the
// port counts.
func (l *layout) meter(in *Port, class policy.Class, f *ether.Frame, undone ether.Offload, now time.Time, asked bool) Drop {
	if class == policy.Unlimited {
		return Forwarded
	}
	frames, tolerance := 1, 1
	if size := int(undone.Size); size > 0 {
		frames = (len(f.Payload) + size - 1) / size
	}
	if in.Kind == Link {
		tolerance = lateTolerance
	}
	if asked {
		return Drop(in.meter.Look(&l.limits, class, frames, now.Sub(l.start), tolerance))
	}
	return Drop(in.meter.Take(&l.limits, class, frames, now.Sub(l.start), tolerance))
}

// tooLong reports whether a frame, or those that a super-frame stands for, is longer than this segment's frames are. A host is
// not to be given what its network would not have carried: what the MTU promises, programs build upon.
func (l *layout) tooLong(f *ether.Frame, undone ether.Offload) bool {
	if undone.Size == 0 {
		return true
	}
	cut, ok := ether.Cut(f.Data, undone, len(f.Data))
	return !ok || cut.Len()-(len(f.Data)-len(f.Payload)) > l.mtu
}

// mayHave decides whether a receiver may have a frame of source, and names the grant.
func (l *layout) mayHave(source, receiver policy.Identity, now time.Time) (policy.GrantID, policy.Verdict) {
	return l.policy.Egress(source, receiver, now)
}
