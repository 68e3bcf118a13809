//go:build !openswitch

package vswitch

import (
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// admit decides whether the frame may be in the switch at all.
func (l *layout) admit(c *carriage, tag Tag) Drop {
	f := &c.Frame
	if len(f.Payload) > l.mtu && l.tooLong(f, c.undone) {
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
	if tag.Source != c.in.Identity {
		return DropIdentity
	}
	station := l.policy.Station(tag.Source)
	if station == nil {
		return Drop(policy.NoStation)
	}
	if v := station.Check(f); v != policy.Pass {
		return Drop(v)
	}
	if v := c.Settle(); v != policy.Pass {
		return Drop(v)
	}
	if c.in.Kind == Link {
		return Drop(l.policy.Ingress(&c.Passage, l.self, tag.Grant))
	}
	return Forwarded
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

// mayHave decides whether a receiver may have a frame, and names the grant.
func (l *layout) mayHave(p *policy.Passage, receiver policy.Identity) (policy.GrantID, policy.Verdict) {
	return l.policy.Egress(p, receiver)
}
