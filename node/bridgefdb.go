package node

import (
	"time"

	"github.com/etherloom/etherloom/bridge"
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
	known := t.known(now)
	t.d.mu.Unlock()
	t.setUntold(w.Tell(known))
}

// setUntold takes down what the bridge cannot be told; nil: nothing.
func (t *trunk) setUntold(err error) {
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	t.untold = err
}

// known is who is reached through this gateway: on each VLAN those who have anything to do with machines there, for as long as this gateway
// carries that VLAN's frames. Nobody is known of a transparent segment: behind which inner tags its machines are is the customer's.
func (t *trunk) known(now time.Time) (out []bridge.Known) {
	for _, a := range t.list {
		if a.seg.transparent || !a.port.Carries(now) {
			continue
		}
		for mac := range a.reached(now) {
			out = append(out, a.tagging.Known(mac))
		}
	}
	return out
}
