package node

import (
	"time"

	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
	"github.com/etherloom/etherloom/transport"
)

// ingress gives what one receiving goroutine of transport opens to the segments.
type ingress struct {
	d    *Daemon
	lane vswitch.Lane
	ok   bool
}

func (d *Daemon) newIngress() transport.Receiver {
	lane, ok := d.lanes.take()
	if !ok {
		d.log.Error("too many goroutines carry frames; what this one receives is dropped")
	}
	return &ingress{d: d, lane: lane, ok: ok}
}

// Receive takes one message of a peer: a tagged frame.
func (i *ingress) Receive(from identity.ID, message []byte, now time.Time) {
	vni, tag, frame, ok := parseTag(message)
	if !ok || !i.ok {
		return
	}
	s := (*i.d.byVNI.Load())[vni]
	if s == nil {
		i.unknown(now)
		return
	}
	port := (*s.links.Load())[policy.Identity(from)]
	if port == nil {
		i.unknown(now)
		return
	}
	if s.sw.Forward(port, frame, tag, i.lane, now) == vswitch.Drop(policy.UnknownGrant) {
		i.unknown(now)
	}
}

// unknown asks for the whole state, now and then: a peer believes in a segment, a membership or a grant that we do not
// know, so one of the two has missed something.
func (i *ingress) unknown(now time.Time) {
	if i.d.resync.allow(now, resyncEvery) {
		i.d.client.Resync()
	}
}

const resyncEvery = 5 * time.Second

// Close gives the lane back.
func (i *ingress) Close() {
	if i.ok {
		i.d.lanes.release(i.lane)
	}
}
