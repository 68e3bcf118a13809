package dhcpd

import (
	"net/netip"
	"slices"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// Act is what a report tells.
type Act uint8

// The acts.
const (
	Ask     Act = iota + 1 // a machine wants an address
	Bind                   // it takes the one that was offered to it
	Renew                  // it was confirmed that it has it
	Release                // it gives it back
	Decline                // somebody else uses it
	LetGo                  // it has ended, and is not confirmed here any more
)

// Report is what the controller is to be told.
type Report struct {
	Act        Act
	Attachment policy.Identity
	MAC        ether.MAC
	Address    netip.Addr // of Ask: the one that the machine would like, if it is valid
	Name       string     // as the host calls itself

	since time.Time
}

func (r *Report) key() keyOf {
	k := keyOf{r.Act, r.Attachment, r.MAC, r.Address}
	if r.Act == Ask {
		k.address = netip.Addr{}
	}
	return k
}

// maxQueue is how many reports wait to be told; further ones are repeated by their machines.
const maxQueue = 4096

// report queues a report, in the place of one that tells the same. What a machine waits for overtakes renewals, and must not be overtaken by its own: who
// has given an address back would have it again.
func (s *Service) report(r *Report, now time.Time) {
	r.since = now
	if s.delay(r) == 0 {
		s.queue = slices.DeleteFunc(s.queue, func(o *Report) bool { return o.Act == Renew && o.Attachment == r.Attachment && o.MAC == r.MAC })
	}
	same := func(o *Report) bool { return o.key() == r.key() }
	if len(s.queue) < maxQueue && !slices.ContainsFunc(s.queue, same) {
		s.queue = append(s.queue, r)
	}
}

// A renewal waits for others: each time that a controller is told is an entry of its audit log, which is kept for ever, and a machine renews when half
// of its lease is over. So it can wait for an eighth of a lease, but not so long that a gateway that is stopped has nothing told of an hour.
const (
	renewLeast = 10 * time.Second
	renewMost  = 10 * time.Minute
)

// delay is how long a report waits for others. What a machine waits for does not.
func (s *Service) delay(r *Report) time.Duration {
	switch r.Act {
	case Renew:
		return min(max(s.state.Lease/8, renewLeast), renewMost)
	case LetGo:
		return letGoDelay
	default:
		return 0
	}
}

// Reports returns what is to be told now, if anything is due: first what machines wait for, in order, and then the rest, whatever time that has.
func (s *Service) Reports(now time.Time) []*Report {
	var waited, rest []*Report
	due := false
	for _, r := range s.queue {
		wait := s.delay(r)
		due = due || now.Sub(r.since) >= wait
		if wait == 0 {
			waited = append(waited, r)
		} else {
			rest = append(rest, r)
		}
	}
	if !due {
		return nil
	}
	all := append(waited, rest...)
	return all[:min(len(all), reportsOnce)]
}

// Refusal is why the controller did not do what a report asked for.
type Refusal struct {
	Report *Report
	Reason string
	Full   bool // there is no address left
}

// Told takes it that reports have been told, and answers those who waited for what was refused.
func (s *Service) Told(reports []*Report, refused []Refusal, now time.Time) []Reply {
	s.queue = slices.DeleteFunc(s.queue, func(r *Report) bool { return slices.Contains(reports, r) })
	for _, x := range refused {
		s.stats.Refused++
		if x.Full {
			s.full, s.why = now.Add(fullTime), x.Reason
		}
		for t, w := range s.waiting {
			if t.mac != x.Report.MAC || w.q.Attachment != x.Report.Attachment {
				continue
			}
			switch x.Report.Act {
			case Ask:
				delete(s.waiting, t) // the machine asks again
			case Bind:
				w.refuse = true
			default:
			}
		}
	}
	return s.reconsider(now)
}
