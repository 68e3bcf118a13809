// Package dhcpd is a segment's own DHCP service (RFC 2131) as one gateway runs it. It gives nothing away by itself: what is leased to whom
// is said by the signed state, which all gateways of the segment hold, so two never give one address twice, and what one has given the
// other confirms. docs/decisions/0014-dhcp-service.md says why.
//
//	machine             this gateway                                controller
//	   ── DISCOVER ──►  nothing is leased to it: report ASK ──────►  sets an address aside
//	                    state: offered ◄──────────────────────────
//	                    is somebody there? (ARP, a moment)
//	   ◄── OFFER ─────
//	   ── REQUEST ───►  report BIND ──────────────────────────────►  binds it
//	                    state: bound ◄────────────────────────────
//	   ◄── ACK ───────
//	   ── REQUEST ───►  bound: confirmed at once, and told later ─►  notes that it is used
//	   ◄── ACK ───────
//
// So who has a lease renews it with no controller, for as long as the state is good; who has none waits for one. A host that lists an
// address is given that one by every gateway, from the state alone.
//
// A Service takes questions, states and time, and returns answers and reports. It starts nothing and asks no clock; its caller locks.
package dhcpd

import (
	"net/netip"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// State is what the signed state says of a segment's service.
type State struct {
	Server netip.Addr
	MAC    ether.MAC
	Prefix netip.Prefix // of the segment, IPv4
	MTU    int          // bytes

	From, To netip.Addr // first and last of the pool; invalid: there is none
	Lease    time.Duration
	Router   netip.Addr // invalid: none
	DNS      []netip.Addr
	Domain   string

	Leases  []Lease
	Listed  map[policy.Identity]netip.Prefix // the IPv4 address of each host that lists one
	Expires time.Time                        // past it nothing is confirmed
}

// Phase is where a lease is.
type Phase uint8

// The phases.
const (
	Offered Phase = iota + 1 // set aside; it must be bound before it is confirmed
	Bound                    // may be confirmed without asking
	Ended                    // as offered, and it will be somebody else's
)

func (p Phase) String() string { return [...]string{"unknown", "offered", "bound", "ended"}[p] }

// Lease is an address that a MAC of a machine has.
type Lease struct {
	Machine policy.Identity
	MAC     ether.MAC
	Address netip.Addr
	Phase   Phase
	Name    string // as the host calls itself
	// Here is an attachment of this gateway behind which the machine may be; 0: none.
	Here policy.Identity
}

// Question is a frame that a machine has sent to the service, and that is admitted.
type Question struct {
	Attachment policy.Identity // behind which it is
	Who        policy.Identity // whose it is
	Frame      []byte          // kept
}

// Reply is a frame for the VLAN of an attachment.
type Reply struct {
	Attachment policy.Identity
	Frame      []byte
}

// tenant is who can have a lease.
type tenant struct {
	who policy.Identity
	mac ether.MAC
}

// Limits of what one service remembers and does.
const (
	patience    = 10 * time.Second       // of a machine that waits for the controller
	probeWait   = 300 * time.Millisecond // for the answer of who has an address that is to be offered
	probeGood   = time.Minute            // before it is asked again
	squatTime   = 10 * time.Minute       // that an address is held to be somebody's who said so
	maxWaiting  = 256
	maxSquats   = 256 // behind one attachment
	perSecond   = 50  // questions of one identity
	burst       = 100
	ofTenant    = 5           // the same, of who has a lease, for itself: others cannot keep it from renewing
	fullTime    = time.Minute // that it is said that there is no address left
	letGoDelay  = 10 * time.Second
	reportsOnce = 30 // how many reports the controller takes at once
)

// Stats counts what was asked and answered.
type Stats struct {
	Discover  uint64 `json:"discover"`
	Request   uint64 `json:"request"`
	Decline   uint64 `json:"decline"`
	Release   uint64 `json:"release"`
	Inform    uint64 `json:"inform"`
	Offer     uint64 `json:"offer"`
	Ack       uint64 `json:"ack"`
	Nak       uint64 `json:"nak"`
	Malformed uint64 `json:"malformed"` // no message of a client on an Ethernet, or one that a relay agent has passed on
	Limited   uint64 `json:"limited"`   // more than one identity may ask, or than can wait
	Refused   uint64 `json:"refused"`   // the controller had no address for it
	Conflicts uint64 `json:"conflicts"` // of addresses that somebody used who has no lease
}

// Service is one segment's service at one gateway.
type Service struct {
	state  State
	leases map[tenant]*Lease

	waiting map[tenant]*waiting
	queue   []*Report // to tell, in order
	told    map[told]struct{}
	expires map[tenant]time.Time // of what was confirmed here
	probed  map[spot]time.Time
	squats  map[spot]squat
	many    map[policy.Identity]int // of squats, by attachment
	buckets map[tenant]*bucket      // with the zero MAC: of all of an identity that have no lease
	full    time.Time               // until when there is none left, as far as is known
	why     string
	stats   Stats
}

// waiting is a question that is answered later.
type waiting struct {
	q      Question
	m      *message
	since  time.Time
	probe  time.Time // until when the answer to a probe is awaited; zero: it is not probed
	refuse bool      // there will be no answer but a refusal

	declined netip.Addr // that was set aside for it, and that somebody uses
}

// spot is an address on the VLAN of an attachment. Who uses one there uses it nowhere else: no other VLAN hears of him.
type spot struct {
	attachment policy.Identity
	address    netip.Addr
}

// squat is somebody who uses an address that is not leased to him.
type squat struct {
	mac   ether.MAC
	until time.Time
}

// told is an end that was reported.
type told struct {
	address    netip.Addr
	tenant     tenant
	attachment policy.Identity
}

// New returns a service that knows nothing yet.
func New() *Service {
	return &Service{
		leases: map[tenant]*Lease{}, waiting: map[tenant]*waiting{}, told: map[told]struct{}{}, expires: map[tenant]time.Time{},
		probed: map[spot]time.Time{}, squats: map[spot]squat{}, many: map[policy.Identity]int{}, buckets: map[tenant]*bucket{},
	}
}

// Set takes a new state, and answers those who waited for it.
func (s *Service) Set(state *State, now time.Time) []Reply {
	s.state = *state
	clear(s.leases)
	ended := map[told]struct{}{}
	for i := range state.Leases {
		l := &state.Leases[i]
		t := tenant{l.Machine, l.MAC}
		if old := s.leases[t]; old == nil || old.Phase == Ended { // one that has ended is of no interest beside another
			s.leases[t] = l
		}
		if x := (told{l.Address, t, l.Here}); l.Phase == Ended && l.Here != 0 {
			ended[x] = struct{}{}
			if _, is := s.told[x]; !is {
				s.report(&Report{Act: LetGo, Attachment: l.Here, MAC: l.MAC, Address: l.Address}, now)
			}
		}
	}
	s.told = ended
	for t := range s.expires {
		if s.leases[t] == nil {
			delete(s.expires, t)
		}
	}
	for t := range s.buckets {
		if t.mac != (ether.MAC{}) && s.leases[t] == nil {
			delete(s.buckets, t)
		}
	}
	return s.reconsider(now)
}

// Tick lets time pass.
func (s *Service) Tick(now time.Time) []Reply {
	for at, x := range s.squats {
		if !now.Before(x.until) {
			delete(s.squats, at)
			if s.many[at.attachment]--; s.many[at.attachment] == 0 {
				delete(s.many, at.attachment)
			}
		}
	}
	for a, at := range s.probed {
		if now.Sub(at) >= probeGood {
			delete(s.probed, a)
		}
	}
	return s.reconsider(now)
}

// Squats notes that somebody behind an attachment says that he has an address that is not leased to him.
func (s *Service) Squats(attachment policy.Identity, mac ether.MAC, addr netip.Addr, now time.Time) {
	if !s.inPool(addr) || mac == s.state.MAC {
		return
	}
	at := spot{attachment, addr}
	if _, known := s.squats[at]; !known {
		if s.many[attachment] >= maxSquats {
			return
		}
		s.many[attachment]++
		s.stats.Conflicts++
	}
	s.squats[at] = squat{mac, now.Add(squatTime)}
}

// squatted reports whether somebody else says on a machine's VLAN that he has the address that it is to have.
func (s *Service) squatted(attachment policy.Identity, l *Lease) bool {
	x, is := s.squats[spot{attachment, l.Address}]
	return is && x.mac != l.MAC
}

// inPool reports whether an address is one of the pool.
func (s *Service) inPool(a netip.Addr) bool {
	return s.state.From.IsValid() && a.Is4() && s.state.From.Compare(a) <= 0 && a.Compare(s.state.To) <= 0
}

// Stats returns the counters.
func (s *Service) Stats() Stats { return s.stats }

// Expires is when a lease ends that was confirmed here; zero if another gateway has done so, or this one before it was started.
func (s *Service) Expires(l *Lease) time.Time { return s.expires[tenant{l.Machine, l.MAC}] }

// Leases returns what the state says is leased.
func (s *Service) Leases() []Lease { return s.state.Leases }

// Problem says in one line what an administrator should look at; "" if there is nothing.
func (s *Service) Problem(now time.Time) string {
	if now.Before(s.full) {
		return s.why
	}
	for at, x := range s.squats {
		return "address " + at.address.String() + " of the DHCP pool is used by a machine with MAC " + x.mac.String() +
			" that has no lease of it: let it ask for one, or take the address out of the pool"
	}
	return ""
}

// bucket limits how often one asks.
type bucket struct {
	left float64
	at   time.Time
}

// allow counts a question: against those of who asks, if that has a lease, and otherwise of all of its identity that have none.
func (s *Service) allow(t tenant, now time.Time) bool {
	rate, most := float64(ofTenant), float64(2*ofTenant)
	if s.leases[t] == nil {
		t.mac, rate, most = ether.MAC{}, perSecond, burst
	}
	b := s.buckets[t]
	if b == nil {
		b = &bucket{left: most, at: now}
		s.buckets[t] = b
	}
	b.left = min(most, b.left+now.Sub(b.at).Seconds()*rate)
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}
