package node

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/etherloom/etherloom/bridge"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/reading"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
	"github.com/etherloom/etherloom/transport"
)

// take verifies a delta from a controller and applies it.
func (d *Daemon) take(delta *controlv1.Delta) error {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	held, err := d.reader.Apply(d.held.Load(), delta, now)
	if errors.Is(err, state.ErrOld) {
		return nil // another controller was quicker
	}
	if err != nil {
		return err
	}
	if held == d.held.Load() {
		return nil
	}
	d.held.Store(held)
	d.saveStateLocked()
	return d.applyHeldLocked(now)
}

// To apply the state of a large network takes a tenth of a second or two. Its machines come and go more often than that, perhaps, and then to apply
// each change by itself would take ever longer: the last one, by which somebody is cut off, would wait for all before. So one that comes while the
// daemon rests from the one before waits, for as long as that took at most, and is applied with those that follow.
const (
	largeState = 4096 // resources; a smaller state is applied at once
	restMost   = 500 * time.Millisecond
)

// applyHeldLocked applies the state that is held now, or soon.
func (d *Daemon) applyHeldLocked(now time.Time) error {
	held := d.held.Load()
	if wait := d.rested.Sub(now); wait > 0 && len(held.State) >= largeState && d.ctx.Err() == nil {
		if d.soon == nil {
			d.soon = time.AfterFunc(wait, d.applySoon)
		}
		return nil
	}
	if d.soon != nil {
		d.soon.Stop()
		d.soon = nil
	}
	contents, err := held.State.Contents()
	if err != nil {
		return err
	}
	d.contents = contents
	d.applyLocked(now)
	ended := time.Now()
	d.rested = ended.Add(min(ended.Sub(now), restMost))
	return nil
}

// applySoon applies what has come while the daemon rested.
func (d *Daemon) applySoon() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.soon == nil {
		return // it was applied meanwhile
	}
	d.soon, d.rested = nil, time.Time{}
	d.problemLocked("state", d.applyHeldLocked(time.Now())) // each resource was looked at when it came
}

// applyLocked makes the daemon be what the state says. What takes away comes first: from its end on no frame passes that
// the state does not allow. A daemon that stops applies nothing: what it opened would stay in the host.
func (d *Daemon) applyLocked(now time.Time) {
	c := d.contents
	if c == nil || c.Settings == nil || c.Self == nil || d.ctx.Err() != nil {
		return
	}
	d.applied++
	d.applySettingsLocked(c)
	views := d.viewsLocked()
	for vni, s := range d.segments {
		v := views[vni]
		if v == nil {
			v = policy.Compile(policy.Rules{Generation: d.applied})
		}
		s.sw.SetPolicy(v, now)
	}
	d.endpoint.Discard()
	d.problemLocked("peers", d.endpoint.SetPeers(peersOf(c)))
	d.endpoint.CloseExpired()
	d.endpoint.SetRelays(relaysOf(c))

	d.applySegmentsLocked(views, now)
	d.applyTrunksLocked()
	d.forgetPortsLocked()
	d.applyLeasesLocked(now)
	d.retainUsesLocked()
	d.publishLocked()
	d.scheduleLocked(views, now)
}

func (d *Daemon) applySettingsLocked(c *state.Contents) {
	life := c.Settings.GetCertificateLifetime().AsDuration()
	d.settle.Store(int64(min(settleMost, life/4)))
	revoked := make(map[identity.ID]time.Time, len(c.Revocations))
	for id, r := range c.Revocations {
		revoked[id] = time.Time{}
		if r.GetNotBefore() != nil {
			revoked[id] = r.GetNotBefore().AsTime()
		}
	}
	v := *d.verifier.Load()
	v.Grace = c.Settings.GetGrace().AsDuration()
	v.LastController = func() time.Time { return d.client.LastHeard(time.Duration(d.settle.Load())) }
	v.Revoked = func(cert *identity.Certificate) bool {
		before, ok := revoked[cert.Name.ID]
		return ok && (before.IsZero() || cert.NotBefore.Before(before))
	}
	d.verifier.Store(&v)
	d.endpoint.SetIdle(c.Settings.GetLinkIdle().AsDuration())
	d.endpoint.SetHandshakeNonce(c.Self.GetHandshakeNonce())
	d.client.SetControllers(c.Settings.GetControllers())
	d.keepMembershipLocked(c)
}

// settleMost is how long contact with a controller must last to count: the peers need as long to renew their certificates.
const settleMost = 10 * time.Second

// viewsLocked compiles policy for every segment that the state names.
func (d *Daemon) viewsLocked() map[policy.VNI]*policy.View {
	c := d.contents
	rules := make(map[policy.VNI]*policy.Rules, len(c.Segments))
	for vni := range c.Segments {
		rules[policy.VNI(vni)] = &policy.Rules{
			Generation: d.applied, Self: d.self(), Expires: d.held.Load().Expires(), Stations: make(map[policy.Identity]*policy.Station),
			Uses: d.usesLocked(policy.VNI(vni)),
		}
	}
	for id, m := range c.Machines {
		if r := rules[policy.VNI(m.GetVni())]; r != nil {
			r.Stations[policy.Identity(id)] = reading.Machine(m)
		}
	}
	for vni, r := range rules {
		letLease(r, c, uint32(vni))
	}
	for _, p := range append(slices.Collect(maps.Values(c.Peers)), c.Self) {
		for _, st := range p.GetStations() {
			if r := rules[policy.VNI(st.GetVni())]; r != nil {
				r.Stations[policy.Identity(p.GetId())] = reading.Station(st)
			}
		}
	}
	for id, g := range c.Grants {
		r := rules[policy.VNI(g.GetVni())]
		if r == nil {
			continue
		}
		grant := policy.Grant{ID: policy.GrantID(id), Segment: true, Sources: identities(g.GetSources())}
		if g.GetExpires() != nil {
			grant.Expires = g.GetExpires().AsTime()
		}
		r.Grants = append(r.Grants, grant)
	}
	for _, g := range c.Reaches {
		r := rules[policy.VNI(g.GetVni())]
		if r == nil {
			continue
		}
		if grant, ok := reachOf(g); ok {
			r.Grants = append(r.Grants, grant)
		}
	}
	views := make(map[policy.VNI]*policy.View, len(rules))
	for vni, r := range rules {
		letRoute(r.Stations, c.Segments[uint32(vni)])
		views[vni] = policy.Compile(*r)
	}
	return views
}

// reachOf reads a grant with limits; false if it allows nothing that this program knows.
func reachOf(g *controlv1.Reach) (policy.Grant, bool) {
	grant := policy.Grant{
		ID: policy.GrantID(g.GetId()), Segment: g.GetSegment(), Sources: identities(g.GetSources()), Targets: identities(g.GetTargets()),
		Both: g.GetBoth(), Observe: g.GetObserve(),
	}
	if g.GetExpires() != nil {
		grant.Expires = g.GetExpires().AsTime()
	}
	var ok bool
	grant.Allow, ok = reading.Terms(g.GetAllow())
	return grant, ok
}

func identities(ids []uint32) []policy.Identity {
	var out []policy.Identity
	for _, id := range ids {
		out = append(out, policy.Identity(id))
	}
	return out
}

// letRoute tells the routers among a segment's stations which addresses are at home on it, and so not theirs to forward from.
func letRoute(stations map[policy.Identity]*policy.Station, seg *controlv1.Segment) {
	var home []netip.Prefix
	for _, text := range []string{seg.GetIpv4Prefix(), seg.GetIpv6Prefix()} {
		if p, err := netip.ParsePrefix(text); err == nil {
			home = append(home, p)
		}
	}
	var taken []netip.Addr
	for _, s := range stations {
		taken = append(taken, s.Addresses()...)
	}
	for _, s := range stations {
		if s.Roles.Has(policy.Router) {
			s.Route(home, taken)
		}
	}
}

// transportID and its kin: the two worlds number identities alike, each by a type of its own.
func transportID(id policy.Identity) identity.ID { return identity.ID(id) }

func peersOf(c *state.Contents) []transport.PeerConfig {
	var out []transport.PeerConfig
	for id, p := range c.Peers {
		out = append(out, transport.PeerConfig{
			ID: id, Name: p.GetName(), Static: identity.StaticPublicKey(p.GetStaticKey()), AES: p.GetAes(),
			HandshakeNonce: p.GetHandshakeNonce(), RelaySlot: uint16(p.GetRelaySlot()), //nolint:gosec // checked by control/state
		})
	}
	return out
}

func relaysOf(c *state.Contents) []transport.RelayConfig {
	var out []transport.RelayConfig
	for name, r := range c.Relays {
		out = append(out, transport.RelayConfig{
			Name: name, Hosts: r.GetHosts(), Port: uint16(r.GetPort()), ProbePort: uint16(r.GetProbePort()), //nolint:gosec // checked by control/state
			Username: r.GetUsername(), Password: r.GetPassword(), Slot: uint16(c.Self.GetRelaySlot()), //nolint:gosec // checked by control/state
		})
	}
	return out
}

// wantedLocked are the segments that this node is a member of now, each with its own station, and those to which it is a gateway,
// where that may be nil.
func (d *Daemon) wantedLocked(views map[policy.VNI]*policy.View, now time.Time) map[policy.VNI]*controlv1.Station {
	wanted := make(map[policy.VNI]*controlv1.Station)
	for _, a := range d.attachmentsLocked() {
		if vni := policy.VNI(a.GetVni()); views[vni] != nil {
			wanted[vni] = nil
		}
	}
	for _, st := range d.contents.Self.GetStations() {
		vni := policy.VNI(st.GetVni())
		if v := views[vni]; v != nil && len(v.Neighbours(d.self(), now)) > 0 {
			wanted[vni] = st
		}
	}
	return wanted
}

// fits reports whether a segment that is open is what is wanted. A TAP keeps its MAC for life; with another it is another TAP.
func (s *segment) fits(st *controlv1.Station, seg *controlv1.Segment) bool {
	if s.mtu != int(seg.GetMtu()) || s.transparent != seg.GetTransparent() || (s.tap == nil) != (st == nil) {
		return false
	}
	return st == nil || s.mac == ether.MAC(st.GetMac())
}

// applySegmentsLocked opens the segments that this node has to do with now, and closes the others.
func (d *Daemon) applySegmentsLocked(views map[policy.VNI]*policy.View, now time.Time) {
	c, routes := d.contents, new(bridge.Routes)
	wanted := d.wantedLocked(views, now)
	for vni, s := range d.segments {
		if st, is := wanted[vni]; !is || !s.fits(st, c.Segments[uint32(vni)]) {
			s.close()
			delete(d.segments, vni)
			d.problemLocked("segment "+s.name, nil)
		}
	}
	maps.DeleteFunc(d.attempts, func(about string, _ *attempt) bool {
		return strings.HasPrefix(about, "segment ") && !d.wantsLocked(wanted, about)
	})
	for _, vni := range slices.Sorted(maps.Keys(wanted)) {
		seg, st := c.Segments[uint32(vni)], wanted[vni]
		s := d.segments[vni]
		if s == nil {
			var err error
			if s, err = d.openSegmentLocked(vni, seg, st); err != nil {
				d.problemLocked("segment "+seg.GetName(), fmt.Errorf("segment %s is not here: %w", seg.GetName(), err))
				d.failedLocked("segment "+seg.GetName(), err, now)
				continue
			}
			d.segments[vni] = s
			delete(d.attempts, "segment "+s.name)
		}
		d.applySegmentLocked(s, st, views[vni], routes, now)
	}
}

// wantsLocked reports whether what is about a segment is about one of these.
func (d *Daemon) wantsLocked(wanted map[policy.VNI]*controlv1.Station, about string) bool {
	for vni := range wanted {
		if about == "segment "+d.contents.Segments[uint32(vni)].GetName() {
			return true
		}
	}
	return false
}

func (d *Daemon) applySegmentLocked(s *segment, st *controlv1.Station, v *policy.View, routes *bridge.Routes, now time.Time) {
	if s.sw.Policy() != v { // it has just been opened
		s.sw.SetPolicy(v, now)
	}
	names := make(map[policy.Identity]string)
	for id, p := range d.contents.Peers {
		names[policy.Identity(id)] = p.GetName()
	}
	s.setLinksLocked(v.Links(d.self(), now), names)
	if s.tap == nil {
		return
	}
	s.setModeLocked(st.GetMode())
	if s.mode != controlv1.AddressMode_ADDRESS_MODE_NONE {
		s.setAddressesLocked(reading.Prefixes(st), routes)
	} else {
		s.setAddressesLocked(nil, routes)
	}
	if err := s.tap.SetCarrier(d.held.Load().Expires().After(now)); err != nil {
		d.problemLocked("segment "+s.name, err)
	}
}

// publishLocked tells everybody else what the daemon is now: the receiving goroutines, the names, the underlay.
func (d *Daemon) publishLocked() {
	byVNI := maps.Clone(d.segments)
	d.byVNI.Store(&byVNI)
	d.publishNamesLocked()
	d.setUnderlayLocked()
}

// scheduleLocked applies the state again when the next grant ends: nobody may be there to say so.
func (d *Daemon) scheduleLocked(views map[policy.VNI]*policy.View, now time.Time) {
	next := d.held.Load().Expires()
	for _, v := range views {
		if at := v.NextExpiry(now); !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	if d.expiry != nil {
		d.expiry.Stop()
	}
	if next.After(now) && d.ctx.Err() == nil {
		d.expiry = time.AfterFunc(next.Sub(now)+time.Millisecond, func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.ctx.Err() == nil {
				d.applyLocked(time.Now())
			}
		})
	}
}

// problemLocked remembers what is wrong with something, or that nothing is.
func (d *Daemon) problemLocked(about string, err error) {
	if err == nil {
		delete(d.problems, about)
		return
	}
	if d.problems[about] != err.Error() {
		d.log.Warn("problem", "about", about, "err", err)
	}
	d.problems[about] = err.Error()
}
