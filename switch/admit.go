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
	budget, v := station.Check(f, c.undone.Size != 0)
	if v != policy.Pass {
		return Drop(v)
	}
	if v := c.Settle(); v != policy.Pass {
		return Drop(v)
	}
	if c.in.Kind == Link {
		if v := l.policy.Ingress(&c.Passage, l.self, tag.Grant); v != policy.Pass {
			return Drop(v)
		}
	}
	return l.meter(c, budget)
}

// lateTolerance is how many times as much a receiver bears at once as the sender's own node does.
const lateTolerance = 2

// meter holds the frame against what its source may send in a second. There is one port for each identity on a segment, so the
// port counts.
func (l *layout) meter(c *carriage, budget policy.Budget) Drop {
	if budget == policy.Unlimited {
		return Forwarded
	}
	frames, tolerance := 1, 1
	if size := int(c.undone.Size); size > 0 {
		frames = (len(c.Frame.Payload) + size - 1) / size
	}
	if c.in.Kind == Link {
		tolerance = lateTolerance
	}
	if c.asked != nil {
		return Drop(c.in.meter.Look(&l.limits, budget, frames, c.Now.Sub(l.start), tolerance))
	}
	return Drop(c.in.meter.Take(&l.limits, budget, frames, c.Now.Sub(l.start), tolerance))
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

// seek decides who has the address that a host asks for: somebody for whom this node answers, or 0 if the question goes on.
func (l *layout) seek(p *policy.Passage, target [16]byte) (policy.Identity, policy.Verdict) {
	return l.policy.Seek(p.Source, target, p.Now)
}

// mayHave decides whether a receiver may have a frame, and names the grant.
func (l *layout) mayHave(p *policy.Passage, receiver policy.Identity) (policy.GrantID, policy.Verdict) {
	return l.policy.Egress(p, receiver)
}
