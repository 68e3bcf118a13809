package node

import (
	"time"

	"github.com/etherloom/etherloom/bridge"
)

// tellBridge tells a bridge that this gateway has joined who is reached through it. Daemon.mu is held.
func (t *trunk) tellBridge(now time.Time) error {
	if t.to.bridge == "" || !t.wire.TellsVLANs() {
		return nil
	}
	return t.wire.Tell(t.known(now))
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
