package node

import (
	"time"

	"github.com/etherloom/etherloom/ether"
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

	joiner ether.Joiner
	at     origin // of what is in joiner
}

// origin is what frames must have in common to be joined.
type origin struct {
	from identity.ID
	vni  policy.VNI
	tag  vswitch.Tag
}

func (d *Daemon) newIngress(queue int) transport.Receiver {
	lane, ok := d.lanes.take(queue)
	if !ok {
		d.log.Error("too many goroutines carry frames; what this one receives is dropped")
	}
	return &ingress{d: d, lane: lane, ok: ok}
}

// Receive takes one message of a peer: a tagged frame. Frames that follow each other in a TCP stream, and UDP datagrams from
// one socket to another, wait for Flush, and go on as one if the host takes that.
func (i *ingress) Receive(from identity.ID, message []byte, now time.Time) {
	format, vni, tag, frame, ok := parseTag(message)
	if !ok || !i.ok {
		return
	}
	at := origin{from, vni, tag}
	if format == formatPartial && i.joiner.Pending() && i.at == at && i.joiner.Add(frame) {
		return
	}
	i.Flush(now)
	if format == formatWhole {
		i.forward(at, frame, ether.Offload{}, now)
		return
	}
	i.at, i.joiner.Takes = at, i.takes(vni)
	if i.joiner.Add(frame) {
		return
	}
	undone, ok := ether.Partial(frame)
	if !ok {
		i.d.malformed.Add(1)
		return
	}
	i.forward(at, frame, undone, now)
}

// takes says what the TAP takes to which the segment's frames go.
func (i *ingress) takes(vni policy.VNI) ether.Offloads {
	if s := (*i.d.byVNI.Load())[vni]; s != nil {
		return s.takes
	}
	return ether.Offloads{}
}

// Flush sends on what waited for more of its stream.
func (i *ingress) Flush(now time.Time) {
	if frame, undone := i.joiner.Take(); frame != nil {
		i.forward(i.at, frame, undone, now)
	}
}

func (i *ingress) forward(at origin, frame []byte, undone ether.Offload, now time.Time) {
	s := (*i.d.byVNI.Load())[at.vni]
	if s == nil {
		i.unknown(now)
		return
	}
	port := (*s.links.Load())[policy.Identity(at.from)]
	if port == nil {
		i.unknown(now)
		return
	}
	// What this host sends back should fit, too: the frame is ours to change.
	ether.ClampMSS(frame, undone, port.Egress().(*link).peer.Expected()-tagSize) //nolint:forcetypeassert // the ports of links
	if s.sw.Forward(port, frame, undone, at.tag, i.lane, now) == vswitch.Drop(policy.UnknownGrant) {
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
