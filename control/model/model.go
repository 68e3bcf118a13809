// Package model holds what is true of one network, and what follows from it.
//
// Facts are the durable records: the certificate authority, settings, controllers, administrators, tokens, nodes,
// segments, groups, grants, tests, verdicts, locks, relays, attachments, hosts, DHCP services, leases, and the head of the audit log. Each has a key, under which
// package store keeps it. Only what must survive goes into a fact; who is connected now is nobody's fact.
//
// A Model is all facts at one revision of the store, with what follows from them worked out: who bears which name, who
// is a member of which segment by which grants, and the View that the members of a segment have of it. It never
// changes. The next revision has a Model of its own, which shares with the one before every View, Profile and Shared in
// which nothing changed, so that a reader sees by comparing pointers that nothing changed for it.
//
//	grant: from label:site=a to segment:lan            segment lan             View of lan
//	   |                                                   |                     Members  node 1, node 2
//	   +-- selects active nodes: 1, 2 ---------------------+--- Derive --------> Grants   7: by 1, 2
//	       each has a Station on lan (MAC, addresses)      |                     Revoked  node 3
//	                                                       |
//	          lock: label:lost=yes selects node 3, which had a Station on lan
//
// Nothing here reads a clock: what the passing of time makes true becomes a fact by an act of a controller (package
// server, steward.go). So every controller at the same revision has the same Model.
//
// Machines behind a gateway (attachment.go, host.go, machine.go) have identities and Profiles like nodes, and a place on their one
// segment from the start. A node is told what concerns it, and what concerns those for whom it may speak.
//
// The rules by which new facts may come about (addresses.go, prefix.go, selector.go) are functions of the Model; the
// store runs them in transactions.
package model

import (
	"encoding/binary"
	"maps"
	"reflect"
	"slices"

	"github.com/etherloom/etherloom/control/audit"
	"github.com/etherloom/etherloom/identity"
)

// Model is the facts at one revision of the store, and what follows from them. It never changes: readers write neither
// to it nor to any fact.
type Model struct {
	Facts Facts

	// The facts again, by kind. The first three are nil before the network was made.
	Authority   *Authority
	Settings    *Settings
	Head        *Head
	Counters    Counters
	Controllers map[identity.ID]*Controller
	Admins      map[identity.ID]*Admin
	Tokens      map[string]*Token
	Nodes       map[identity.ID]*Node
	Segments    map[VNI]*Segment
	Grants      map[GrantID]*Grant
	Used        map[GrantID]*Used
	Groups      map[string]*Group
	Locks       map[LockID]*Lock
	Verdicts    map[GrantID]*Verdict
	Tests       []Test
	Pending     *Pending // nil: nothing waits to be confirmed
	Relays      map[string]*Relay
	Attachments map[identity.ID]*Attachment
	Hosts       map[identity.ID]*Host
	DHCP        map[VNI]*DHCP
	Leases      map[string]*Lease // by key

	// Version is the revision of the store at which the last fact changed; 0 before the network was made. All
	// controllers agree on it.
	Version uint64
	// Shared is what every node is told alike.
	Shared *Shared

	names    map[string]*Node // of nodes that are not removed
	keys     map[string]string
	segments map[string]*Segment
	profiles map[identity.ID]*Profile
	views    map[VNI]*View
	memberOf map[identity.ID][]*View
	reaches  map[GrantID]*Reach
	reachOf  map[identity.ID][]*Reach
	lockedBy map[identity.ID][]*Lock
	vacant   []vacancy

	// What nodes are told: of the segments and grants that concern them, or a machine that they may speak for.
	viewsFor   map[identity.ID][]*View
	reachesFor map[identity.ID][]*Reach
	outletsOf  map[identity.ID][]*Outlet

	hosts         map[string]*Host
	hostsBehind   map[identity.ID][]*Host       // by attachment
	attachmentsOf map[identity.ID][]*Attachment // by node
	cutGateways   map[identity.ID][]identity.ID // by attachment: nodes that are cut off
	leasesOf      map[identity.ID][]*Lease      // by machine
	declinedAt    map[identity.ID]int           // leases that were declined, by attachment
	used          map[VNI]occupancy             // of a Scratch

	candidates map[GrantID][]identity.ID
}

// Shared is what every node of the network is told alike.
type Shared struct {
	Settings    *Settings
	Controllers []string // URLs, sorted
	Relays      []*Relay // by name
}

// Profile is a node, or a machine behind gateways, as others see it.
type Profile struct {
	ID       identity.ID
	Name     string
	Static   []byte
	MaxWire  uint32
	AES      bool
	Nonce    uint64
	Slot     uint32
	Stations []Station // by VNI
	Machine  *Machine  // nil: a node
}

// View is a segment as its members see it.
type View struct {
	Segment *Segment
	Members []*Profile // active, granted, with a station; by id
	Grants  []*Access  // by id
	Revoked []identity.ID
}

// Access is a grant to a segment with the members that it selects.
type Access struct {
	Grant   *Grant
	Sources []identity.ID // sorted
}

// Reach is a grant to nodes with the two ends that it selects: active nodes with a station on the segment, by id.
type Reach struct {
	Grant    *Grant
	Segment  *Segment
	From, To []*Profile
	// RevokedFrom and RevokedTo are those whom the other end may still hold to be good.
	RevokedFrom, RevokedTo []identity.ID
}

// vacancy is a member of a segment that has no station on it yet.
type vacancy struct {
	node identity.ID
	vni  VNI
}

// Derive works out a Model. The facts become the Model's; previous, which may be nil, is the Model before.
func Derive(f Facts, version uint64, previous *Model) *Model {
	if previous == nil {
		previous = &Model{}
	}
	if m := previous.confirmed(f, version); m != nil {
		return m
	}
	m := &Model{
		Facts: f, Version: version,
		Controllers: map[identity.ID]*Controller{}, Admins: map[identity.ID]*Admin{}, Tokens: map[string]*Token{},
		Nodes: map[identity.ID]*Node{}, Segments: map[VNI]*Segment{}, Grants: map[GrantID]*Grant{},
		Used: map[GrantID]*Used{}, Groups: map[string]*Group{}, Locks: map[LockID]*Lock{}, Verdicts: map[GrantID]*Verdict{}, candidates: map[GrantID][]identity.ID{},
		Relays: map[string]*Relay{},
		names:  map[string]*Node{}, keys: map[string]string{}, segments: map[string]*Segment{},
		profiles: map[identity.ID]*Profile{}, views: map[VNI]*View{}, memberOf: map[identity.ID][]*View{},
		reaches: map[GrantID]*Reach{}, reachOf: map[identity.ID][]*Reach{},
		Attachments: map[identity.ID]*Attachment{}, Hosts: map[identity.ID]*Host{},
		viewsFor: map[identity.ID][]*View{}, reachesFor: map[identity.ID][]*Reach{}, outletsOf: map[identity.ID][]*Outlet{},
		hosts: map[string]*Host{}, hostsBehind: map[identity.ID][]*Host{}, attachmentsOf: map[identity.ID][]*Attachment{},
		DHCP: map[VNI]*DHCP{}, Leases: map[string]*Lease{}, leasesOf: map[identity.ID][]*Lease{}, declinedAt: map[identity.ID]int{},
	}
	for _, x := range f {
		m.sort(x)
	}
	m.deriveShared(previous.Shared)
	m.deriveNames()
	m.deriveLocks()
	m.indexMachines()
	m.indexLeases()
	for id, n := range m.Nodes {
		m.profiles[id] = profile(n, previous)
	}
	m.deriveMachines(previous)
	m.deriveViews(previous)
	return m
}

// sort puts a fact among those of its kind.
func (m *Model) sort(x Fact) {
	switch x := x.(type) {
	case *Authority:
		m.Authority = x
	case *Settings:
		m.Settings = x
	case *Counters:
		m.Counters = *x
	case *Head:
		m.Head = x
	case *Controller:
		m.Controllers[x.ID] = x
	case *Admin:
		m.Admins[x.ID] = x
	case *Token:
		m.Tokens[x.ID] = x
	case *Node:
		m.Nodes[x.ID] = x
	case *Segment:
		m.Segments[x.VNI] = x
	case *Relay:
		m.Relays[x.Name] = x
	case *Attachment:
		m.Attachments[x.ID] = x
	case *Host:
		m.Hosts[x.ID] = x
	case *DHCP:
		m.DHCP[x.VNI] = x
	case *Lease:
		m.Leases[x.Key()] = x
	default:
		m.sortPolicy(x)
	}
}

// sortPolicy does so with what says who may do what.
func (m *Model) sortPolicy(x Fact) {
	switch x := x.(type) {
	case *Grant:
		m.Grants[x.ID] = x
	case *Used:
		m.Used[x.Grant] = x
	case *Group:
		m.Groups[x.Name] = x
	case *Lock:
		m.Locks[x.ID] = x
	case *Verdict:
		m.Verdicts[x.Grant] = x
	case *Tests:
		m.Tests = x.List
	case *Pending:
		m.Pending = x
	}
}

func (m *Model) deriveShared(previous *Shared) {
	s := &Shared{Settings: m.Settings}
	for _, c := range m.Controllers {
		s.Controllers = append(s.Controllers, c.URLs...)
	}
	slices.Sort(s.Controllers)
	s.Controllers = slices.Compact(s.Controllers)
	for _, name := range slices.Sorted(maps.Keys(m.Relays)) {
		s.Relays = append(s.Relays, m.Relays[name])
	}
	if reflect.DeepEqual(s, previous) {
		s = previous
	}
	m.Shared = s
}

func (m *Model) deriveNames() {
	for _, n := range m.Nodes {
		m.keys[string(n.Sign)], m.keys[string(n.Static)] = n.Key(), n.Key()
		if n.OwnStatus != StatusRemoved {
			m.names[n.Name] = n
		}
	}
	for _, a := range m.Admins {
		m.keys[string(a.Sign)] = a.Key()
	}
	for _, c := range m.Controllers {
		m.keys[string(c.Sign)] = c.Key()
	}
	for _, s := range m.Segments {
		m.segments[s.Name] = s
	}
}

// profile returns the previous model's Profile of a node if nothing in it changed.
func profile(n *Node, previous *Model) *Profile {
	old := previous.profiles[n.ID]
	if old != nil && previous.Nodes[n.ID] == n {
		return old
	}
	p := &Profile{
		ID: n.ID, Name: n.Name, Static: n.Static, MaxWire: n.MaxWire, AES: n.AES, Nonce: n.HandshakeNonce, Slot: n.RelaySlot,
		Stations: n.Stations,
	}
	if reflect.DeepEqual(p, old) {
		return old
	}
	return p
}

// Network returns the network's id, which its CA's certificate names; zero before the network was made.
func (m *Model) Network() identity.NetworkID {
	if m.Authority == nil {
		return identity.NetworkID{}
	}
	_, network, err := identity.ParseCACertificate(m.Authority.Certificate)
	if err != nil {
		return identity.NetworkID{}
	}
	return network
}

// AuditHead returns the head of the audit log at this revision.
func (m *Model) AuditHead() audit.Head {
	if m.Head == nil {
		return audit.Head{}
	}
	return audit.Head{Sequence: m.Head.Sequence, Hash: [32]byte(m.Head.Hash)}
}

// NodeNamed returns the node that bears the name now, or nil. A removed node bears none.
func (m *Model) NodeNamed(name string) *Node { return m.names[name] }

// SegmentNamed returns the segment of that name, or nil.
func (m *Model) SegmentNamed(name string) *Segment { return m.segments[name] }

// KeyOwner returns the key of the fact that registered a public key, Ed25519 or X25519, or "". Removed nodes keep
// theirs for ever: a key that was once given up may be in other hands.
func (m *Model) KeyOwner(key []byte) string { return m.keys[string(key)] }

// Profile returns a node or a machine as others see it, or nil.
func (m *Model) Profile(id identity.ID) *Profile { return m.profiles[id] }

// Station returns what a node may use on a segment, or nil.
func (m *Model) Station(id identity.ID, vni VNI) *Station {
	p := m.profiles[id]
	if p == nil {
		return nil
	}
	return p.station(vni)
}

// ViewOf returns a segment as its members see it, or nil.
func (m *Model) ViewOf(vni VNI) *View { return m.views[vni] }

// Reaches returns whom each grant to nodes is about.
func (m *Model) Reaches() map[GrantID]*Reach { return m.reaches }

// MemberOf returns the views of the segments that a node or a machine is a member of, by VNI.
func (m *Model) MemberOf(id identity.ID) []*View { return m.memberOf[id] }

// ReachOf returns the grants to nodes that concern a node or a machine, at either end, by id.
func (m *Model) ReachOf(id identity.ID) []*Reach { return m.reachOf[id] }

// ViewsFor returns the views that a node is told: of the segments that it, or a machine that it may speak for, is a member of.
func (m *Model) ViewsFor(id identity.ID) []*View { return m.viewsFor[id] }

// ReachesFor returns the grants to nodes that a node is told: those that concern it, or a machine that it may speak for.
func (m *Model) ReachesFor(id identity.ID) []*Reach { return m.reachesFor[id] }

// Vacant reports whether a member has no station yet.
func (m *Model) Vacant() bool { return len(m.vacant) > 0 }

// FreeSlot returns the lowest relay slot that no node has. A removed node keeps its own until nothing that was signed
// for it can be valid any more.
func (m *Model) FreeSlot() uint32 {
	used := map[uint32]bool{}
	for _, n := range m.Nodes {
		if n.OwnStatus != StatusRemoved || !n.Forgotten {
			used[n.RelaySlot] = true
		}
	}
	for slot := uint32(1); ; slot++ { // a port number: 0 is none
		if !used[slot] {
			return slot
		}
	}
}

// station returns a profile's station on a segment, or nil.
func (p *Profile) station(vni VNI) *Station {
	for i := range p.Stations {
		if p.Stations[i].VNI == vni {
			return &p.Stations[i]
		}
	}
	return nil
}

// appendUint32s is the form in which numbers enter a MAC.
func appendUint32s(b []byte, ns ...uint32) []byte {
	for _, n := range ns {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}
