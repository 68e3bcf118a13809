//go:build !openbench

package vswitch

import (
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// admit decides whether the frame may be in the switch at all.
func (l *layout) admit(in *Port, f *ether.Frame, tag Tag, now time.Time) Drop {
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
	if v := station.Check(f); v != policy.Pass {
		return Drop(v)
	}
	if in.Kind == Link {
		return Drop(l.policy.Ingress(tag.Source, l.self, tag.Grant, now))
	}
	return Forwarded
}

// mayHave decides whether a receiver may have a frame of source, and names the grant.
func (l *layout) mayHave(source, receiver policy.Identity, now time.Time) (policy.GrantID, policy.Verdict) {
	return l.policy.Egress(source, receiver, now)
}
