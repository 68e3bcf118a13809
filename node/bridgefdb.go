package node

import (
	"time"

	"github.com/etherloom/etherloom/bridge"
	"github.com/etherloom/etherloom/policy"
)

// teller is a wire that may be a port of a bridge.
type teller interface {
	TellsVLANs() bool
	Tell(want []bridge.Known) error
}

// tellBridge tells a bridge that this gateway has joined who is reached through it. A large bridge takes its time, in which Daemon.mu is not
// held: a change of policy is not to wait for it.
func (t *trunk) tellBridge(w teller, now time.Time) {
	if t.to.bridge == "" || !w.TellsVLANs() {
		t.setUntold(nil)
		return
	}
	t.d.mu.Lock()
	sides := t.sidesLocked()
	t.d.mu.Unlock()
	t.setUntold(w.Tell(known(sides, now)))
}

// setUntold takes down what the bridge cannot be told; nil: nothing.
func (t *trunk) setUntold(err error) {
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	t.untold = err
}

// side is a VLAN of a bridge, and its other gateways.
type side struct {
	*attachment

	others []policy.Identity
}

func (t *trunk) sidesLocked() (out []side) {
	for _, a := range t.list {
		out = append(out, side{a, t.d.otherGateways(a.id)})
	}
	return out
}

// known is who is reached through this gateway: on each VLAN those who have anything to do with machines there, for as long as this gateway
// carries that VLAN's frames. Nobody is known of a transparent segment: behind which inner tags its machines are is the customer's.
func known(sides []side, now time.Time) (out []bridge.Known) {
	for _, s := range sides {
		if s.seg.transparent || !s.port.Carries(now) {
			continue
		}
		for mac := range s.reachedBeside(s.others, now) {
			out = append(out, s.tagging.Known(mac))
		}
	}
	return out
}
