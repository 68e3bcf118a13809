package node

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/bridge"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/internal/quietfd"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
	"github.com/etherloom/etherloom/transport"
)

// segment is a segment as this node has it: the switch, the TAP, and a link for each other member.
type segment struct {
	d       *Daemon
	vni     policy.VNI
	name    string
	mac     ether.MAC
	mtu     int
	mode    controlv1.AddressMode
	sw      *vswitch.Segment
	tap     *bridge.TAP
	takes   ether.Offloads // what the host takes
	local   *vswitch.Port
	writers [maxLanes]*bridge.Writer // each belongs to the goroutine of its lane
	rooms   [maxLanes][]byte         // the same; scratch for frames that the host cannot take as they are
	links   atomic.Pointer[map[policy.Identity]*vswitch.Port]

	// Guarded by Daemon.mu.
	addrs  []netip.Prefix // that should be on the TAP
	fit    []netip.Prefix // of them, those that collide with nothing
	drift  []string
	stop   func() // of the DHCP client
	closed bool
}

// longestCut is the longest frame, in bytes, that is cut from a super-frame where the path's MTU is 1500.
const longestCut = transport.MaxInOne - tagSize

// superFrame is the longest super-frame, in bytes, that leaves in one burst: Ethernet, IPv6 and TCP headers are in every
// frame that is cut from it.
const superFrame = transport.MaxBurst * (longestCut - (ether.HeaderLen + 40 + 32))

// burst is how many frames are read before what is gathered must leave.
const burst = 32

// openSegmentLocked makes a segment's TAP and switch, and starts carrying frames.
func (d *Daemon) openSegmentLocked(vni policy.VNI, seg *controlv1.Segment, st *controlv1.Station) (*segment, error) {
	s := &segment{
		d: d, vni: vni, name: seg.GetName(), mac: ether.MAC(st.GetMac()), mtu: int(seg.GetMtu()), mode: st.GetMode(),
		sw: vswitch.NewSegment(vni, policy.Identity(d.member.ID), int(seg.GetMtu()), fdb.Limits{Age: d.cfg.Timers.FDBAge}),
	}
	s.sw.SetLimits(d.cfg.limits())
	s.links.Store(&map[policy.Identity]*vswitch.Port{})
	s.sw.Flows().RecordAll(d.cfg.Records.All)
	s.sw.SetReject(d.cfg.Policy.Reject)
	tap, err := bridge.NewTAP(bridge.TAPConfig{
		Name: d.cfg.TAP.Name, MAC: s.mac, MTU: s.mtu, Queues: d.cfg.queues(),
		SuperFrame: superFrame, NoOffload: d.cfg.TAP.Offload == "off",
	})
	if err != nil {
		return nil, err
	}
	s.tap, s.takes = tap, tap.Offloads()
	s.local = vswitch.NewPort(tap.Name(), vswitch.Local, policy.Identity(d.member.ID), s)
	s.sw.AddPort(s.local)
	for i, q := range tap.Queues() {
		d.group.Go(func() error { return s.carry(q, i) })
	}
	d.group.Go(func() error { return s.age() })
	if err := tap.Up(); err != nil {
		s.close()
		return nil, fmt.Errorf("set %s up: %w", tap.Name(), err)
	}
	d.log.Info("segment is here", "segment", s.name, "vni", uint32(vni), "port", tap.Name())
	return s, nil
}

// Send gives a frame to the host. It is the way out of the local port.
func (s *segment) Send(frame []byte, undone ether.Offload, _ vswitch.Tag, n vswitch.Lane) {
	w := s.writers[n]
	if w == nil {
		queues := s.tap.Queues()
		w = queues[s.d.lanes.state[n].queue%len(queues)].NewWriter()
		s.writers[n] = w
	}
	s.rooms[n] = give(w, s.takes, frame, undone, s.rooms[n])
}

// writer is a way into a host. That it does not want a frame, because its device is down, is nothing to us.
type writer interface {
	Write(frame []byte, undone ether.Offload) error
}

// give writes a frame, and does first what is left undone on it and the host cannot do. The frame is borrowed, so that is
// done in room, which give may grow and returns.
func give(w writer, have ether.Offloads, frame []byte, undone ether.Offload, room []byte) []byte {
	if have.Cover(undone) {
		_ = w.Write(frame, undone)
		return room
	}
	each := undone
	each.Size = 0
	cut, super := ether.Cut(frame, undone, len(frame))
	if super {
		room = cut.Next(room[:0])
	} else {
		room = append(room[:0], frame...)
	}
	for next := room; next != nil; next = cut.Next(room[:0]) {
		room = next
		if have.Cover(each) {
			_ = w.Write(room, each)
			continue
		}
		ether.Complete(room, each)
		_ = w.Write(room, ether.Offload{})
	}
	return room
}

// carry takes frames from one queue of the TAP, with a number, through the switch, until the TAP is closed.
func (s *segment) carry(q *bridge.Queue, queue int) error {
	n, ok := s.d.lanes.take(queue)
	if !ok {
		return errors.New("too many goroutines carry frames: lower tap.queues")
	}
	defer s.d.lanes.release(n)
	sender, err := s.d.endpoint.NewSender(queue)
	if err != nil {
		return err
	}
	defer sender.Close()
	s.d.lanes.state[n].sender = sender
	buf := make([]byte, bridge.MaxFrame)
	for {
		frame, undone, err := q.Read(buf)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				s.lost(err)
			}
			return nil
		}
		now := time.Now()
		s.forward(frame, undone, n, now)
		// Small frames that are ready together leave together. A super-frame is a burst by itself.
		more := burst
		for ; more > 0 && len(frame) <= small; more-- {
			if frame, undone, ok = q.TryRead(buf); !ok {
				break
			}
			s.forward(frame, undone, n, now)
		}
		sender.Flush()
		if more == 0 {
			// The host sends faster than this goroutine carries. Who is to receive it may run on the same processor, here or
			// at the other end of a cable: what cannot be taken there in time was carried in vain.
			quietfd.Yield()
		}
	}
}

// small is the length of a frame of which more than one may fit into a datagram, or be a reason to wait for more.
const small = 2048

// forward gives the switch a frame of the host's.
func (s *segment) forward(frame []byte, undone ether.Offload, n vswitch.Lane, now time.Time) {
	undone, ok := ether.Settle(frame, undone)
	if ok && undone.Size > 0 {
		_, ok = ether.Cut(frame, undone, longestCut)
	}
	if !ok {
		s.d.malformed.Add(1)
		return
	}
	s.sw.Forward(s.local, frame, undone, vswitch.Tag{}, n, now)
}

// lost says that the TAP is there no more. It is not made again: somebody did not want it.
func (s *segment) lost(err error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if !s.closed {
		s.d.problemLocked("port "+s.tap.Name(), fmt.Errorf("somebody else has removed the TAP of segment %s, which is cut off "+
			"until the daemon is started again: %w", s.name, err))
	}
}

// age collects dead FDB entries, until the daemon stops.
func (s *segment) age() error {
	t := time.NewTicker(max(s.d.cfg.Timers.FDBAge/10, time.Second))
	defer t.Stop()
	for {
		select {
		case <-s.d.ctx.Done():
			return nil
		case now := <-t.C:
			s.d.mu.Lock()
			closed := s.closed
			s.d.mu.Unlock()
			if closed {
				return nil
			}
			s.sw.Age(now)
		}
	}
}

// setLinksLocked makes the segment's links be those to the nodes that this one has anything to do with on it.
func (s *segment) setLinksLocked(neighbours []policy.Identity, names map[policy.Identity]string) {
	next := make(map[policy.Identity]*vswitch.Port, len(neighbours))
	now := *s.links.Load()
	for _, id := range neighbours {
		if id == policy.Identity(s.d.member.ID) {
			continue
		}
		peer := s.d.endpoint.Peer(transportID(id))
		if peer == nil {
			continue
		}
		if old := now[id]; old != nil && old.Egress().(*link).peer == peer { //nolint:forcetypeassert // made below
			next[id] = old
			continue
		}
		next[id] = vswitch.NewPort(names[id], vswitch.Link, id, &link{vni: s.vni, peer: peer, lanes: &s.d.lanes})
		s.sw.AddPort(next[id])
	}
	s.links.Store(&next)
	for id, port := range now {
		if next[id] != port {
			s.sw.RemovePort(port)
		}
	}
}

// setAddressesLocked puts the addresses on the TAP that the node has on this segment, unless they collide with another
// network of this machine.
func (s *segment) setAddressesLocked(want []netip.Prefix) {
	s.addrs = want
	var fit []netip.Prefix
	var errs []error
	for _, p := range want {
		clash, err := bridge.Overlap(p.Masked(), s.tap.Index())
		if err == nil && clash != "" {
			err = fmt.Errorf("address %s is not set, because its network collides with %s: "+
				"give the segment another prefix, or this machine another address", p, clash)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fit = append(fit, p)
	}
	s.fit = fit
	errs = append(errs, s.tap.SetAddresses(fit))
	s.d.problemLocked("segment "+s.name, errors.Join(errs...))
}

// close takes the segment out of the host. Daemon.mu is held.
func (s *segment) close() {
	s.closed = true
	s.d.lastRecordsLocked(s)
	if s.stop != nil {
		s.stop()
	}
	s.tap.Close()
	s.d.log.Info("segment is gone", "segment", s.name, "vni", uint32(s.vni), "port", s.tap.Name())
}

// followLocked looks what others have done to the TAP.
func (s *segment) followLocked() {
	if changed, err := s.tap.Follow(); err != nil {
		s.d.problemLocked("segment "+s.name, err)
	} else if changed {
		s.d.log.Info("TAP has been renamed or moved", "segment", s.name, "port", s.tap.Name())
	}
	drift := s.tap.Drift()
	if !slices.Equal(drift, s.drift) {
		for _, text := range drift {
			if !slices.Contains(s.drift, text) {
				s.d.log.Warn("somebody else has changed a TAP", "port", s.tap.Name(), "reason", text)
			}
		}
		s.drift = drift
	}
}
