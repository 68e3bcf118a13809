package node

import (
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/node/herald"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
	"github.com/etherloom/etherloom/transport"
)

// ingress gives what one receiving goroutine of transport opens to the segments.
type ingress struct {
	d    *Daemon
	lane vswitch.Lane
	ok   bool

	queue  int
	sender *transport.Sender // made when another gateway hands a frame over: what else comes over a link goes to no other

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
	return &ingress{d: d, lane: lane, ok: ok, queue: queue}
}

// Receive takes one message of a peer: a tagged frame. Frames that follow each other in a TCP stream, and UDP datagrams from
// one socket to another, wait for Flush, and go on as one if the host takes that.
func (i *ingress) Receive(from identity.ID, message []byte, now time.Time) {
	if len(message) > 0 && i.control(from, message, now) {
		return
	}
	format, vni, tag, frame, ok := parseTag(message)
	if !ok || !i.ok {
		return
	}
	at := origin{from, vni, tag}
	if format == formatPartial && i.joiner.Pending() && i.at == at && i.joiner.Add(frame) {
		return
	}
	i.flush(now)
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

// control takes a message that carries no frame, and reports whether it was one.
func (i *ingress) control(from identity.ID, message []byte, now time.Time) bool {
	switch message[0] {
	case herald.Format:
		i.flush(now)
		i.notice(from, message, now)
	case formatHello:
		i.d.sentinel.hello(from, message, now)
	case formatPartner:
		i.d.sentinel.hearPartner(from, message, now)
	case formatFlows:
		i.flush(now)
		i.flows(from, message, now)
	default:
		return false
	}
	return true
}

// takes says what the TAP takes to which the segment's frames go.
func (i *ingress) takes(vni policy.VNI) ether.Offloads {
	if s := (*i.d.byVNI.Load())[vni]; s != nil {
		return s.takes
	}
	return ether.Offloads{}
}

// Flush sends on what waited for more of its stream, or for company.
func (i *ingress) Flush(now time.Time) {
	i.flush(now)
	if i.sender != nil {
		i.sender.Flush()
	}
}

func (i *ingress) flush(now time.Time) {
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
	if at.tag.Grant == 0 && i.sender == nil {
		i.sends()
	}
	// What this host sends back should fit, too: the frame is ours to change.
	l := port.Egress().(*link) //nolint:forcetypeassert // the ports of links
	ether.ClampMSS(frame, undone, l.peer.Expected()-tagSize)
	l.copies.enter(frame, undone, i.lane)
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

// sends lets what another gateway has handed over go on. Without, for now, it is lost, and its host sends again.
func (i *ingress) sends() {
	sender, err := i.d.endpoint.NewSender(i.queue)
	if err != nil {
		if i.d.senderless.allow(time.Now(), time.Minute) {
			i.d.log.Error("frames that another gateway hands over go nowhere", "err", err)
		}
		return
	}
	i.sender, i.d.lanes.state[i.lane].sender = sender, sender
}

// Close gives the lane back.
func (i *ingress) Close() {
	if i.sender != nil {
		i.sender.Close()
	}
	if i.ok {
		i.d.lanes.release(i.lane)
	}
}
