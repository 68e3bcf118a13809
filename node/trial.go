package node

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
	"github.com/etherloom/etherloom/transport"
)

// Trial is two nodes of one segment and the link between them, for measuring: a frame of the near node's host takes the way
// of every frame, admission at both ends included, to where the far node would give it to its host. There are no TAPs, and
// one goroutine does both nodes' work. It is not safe for concurrent use.
type Trial struct {
	near, far *segment
	lane      vswitch.Lane // of the near node
	loop      *transport.Loop
	arrived   counted
}

// TrialEnd is a node's station in a Trial.
type TrialEnd struct {
	MAC  ether.MAC
	Addr netip.Addr
}

// TrialBurst is how many frames that are ready at once leave together.
const TrialBurst = burst

// TrialSuperFrame is the longest super-frame, in bytes, that a host gives at once.
const TrialSuperFrame = superFrame

// counted is the far node's host.
type counted struct{ frames, octets uint64 }

// Send counts a frame that has arrived.
func (c *counted) Send(frame []byte, _ ether.Offload, _ vswitch.Tag, _ vswitch.Lane) {
	c.frames++
	c.octets += uint64(len(frame))
}

// The parties of a Trial.
const (
	trialVNI   policy.VNI      = 1
	trialMTU                   = 9000
	trialNear  policy.Identity = 1
	trialFar   policy.Identity = 2
	trialGrant policy.GrantID  = 1
)

// NewTrial joins two nodes. suite is that of their link.
func NewTrial(suite transport.Suite, near, far TrialEnd) (*Trial, error) {
	view := policy.Compile(policy.Rules{
		Stations: map[policy.Identity]*policy.Station{
			trialNear: policy.NewStation(near.MAC, []netip.Addr{near.Addr}, false),
			trialFar:  policy.NewStation(far.MAC, []netip.Addr{far.Addr}, false),
		},
		Grants: []policy.Grant{{ID: trialGrant, Segment: true, Sources: []policy.Identity{trialNear, trialFar}}},
	})
	now := time.Now()
	t := &Trial{}
	t.far = trialSegment(trialFar, &t.arrived, view, now)
	t.far.sw.FDB().Learn(far.MAC, vswitch.Place{Port: t.far.local, Who: trialFar}, now)
	t.far.d.byVNI.Store(&map[policy.VNI]*segment{trialVNI: t.far})
	var err error
	t.loop, err = transport.NewLoop(suite, transportID(trialNear), transportID(trialFar), t.far.d.newIngress(0))
	if err != nil {
		return nil, err
	}
	t.far.addTrialLink(trialNear, t.loop.From)
	t.near = trialSegment(trialNear, &counted{}, view, now)
	t.near.sw.FDB().Learn(far.MAC, vswitch.Place{Port: t.near.addTrialLink(trialFar, t.loop.Peer), Who: trialFar}, now)
	t.lane, _ = t.near.d.lanes.take(0) // the first of many
	t.near.d.lanes.state[t.lane].sender = t.loop.Sender
	return t, nil
}

// trialSegment makes a segment as openSegmentLocked does, but for its TAP; host takes what would go there.
func trialSegment(self policy.Identity, host vswitch.Egress, view *policy.View, now time.Time) *segment {
	s := &segment{
		d: &Daemon{}, vni: trialVNI, sw: vswitch.NewSegment(trialVNI, self, trialMTU, fdb.Limits{}),
		takes: ether.Offloads{Checksum: true, TSO: true, USO: true},
	}
	s.local = vswitch.NewPort("host", vswitch.Local, self, host)
	s.sw.AddPort(s.local)
	s.sw.SetPolicy(view, now)
	s.links.Store(&map[policy.Identity]*vswitch.Port{})
	return s
}

// addTrialLink makes the segment's only link.
func (s *segment) addTrialLink(to policy.Identity, peer *transport.Peer) *vswitch.Port {
	port := vswitch.NewPort("peer", vswitch.Link, to, &link{vni: s.vni, peer: peer, lanes: &s.d.lanes})
	s.sw.AddPort(port)
	s.links.Store(&map[policy.Identity]*vswitch.Port{to: port})
	return port
}

// Send carries frames of the near node's host to where their datagrams leave it, all of them together.
func (t *Trial) Send(frames [][]byte, undone ether.Offload) {
	now := time.Now()
	for _, f := range frames {
		t.near.forward(f, undone, t.lane, now)
	}
	t.loop.Sender.Flush()
}

// Receive carries what has been sent to the far node's host.
func (t *Trial) Receive() error { return t.loop.Receive() }

// Arrived tells how many frames the far node's host has been given, and how many bytes. What was cut may have been joined.
func (t *Trial) Arrived() (frames, octets uint64) { return t.arrived.frames, t.arrived.octets }

// Refused says what has not gone its way; nil if nothing has.
func (t *Trial) Refused() error {
	var errs []error
	for _, s := range []*segment{t.near, t.far} {
		for _, d := range s.sw.Drops() {
			errs = append(errs, fmt.Errorf("%d frames went nowhere: %s", d.Count, d.Drop))
		}
		if n := s.d.malformed.Load(); n > 0 {
			errs = append(errs, fmt.Errorf("%d frames asked for a checksum or a cut that cannot be", n))
		}
	}
	return errors.Join(errs...)
}

// Close ends the link.
func (t *Trial) Close() error { return t.loop.Close() }
