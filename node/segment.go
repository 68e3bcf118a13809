package node

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/bridge"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/node/herald"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
	"github.com/etherloom/etherloom/transport"
)

// segment is a segment as this node has it: the switch, the TAP, and a link for each other node that has to do with it.
type segment struct {
	d    *Daemon
	vni  policy.VNI
	name string
	mac  ether.MAC
	mtu  int
	// transparent says that tags inside are carried unchanged.
	transparent bool
	mode        controlv1.AddressMode
	sw          *vswitch.Segment
	tap         *bridge.TAP              // nil at a gateway that has no place of its own here
	takes       ether.Offloads           // what the host takes, or a gateway's wires
	local       *vswitch.Port            // nil without TAP
	writers     [maxLanes]*bridge.Writer // each belongs to the goroutine of its lane
	rooms       [maxLanes][]byte         // the same; scratch for frames that the host cannot take as they are
	links       atomic.Pointer[map[policy.Identity]*vswitch.Port]
	copies      copies // of the TAP's frames

	herald *herald.Herald
	news   flowNews
	done   chan struct{} // closed with the segment

	// Guarded by Daemon.mu.
	addrs  []netip.Prefix // that should be on the TAP
	fit    []netip.Prefix // of them, those that collide with nothing
	drift  []string
	stop   func() // of the DHCP client
	closed bool

	// Of the goroutine that ages: which duplicates and faults it has told of.
	found      uint64
	foundUntil time.Time
	disabled   map[*vswitch.Port]*vswitch.Fault
}

// longestCut is the longest frame, in bytes, that is cut from a super-frame where the path's MTU is 1500.
const longestCut = transport.MaxInOne - tagSize

// superFrame is the longest super-frame, in bytes, that leaves in one burst: Ethernet, IPv6 and TCP headers are in every
// frame that is cut from it.
const superFrame = transport.MaxBurst * (longestCut - (ether.HeaderLen + 40 + 32))

// openSegmentLocked makes a segment's switch, and its TAP if this machine has a place on it itself; st is nil if it is only a gateway.
func (d *Daemon) openSegmentLocked(vni policy.VNI, seg *controlv1.Segment, st *controlv1.Station) (*segment, error) {
	s := &segment{
		d: d, vni: vni, name: seg.GetName(), mtu: int(seg.GetMtu()), transparent: seg.GetTransparent(), takes: ether.Offloads{Checksum: true, TSO: true, USO: true},
		sw: vswitch.NewSegment(vni, policy.Identity(d.member.ID), int(seg.GetMtu()), d.cfg.fdb()),
	}
	s.sw.SetTransparent(s.transparent)
	s.sw.SetLimits(d.cfg.limits())
	s.links.Store(&map[policy.Identity]*vswitch.Port{})
	s.sw.Flows().RecordAll(d.cfg.Records.All)
	s.sw.SetReject(d.cfg.Policy.Reject)
	s.sw.SetLoopGuard(func() bool { return d.sentinel.look() })
	s.news = newFlowNews()
	s.sw.Flows().SetPoke(s.news.wake)
	s.herald, s.done = newHerald(s), make(chan struct{})
	if st != nil {
		if err := s.openTAPLocked(st); err != nil {
			return nil, err
		}
	}
	d.group.Go(func() error { return s.age() })
	d.group.Go(func() error { return s.announce() })
	d.log.Info("segment is here", "segment", s.name, "vni", uint32(s.vni), "port", s.hostName())
	return s, nil
}

// openTAPLocked makes the segment's port to this machine, and starts carrying frames.
func (s *segment) openTAPLocked(st *controlv1.Station) error {
	d := s.d
	s.mac, s.mode = ether.MAC(st.GetMac()), st.GetMode()
	tap, err := bridge.NewTAP(bridge.TAPConfig{
		Name: d.cfg.TAP.Name, MAC: s.mac, MTU: s.mtu, Queues: d.cfg.queues(),
		SuperFrame: superFrame, NoOffload: d.cfg.TAP.Offload == "off",
	})
	if err != nil {
		return err
	}
	s.tap, s.takes = tap, tap.Offloads()
	s.local = vswitch.NewPort(tap.Name(), vswitch.Local, policy.Identity(d.member.ID), s)
	d.dressLocked(s, s.local)
	s.sw.AddPort(s.local)
	for i, q := range tap.Queues() {
		d.group.Go(func() error { return s.carry(q, i) })
	}
	if err := tap.Up(); err != nil {
		s.close()
		return fmt.Errorf("set %s up: %w", tap.Name(), err)
	}
	return nil
}

// hostName is the name of the segment's TAP; "" if there is none.
func (s *segment) hostName() string {
	if s.tap == nil {
		return ""
	}
	return s.tap.Name()
}

// Send gives a frame to the host. It is the way out of the local port.
func (s *segment) Send(frame []byte, undone ether.Offload, _ vswitch.Tag, n vswitch.Lane) {
	w := s.writers[n]
	if w == nil {
		queues := s.tap.Queues()
		w = queues[s.d.lanes.state[n].queue%len(queues)].NewWriter()
		s.writers[n] = w
	}
	s.copies.leave(frame, undone, n)
	s.rooms[n] = give(w, s.takes, frame, undone, s.rooms[n])
}

// carry takes frames from one queue of the TAP through the switch, until the TAP is closed.
func (s *segment) carry(q *bridge.Queue, queue int) error {
	if err := s.d.carry(q, queue, s.forward); err != nil {
		s.lost(err)
	}
	return nil
}

// forward gives the switch a frame of the host's.
func (s *segment) forward(frame []byte, undone ether.Offload, n vswitch.Lane, now time.Time) {
	s.copies.enter(frame, undone, n)
	if undone, ok := s.d.travelling(frame, undone); ok {
		s.sw.Forward(s.local, frame, undone, vswitch.Tag{}, n, now)
	}
}

// lost says that the TAP is there no more. It is not made again: somebody did not want it.
func (s *segment) lost(err error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if !s.closed {
		s.d.problemLocked("port "+s.tap.Name(), unread(s.tap.Name(), "the TAP of segment "+s.name+", which is cut off", err))
	}
}

// age collects dead FDB entries, and tells of duplicates and faults, until the segment closes.
func (s *segment) age() error {
	t := time.NewTicker(max(s.d.cfg.Timers.FDBAge/10, time.Second))
	defer t.Stop()
	faults := time.NewTicker(faultEvery)
	defer faults.Stop()
	for {
		select {
		case <-s.d.ctx.Done():
			return nil
		case <-s.done:
			return nil
		case now := <-faults.C:
			s.tellFaults(now)
		case now := <-t.C:
			s.d.mu.Lock()
			closed := s.closed
			s.d.mu.Unlock()
			if closed {
				return nil
			}
			s.sw.Age(now)
			s.tellDuplicates(now)
		}
	}
}

// setLinksLocked makes the segment's links be those to the nodes that this one has anything to do with on it, or the machines behind
// them.
func (s *segment) setLinksLocked(nodes []policy.Identity, names map[policy.Identity]string) {
	next := make(map[policy.Identity]*vswitch.Port, len(nodes))
	now := *s.links.Load()
	var fresh, gone []*vswitch.Port
	for _, id := range nodes {
		peer := s.d.endpoint.Peer(transportID(id))
		if peer == nil {
			continue
		}
		if old := now[id]; old != nil && old.Egress().(*link).peer == peer { //nolint:forcetypeassert // made below
			next[id] = old
			continue
		}
		next[id] = vswitch.NewPort(names[id], vswitch.Link, id, &link{vni: s.vni, peer: peer, lanes: &s.d.lanes})
		s.d.dressLocked(s, next[id])
		fresh = append(fresh, next[id])
	}
	s.sw.AddPort(fresh...)
	s.links.Store(&next)
	for id, port := range now {
		if next[id] != port {
			gone = append(gone, port)
		}
	}
	s.sw.RemovePort(gone...)
}

// setAddressesLocked puts the addresses on the TAP that the node has on this segment, unless they collide with another
// network of this machine. Routes are read anew when that has changed them.
func (s *segment) setAddressesLocked(want []netip.Prefix, routes *bridge.Routes) {
	if s.tap == nil {
		return
	}
	s.addrs = want
	var fit []netip.Prefix
	var errs []error
	for _, p := range want {
		clash, err := routes.Overlap(p.Masked(), s.tap.Index())
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
	errs = append(errs, s.tap.SetAddresses(fit))
	if !slices.Equal(fit, s.fit) {
		*routes = bridge.Routes{} // the next segment's must not collide with these
	}
	s.fit = fit
	s.d.problemLocked("segment "+s.name, errors.Join(errs...))
}

// close takes the segment out of the host. Daemon.mu is held.
func (s *segment) close() {
	s.closed = true
	close(s.done)
	s.d.lastRecordsLocked(s)
	if s.stop != nil {
		s.stop()
	}
	name := s.hostName()
	if s.tap != nil {
		s.tap.Close()
	}
	s.d.log.Info("segment is gone", "segment", s.name, "vni", uint32(s.vni), "port", name)
}

// followLocked looks what others have done to the TAP.
func (s *segment) followLocked() {
	if s.tap == nil {
		return
	}
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
