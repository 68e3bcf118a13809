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

// report queues a report, in the place of one that tells the same.
func (s *Service) report(r *Report, now time.Time) {
	r.since = now
	same := func(o *Report) bool { return o.key() == r.key() }
	if len(s.queue) < maxQueue && !slices.ContainsFunc(s.queue, same) {
		s.queue = append(s.queue, r)
	}
}

// Reports returns what is to be told now, in order: what a machine waits for at once, the rest together and a little later.
func (s *Service) Reports(now time.Time) []*Report {
	urgent := func(r *Report) bool { return r.Act != Renew && r.Act != LetGo || now.Sub(r.since) >= renewDelay }
	if !slices.ContainsFunc(s.queue, urgent) {
		return nil
	}
	return slices.Clone(s.queue[:min(len(s.queue), reportsOnce)])
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
