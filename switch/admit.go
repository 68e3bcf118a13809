//go:build !openswitch

package vswitch

import (
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// admit decides whether the frame may be in the switch at all.
func (l *layout) admit(c *carriage) Drop {
	f := &c.Frame
	if len(f.Payload) > l.mtu && l.tooLong(f, c.undone) {
		return DropLong
	}
	// IEEE 802.1Q section 8.6.3: a bridge never relays frames to the addresses of table 8-1.
	if f.Dst.IsReserved() {
		return DropReserved
	}
	// A tag would choose a VLAN behind a far gateway; the mapping is made at attachments alone. Parse has taken one tag off, so
	// a type that is still 802.1Q is a second one. In a transparent segment no tag chooses anything, and f is what is behind them.
	if !l.tags && (f.VLAN() != 0 || f.Type == ether.TypeQinQ || f.Type == ether.TypeVLAN) {
		return DropVLAN
	}
	if !f.Src.IsStation() {
		return DropSourceAddress
	}
	if drop := l.identify(c); drop != Forwarded {
		return drop
	}
	station := l.policy.Station(c.Source)
	if station == nil {
		return Drop(policy.NoStation)
	}
	var v policy.Verdict
	if c.budget, v = station.Check(f, c.undone.Size != 0); v != policy.Pass {
		return Drop(v)
	}
	return Drop(c.Settle())
}

// identify says from whom a frame is. The session proves who a peer is; a frame over it can be from that peer, or from a machine for
// which this peer is a gateway, and from nobody else. On a VLAN there is no proof but the MAC.
func (l *layout) identify(c *carriage) Drop {
	if c.in.Kind == Link {
		if !l.policy.MaySpeak(c.in.Identity, c.Source) {
			return DropIdentity
		}
		return Forwarded
	}
	c.Source = c.in.Identity
	if c.in.Kind == Attached {
		who, v := l.policy.Behind(c.in.Identity, c.Frame.Src)
		if v != policy.Pass {
			return Drop(v)
		}
		c.Source = who
	}
	return Forwarded
}

// lateTolerance is how many times as much a receiver bears at once as the sender's own node does.
const lateTolerance = 2

// meter holds the frame against what its source may send in a second.
func (l *layout) meter(c *carriage) Drop {
	if c.budget == policy.Unlimited {
		return Forwarded
	}
	frames, tolerance := 1, 1
	if size := int(c.undone.Size); size > 0 {
		frames = (len(c.Frame.Payload) + size - 1) / size
	}
	measured := l.meters[c.Source]
	if measured == nil {
		return Forwarded // nobody here has anything to do with it, so it goes nowhere
	}
	meter := &measured.Meter
	if c.in.Kind == Link {
		tolerance = lateTolerance
		if l.copies(c) { // a receiver takes one, so each copy counts by itself
			meter = measured.of(c.grant)
		}
	}
	if c.asked != nil {
		return Drop(meter.Look(&l.limits, c.budget, frames, c.Now.Sub(l.start), tolerance))
	}
	return Drop(meter.Take(&l.limits, c.budget, frames, c.Now.Sub(l.start), tolerance))
}

// tooLong reports whether a frame, or those that a super-frame stands for, is longer than this segment's frames are. A host is
// not to be given what its network would not have carried: what the MTU promises, programs build upon.
func (l *layout) tooLong(f *ether.Frame, undone ether.Offload) bool {
	cut, ok := ether.Cut(f.Data, undone, len(f.Data)) // false of a frame that stands for itself
	return !ok || cut.Len()-(len(f.Data)-len(f.Payload)) > l.mtu
}

// seek decides who has the address that a host asks for: somebody for whom this node answers, or 0 if the question goes on.
func (l *layout) seek(p *policy.Passage, target [16]byte) (policy.Identity, policy.Verdict) {
	return l.policy.Seek(p.Source, target, p.Now)
}

// mayHave decides whether a receiver may have a frame, and names the grant. What comes from a peer names one itself, and is held
// against it by what is known here.
func (l *layout) mayHave(c *carriage, receiver policy.Identity) (policy.GrantID, policy.Verdict) {
	if c.in.Kind != Link {
		return l.policy.Egress(&c.Passage, receiver)
	}
	// Of a frame for many there is a copy for each grant by which some here may have it, and each of them takes one.
	if l.copies(c) {
		if grant := l.policy.Choice(&c.Passage, receiver); grant != 0 && grant != c.grant {
			return 0, policy.OtherCopy
		}
	}
	return c.grant, l.policy.Ingress(&c.Passage, receiver, c.grant)
}

// byItself reports whether this node alone can judge a frame towards a receiver, without another gateway that may know of its flow.
func (l *layout) byItself(c *carriage, receiver policy.Identity) bool {
	return l.policy.ByItself(&c.Passage, receiver)
}

// copies reports whether a peer may have sent several copies of a frame, because not this node alone is to have it.
func (l *layout) copies(c *carriage) bool { return len(l.own) > 1 && c.Frame.Dst.IsGroup() }

// everybodyHears reports whether another copy of the frame is for those behind an attachment whom nobody named.
func (l *layout) everybodyHears(c *carriage, out *Port) bool {
	return l.policy.Choice(&c.Passage, out.Identity) != 0
}
