// Package compile works out what one node is told of a network: from a Model to a State.
//
// A node learns its own stations, the segments it is a member of, the other members of these and what they use there,
// the grants to these segments, the relays with a credential of its own, and which of those that it may have known are
// revoked. It learns nothing of anybody else, no labels, and of a peer no station on a segment that it does not share.
//
//	Model ──► ViewsFor(node): Views     ──► segment/VNI, grant/ID, reach/ID, peer/ID, machine/ID, revocation/ID
//	      ──► ReachesFor(node): Reaches ──► the same; of a grant to nodes, only the other end
//	      ──► OutletsOf(node): Outlets  ──► segment/VNI, attachment/ID, machine/ID, peer/ID, revocation/ID
//	          with each machine/ID      ──► lease/VNI/ADDRESS
//	      ──► ServicesFor(node)         ──► dhcp/VNI, of the same segments
//	      ──► Profile(node)             ──► self
//	      ──► Shared                    ──► settings, relay/NAME
//
// A gateway is told what concerns the machines that it may speak for as if it were they, and whoever is told of a machine is told of
// its gateways as peers.
//
// The result depends on the Model alone, and on no clock, so that two controllers at the same version say the same,
// byte for byte. The work is proportional to the node's peers and grants, once for all who are members of the same segments
// (common.go). A Compiler keeps the serialised form of what many nodes are told alike; and since a Model shares with its predecessor what did not change, a Result is returned
// as it is when none of its inputs has.
package compile

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/identity"
)

// inputs is all that a Result depends on. What is equal here gives the same Result.
type inputs struct {
	shared  *model.Shared
	profile *model.Profile
	status  model.Status
	views   []*model.View
	reaches []*model.Reach
	outlets []*model.Outlet
	dhcp    []*model.DHCP
}

func (a inputs) equal(b inputs) bool {
	return a.shared == b.shared && a.profile == b.profile && a.status == b.status && slices.Equal(a.views, b.views) &&
		slices.Equal(a.reaches, b.reaches) && slices.Equal(a.outlets, b.outlets) && slices.Equal(a.dhcp, b.dhcp)
}

// Compiler makes Results. It may be used from several goroutines.
type Compiler struct {
	wrap identity.WrapKey
	log  *slog.Logger

	mu      sync.Mutex
	model   *model.Model // that the memory below is of
	entries map[any]entry
	commons map[string]*common // by the VNIs of views
	changes map[pair]change
	secrets map[*model.Relay]opened
}

// opened is a relay's secret, if the wrap key opens it.
type opened struct {
	secret identity.RelaySecret
	ok     bool
}

// entry is a serialised resource and its place.
type entry struct {
	key   string
	value []byte
}

// peerKey names what a reader is told of a peer: it differs only by the segments that the two share.
type peerKey struct {
	peer   *model.Profile
	shared string // VNIs, four bytes each
}

// New returns a Compiler. The wrap key opens the relays' secrets. A relay whose secret it does not open is logged and
// left out, so that one damaged record does not keep everybody from everything.
func New(wrap identity.WrapKey, log *slog.Logger) *Compiler { return &Compiler{wrap: wrap, log: log} }

// Compile works out what a node is told. Last, which may be nil, is the result for the same node from an earlier Model;
// it is returned itself if nothing changed.
func (c *Compiler) Compile(m *model.Model, id identity.ID, last *Result) (*Result, error) {
	n, p := m.Nodes[id], m.Profile(id)
	if n == nil || m.Settings == nil {
		return nil, fmt.Errorf("compile node %d: there is no such node", id)
	}
	in := inputs{
		shared: m.Shared, profile: p, status: m.Status(n), views: m.ViewsFor(id), reaches: m.ReachesFor(id), outlets: m.OutletsOf(id),
		dhcp: m.ServicesFor(id),
	}
	if last != nil && in.equal(last.inputs) {
		return last, nil
	}
	r, err := c.gather(m, in)
	if err == nil {
		err = r.settle()
	}
	if err != nil {
		return nil, fmt.Errorf("compile node %d: %w", id, err)
	}
	return r, nil
}

func (c *Compiler) gather(m *model.Model, in inputs) (*Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.model != m {
		c.model, c.entries, c.commons, c.changes = m, map[any]entry{}, map[string]*common{}, map[pair]change{}
	}
	x, err := c.commonOf(in)
	if err != nil {
		return nil, err
	}
	r := &Result{common: x, own: state.State{}, inputs: in}
	if _, is := x.others[in.profile]; is {
		r.without = peerName(in.profile)
	}
	return r, c.addOwn(r.own, x, in)
}

// addOwn adds what a node is told that is not told to all with the same segments.
func (c *Compiler) addOwn(s state.State, x *common, in inputs) error {
	if err := c.addShared(s, in); err != nil {
		return err
	}
	for _, r := range in.reaches {
		if err := c.addReach(s, r, in.profile); err != nil {
			return err
		}
	}
	for _, o := range in.outlets {
		if err := c.addOutlet(s, o); err != nil {
			return err
		}
	}
	if err := c.addServices(s, in.dhcp); err != nil {
		return err
	}
	for p, vnis := range in.others(x.others) {
		if err := c.addOther(s, p, vnis); err != nil {
			return err
		}
	}
	self := peer(in.profile, in.own())
	self.Complete = in.status == model.StatusActive
	return c.add(s, &controlv1.Resource{Kind: &controlv1.Resource_Self{Self: self}})
}

// add serialises a resource into a state.
func (c *Compiler) add(s state.State, r *controlv1.Resource) error {
	key, value, err := state.Encode(r)
	s[key] = value
	return err
}

// addOnce adds a resource that other nodes are told alike, and makes it only for the first of them.
func (c *Compiler) addOnce(s state.State, name any, build func() *controlv1.Resource) error {
	e, ok := c.entries[name]
	if !ok {
		var err error
		if e.key, e.value, err = state.Encode(build()); err != nil {
			return err
		}
		c.entries[name] = e
	}
	s[e.key] = e.value
	return nil
}

// maxSlot is the highest place at a relay.
const maxSlot = 65535

// addShared adds the network's settings, and the relays if the node may use them.
func (c *Compiler) addShared(s state.State, in inputs) error {
	err := c.addOnce(s, in.shared, func() *controlv1.Resource {
		set := in.shared.Settings
		return &controlv1.Resource{Kind: &controlv1.Resource_Settings{Settings: &controlv1.Settings{
			NetworkName: set.Name, Zone: set.Zone, Controllers: in.shared.Controllers,
			CertificateLifetime: duration(set.CertificateLifetime), Grace: duration(set.Grace), LinkIdle: duration(set.LinkIdle),
		}}}
	})
	if err != nil || in.status != model.StatusActive {
		return err
	}
	for _, r := range in.shared.Relays {
		if in.profile.Slot > maxSlot {
			continue // a slot is a port number
		}
		o := c.open(r)
		if !o.ok {
			continue
		}
		until := in.shared.Settings.CredentialsUntil
		username, password := o.secret.Credential(in.profile.Slot, until)
		err = c.add(s, &controlv1.Resource{Kind: &controlv1.Resource_Relay{Relay: &controlv1.Relay{
			Name: r.Name, Hosts: r.Hosts, Port: r.Port, ProbePort: r.ProbePort,
			Username: username, Password: password, Expires: timestamppb.New(until),
		}}})
		if err != nil {
			return err
		}
	}
	return nil
}

// open returns a relay's secret.
func (c *Compiler) open(r *model.Relay) opened {
	if o, ok := c.secrets[r]; ok {
		return o
	}
	secret, err := OpenRelay(c.wrap, r)
	if err != nil {
		c.log.Error("relay is left out", slog.Any("err", err))
	}
	if len(c.secrets) > 2*len(c.model.Relays) || c.secrets == nil {
		c.secrets = map[*model.Relay]opened{}
	}
	c.secrets[r] = opened{secret, err == nil}
	return c.secrets[r]
}

// addView adds a segment, its grants, and who is revoked on it.
func (c *Compiler) addView(s state.State, v *model.View) error {
	if err := c.addSegment(s, v.Segment); err != nil {
		return err
	}
	for _, a := range v.Grants {
		if err := c.addOnce(s, a, func() *controlv1.Resource { return access(a) }); err != nil {
			return err
		}
	}
	return c.addRevoked(s, v.Revoked)
}

func (c *Compiler) addSegment(s state.State, seg *model.Segment) error {
	return c.addOnce(s, seg, func() *controlv1.Resource {
		return &controlv1.Resource{Kind: &controlv1.Resource_Segment{Segment: seg.Proto()}}
	})
}

func (c *Compiler) addRevoked(s state.State, ids []identity.ID) error {
	for _, id := range ids {
		err := c.addOnce(s, id, func() *controlv1.Resource {
			return &controlv1.Resource{Kind: &controlv1.Resource_Revocation{Revocation: &controlv1.Revocation{Id: uint32(id)}}}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// addOther adds another that a node has anything to do with: a node with its stations on the segments where that is so, or a machine.
func (c *Compiler) addOther(s state.State, p *model.Profile, vnis string) error {
	err := c.addOnce(s, peerKey{p, vnis}, func() *controlv1.Resource {
		if p.Machine != nil {
			return &controlv1.Resource{Kind: &controlv1.Resource_Machine{Machine: p.MachineProto()}}
		}
		return &controlv1.Resource{Kind: &controlv1.Resource_Peer{Peer: peer(p, vnis)}}
	})
	if err != nil {
		return err
	}
	return c.addLeases(s, p)
}

// peerName is the key of what others are told of a node.
func peerName(p *model.Profile) string { return fmt.Sprintf("peer/%d", p.ID) }

// peer is a node with its stations on the segments that vnis holds.
func peer(p *model.Profile, vnis string) *controlv1.Peer {
	out := &controlv1.Peer{
		Id: uint32(p.ID), Name: p.Name, StaticKey: p.Static, MaxWire: p.MaxWire, Aes: p.AES, HandshakeNonce: p.Nonce, RelaySlot: p.Slot,
	}
	for i := range p.Stations {
		text := vniText(p.Stations[i].VNI)
		for at := 0; at < len(vnis); at += len(text) {
			if vnis[at:at+len(text)] == text {
				out.Stations = append(out.Stations, p.Stations[i].Proto())
			}
		}
	}
	return out
}

// vniText is a VNI as four bytes, so that a set of them can be part of a map's key.
func vniText(vni model.VNI) string {
	return string([]byte{byte(vni >> 24), byte(vni >> 16), byte(vni >> 8), byte(vni)})
}

func duration(d model.Duration) *durationpb.Duration {
	return &durationpb.Duration{Seconds: int64(d) / 1e9, Nanos: int32(int64(d) % 1e9)}
}

// relayLabel says what a wrapped secret is, so that none is taken for another.
func relayLabel(r *model.Relay) string { return "relay/" + r.Name }

// WrapRelay seals a relay's secret into its record.
func WrapRelay(wrap identity.WrapKey, r *model.Relay, secret identity.RelaySecret) (err error) {
	r.Wrapped, err = wrap.Seal(secret[:], relayLabel(r))
	return err
}

// OpenRelay opens it.
func OpenRelay(wrap identity.WrapKey, r *model.Relay) (identity.RelaySecret, error) {
	b, err := wrap.Open(r.Wrapped, relayLabel(r))
	if err != nil || len(b) != len(identity.RelaySecret{}) {
		return identity.RelaySecret{}, fmt.Errorf("open the secret of relay %q: %w", r.Name, identity.ErrWrapKey)
	}
	return identity.RelaySecret(b), nil
}
