package model

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

// Lease binds an address of a segment's pool to a MAC of a machine (docs/decisions/0014-dhcp-service.md):
//
//	offered ── bind ──► bound ── nobody has confirmed it for as long as it lasts, or released ──► ended ──► (gone)
//	   │ nobody took it      ▲                                                                     │ bind
//	   ▼                     └─────────────────────────────────────────────────────────────────────┘
//	(gone)          any ── declined: somebody else uses the address ──► declined ── a while ──► (gone)
//
// A gateway confirms to a host, by itself, what is bound in the state that it holds. So what has been bound is free for another only when
// no gateway can hold a state in which it is, and the last confirmation has run out.
type Lease struct {
	VNI     VNI         `json:"vni"`
	Address netip.Addr  `json:"address"`
	Machine identity.ID `json:"machine"` // 0 of a declined one
	MAC     MAC         `json:"mac"`
	Name    string      `json:"name,omitempty"` // as its host calls itself
	At      identity.ID `json:"at,omitempty"`   // of a declined one: the attachment behind which somebody uses it
	State   LeaseState  `json:"state"`
	Since   time.Time   `json:"since"` // of a bound one: when it was confirmed last
	// LetGo are the gateways that have seen it ended, and do not confirm it any more.
	LetGo []identity.ID `json:"let_go,omitempty"`
}

// Key is "lease/VNI/ADDRESS", so that no address is leased twice.
func (l *Lease) Key() string { return leaseKey(l.VNI, l.Address) }

// leaseKey is asked for each address of a pool, to find one that is free.
func leaseKey(vni VNI, a netip.Addr) string {
	b := make([]byte, 0, 48)
	b = strconv.AppendUint(append(b, "lease/"...), uint64(vni), 10)
	return string(a.AppendTo(append(b, '/')))
}

// LeaseState is where a lease is in its life.
type LeaseState string

// The states of a lease.
const (
	LeaseOffered  LeaseState = "offered"
	LeaseBound    LeaseState = "bound"
	LeaseEnded    LeaseState = "ended"
	LeaseDeclined LeaseState = "declined"
)

// Proto is the state as it travels.
func (s LeaseState) Proto() controlv1.LeaseState {
	switch s {
	case LeaseOffered:
		return controlv1.LeaseState_LEASE_STATE_OFFERED
	case LeaseBound:
		return controlv1.LeaseState_LEASE_STATE_BOUND
	case LeaseEnded:
		return controlv1.LeaseState_LEASE_STATE_ENDED
	case LeaseDeclined:
	}
	return controlv1.LeaseState_LEASE_STATE_UNSPECIFIED
}

// Times of a lease.
const (
	offerTime   = 2 * time.Minute  // that a host has to take an offer
	leaseMargin = 2 * time.Minute  // for clocks, and for what is under way
	declineTime = 30 * time.Minute // that nobody is given a declined address
)

// LeaseTold is what nodes are told of a lease.
type LeaseTold struct {
	Address netip.Addr
	MAC     MAC
	State   LeaseState
	Name    string
}

// Proto is a machine's lease as it travels.
func (t *LeaseTold) Proto(vni VNI, machine identity.ID) *controlv1.Lease {
	mac := t.MAC
	return &controlv1.Lease{
		Vni: uint32(vni), Address: t.Address.String(), Machine: uint32(machine), Mac: mac[:], State: t.State.Proto(), Name: t.Name,
	}
}

// indexLeases notes which leases a machine has, by address, and how many were declined behind each attachment.
func (m *Model) indexLeases() {
	for _, l := range m.Leases {
		m.declinedAt[l.At]++ // at 0: those that nobody has declined
		if l.Machine != 0 && m.DHCP[l.VNI] != nil {
			m.leasesOf[l.Machine] = append(m.leasesOf[l.Machine], l)
		}
	}
	for _, list := range m.leasesOf {
		slices.SortFunc(list, func(a, b *Lease) int { return cmp.Or(cmp.Compare(a.VNI, b.VNI), a.Address.Compare(b.Address)) })
	}
}

// told are a machine's leases on its segment as nodes are told of them.
func (m *Model) told(machine identity.ID, vni VNI) []LeaseTold {
	var out []LeaseTold
	for _, l := range m.leasesOf[machine] {
		if l.VNI == vni {
			out = append(out, LeaseTold{l.Address, l.MAC, l.State, l.Name})
		}
	}
	return out
}

// LeaseOf returns the lease that a machine has with a MAC, rather than one that has ended; or nil.
func (m *Model) LeaseOf(machine identity.ID, mac MAC) *Lease {
	var ended *Lease
	for _, l := range m.leasesOf[machine] {
		switch {
		case l.MAC != mac:
		case l.State != LeaseEnded:
			return l
		default:
			ended = l
		}
	}
	return ended
}

// LeaseAt returns the lease of an address, or nil.
func (m *Model) LeaseAt(vni VNI, a netip.Addr) *Lease { return m.Leases[leaseKey(vni, a)] }

// Tenant says which machine behind an attachment a MAC is of, and whether it may have a lease: a host that lists no IPv4 address, or
// those whom nobody named.
func (m *Model) Tenant(a *Attachment, mac MAC) (identity.ID, error) {
	if mac == (MAC{}) || mac[0]&1 != 0 {
		return 0, fmt.Errorf("MAC %s is not that of a machine", mac)
	}
	switch owner := m.inUse(a.VNI).macs[mac]; {
	case m.DHCP[a.VNI] != nil && mac == m.DHCP[a.VNI].MAC:
		return 0, fmt.Errorf("MAC %s is that of the service itself", mac)
	case owner == 0:
		return a.ID, nil
	case m.Hosts[owner] == nil || !slices.Contains(m.Hosts[owner].Attachments, a.ID):
		return 0, fmt.Errorf("MAC %s is that of %s, who is not behind attachment %s", mac, m.who(owner), m.AttachmentName(a))
	case slices.ContainsFunc(m.Hosts[owner].Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() }):
		return 0, fmt.Errorf("%s lists its addresses, so it needs no lease", m.who(owner))
	default:
		return owner, nil
	}
}

// ErrPool means that there is no address for a machine.
var ErrPool = errors.New("no address is left")

// maxOffers is how many leases of one attachment's machines may be offered and not taken, or declined: who only asks keeps others from few
// addresses.
const maxOffers = 64

// Offer sets an address of the pool aside for a machine: the one that it has, the one that it would like, or one that nobody has had of
// late. Those behind one attachment whom nobody named have at most three quarters of the pool, so that hosts that have a name
// always find some; and no more than that is declined behind one, so that those behind others do.
func (m *Model) Offer(a *Attachment, machine identity.ID, mac MAC, like netip.Addr, now time.Time) (*Lease, error) {
	d := m.DHCP[a.VNI]
	if d == nil || d.PoolSize() == 0 {
		return nil, fmt.Errorf("%w: segment %q has no pool: `etherloom segment dhcp %s --enable --pool FROM-TO` gives it one",
			ErrPool, m.segmentName(a.VNI), m.segmentName(a.VNI))
	}
	if l := m.LeaseOf(machine, mac); l != nil && d.InPool(l.Address) {
		return l, nil
	}
	if err := m.checkShare(a, machine, d); err != nil {
		return nil, err
	}
	free, ok := m.freeOf(d, like)
	if !ok {
		return nil, fmt.Errorf("%w in the pool of segment %q (%s-%s): give it a larger one with `etherloom segment dhcp %s --enable --pool FROM-TO`",
			ErrPool, m.segmentName(a.VNI), d.From, d.To, m.segmentName(a.VNI))
	}
	return &Lease{VNI: a.VNI, Address: free, Machine: machine, MAC: mac, State: LeaseOffered, Since: now}, nil
}

// checkShare is an error if those behind an attachment whom nobody named have their share of a pool, or if so much was declined there
// that even a host gets no more: whoever is on a VLAN can say in anybody's name that an address is in use.
func (m *Model) checkShare(a *Attachment, machine identity.ID, d *DHCP) error {
	share, declined := (d.PoolSize()*3+3)/4, m.declinedAt[a.ID]
	offers, all := 0, len(m.leasesOf[a.ID])
	for _, l := range m.leasesOf[a.ID] {
		if l.State == LeaseOffered {
			offers++
		}
	}
	if declined < share && machine != a.ID || offers+declined < maxOffers && all+declined < share {
		return nil
	}
	return fmt.Errorf("%w: of the pool's %d addresses machines behind %s that nobody named have %d, %d of them offered and not taken, and %d were declined there "+
		"because somebody uses them", ErrPool, d.PoolSize(), m.AttachmentName(a), len(m.leasesOf[a.ID]), offers, declined)
}

// freeOf returns an address of a pool that nobody has: the one that is wanted, or the lowest.
func (m *Model) freeOf(d *DHCP, like netip.Addr) (netip.Addr, bool) {
	taken := m.inUse(d.VNI)
	free := func(x netip.Addr) bool { return taken.addresses[x] == 0 && m.LeaseAt(d.VNI, x) == nil }
	if d.InPool(like) && free(like) {
		return like, true
	}
	for a := d.From; d.InPool(a); a = a.Next() {
		if free(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// LeaseEnd is when something becomes of a lease, and what: the lease as it is then, or nil if it is gone.
func (m *Model) LeaseEnd(l *Lease) (time.Time, *Lease) {
	d := m.DHCP[l.VNI]
	if d == nil || l.Machine != 0 && m.profiles[l.Machine] == nil {
		return time.Time{}, nil
	}
	life := time.Duration(d.Lease) + leaseMargin
	switch l.State {
	case LeaseOffered:
		return l.Since.Add(offerTime), nil
	case LeaseDeclined:
		return l.Since.Add(declineTime), nil
	case LeaseBound:
		end := l.Since.Add(life)
		return end, l.In(LeaseEnded, end)
	case LeaseEnded:
	}
	if !m.letGo(l) {
		// A state is good for as long as the grace: then nobody confirms it any more.
		life += time.Duration(m.Settings.Grace)
	}
	return l.Since.Add(life), nil
}

// letGo reports whether no gateway that may speak for a lease's machine confirms it any more.
func (m *Model) letGo(l *Lease) bool {
	for _, id := range m.profiles[l.Machine].Machine.Attachments {
		for _, p := range m.Attachments[id].Ports {
			if !slices.Contains(l.LetGo, p.Node) {
				return false
			}
		}
	}
	return true
}

// In is the lease in another state, since then.
func (l *Lease) In(s LeaseState, since time.Time) *Lease {
	c := *l
	c.State, c.Since, c.LetGo = s, since, nil
	return &c
}

// Declined is the lease of an address that somebody uses behind an attachment.
func (l *Lease) Declined(at identity.ID, since time.Time) *Lease {
	c := l.In(LeaseDeclined, since)
	c.Machine, c.At = 0, at
	return c
}

// LetGoBy is the lease with a gateway more that does not confirm it any more.
func (l *Lease) LetGoBy(node identity.ID) *Lease {
	c := *l
	c.LetGo = append(slices.Clone(l.LetGo), node)
	slices.Sort(c.LetGo)
	c.LetGo = slices.Compact(c.LetGo)
	return &c
}

// Scratch is a copy of the Model of which the leases can be changed, to see what follows. It is for one goroutine.
func (m *Model) Scratch() *Model {
	c := *m
	c.Leases, c.leasesOf, c.declinedAt, c.used = maps.Clone(m.Leases), maps.Clone(m.leasesOf), maps.Clone(m.declinedAt), map[VNI]occupancy{}
	return &c
}

// inUse is occupied for who only reads it. Leases are no part of it, so a Scratch works it out once.
func (m *Model) inUse(vni VNI) occupancy {
	if o, known := m.used[vni]; known {
		return o
	}
	o := m.occupied(vni)
	if m.used != nil {
		m.used[vni] = o
	}
	return o
}

// Place puts a lease into a Scratch.
func (m *Model) Place(l *Lease) {
	if old := m.Leases[l.Key()]; old != nil {
		m.declinedAt[old.At]--
		m.leasesOf[old.Machine] = slices.DeleteFunc(slices.Clone(m.leasesOf[old.Machine]), func(o *Lease) bool { return o == old })
	}
	m.Leases[l.Key()] = l
	m.declinedAt[l.At]++
	if l.Machine != 0 {
		m.leasesOf[l.Machine] = append(slices.Clip(m.leasesOf[l.Machine]), l)
	}
}

// LeasesOn returns the leases of a segment, by address.
func (m *Model) LeasesOn(vni VNI) []*Lease {
	var out []*Lease
	for _, l := range m.Leases {
		if l.VNI == vni {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b *Lease) int { return a.Address.Compare(b.Address) })
	return out
}

// LeaseProto is a lease as an administrator sees it.
func (m *Model) LeaseProto(l *Lease) *controlv1.LeaseRule {
	return &controlv1.LeaseRule{
		Address: l.Address.String(), Mac: l.MAC.String(), Machine: m.Name(l.Machine), Name: l.Name, State: string(l.State), Since: stamp(l.Since),
	}
}
