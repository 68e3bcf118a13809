package policy

import (
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// Budget says against which limit a frame counts.
type Budget uint8

// The classes. A frame is of one alone.
const (
	Unlimited Budget = iota // to one station
	Broadcasts
	Multicasts
	Control // ARP and neighbour discovery to many, and DHCP
	Join    // reports of IGMP and MLD
	numClasses

	resolution // ARP and neighbour discovery, before it is known to whom
)

// of is the budget of a frame that goes to dst. What resolves addresses counts only if it goes to many: a host answers whoever asks,
// each alone, and its answers must not use up what it may ask itself; or who asks it often enough would silence it.
func (c Budget) of(dst ether.MAC) Budget {
	switch {
	case c == resolution && dst.IsGroup():
		return Control
	case c == resolution:
		return Unlimited
	case c == Unlimited && dst == ether.Broadcast:
		return Broadcasts
	case c == Unlimited && dst.IsGroup():
		return Multicasts
	default:
		return c
	}
}

// Limits says how many frames of each budget one identity may send to a segment, on average in a second; 0: any number. What
// goes to many costs everybody, and what hosts answer or remember costs more.
type Limits struct{ Broadcast, Multicast, Control, Joins int }

// DefaultLimits are far above what honest hosts send:
//
//   - Broadcast: what is not ARP or DHCP is discovery and announcements, a few a minute from each program.
//   - Multicast: four streams of 50 Mbit/s in datagrams of 1316 bytes, each about 4800 a second.
//   - Control: Linux asks for at most 1024 neighbours of each family at once, once a second each (neighbour table,
//     gc_thresh3 and retrans_time), as a gateway may after it has lost them all. 15 a second, as of ARP inspection on switches'
//     access ports, is a limit for one host that talks to few.
//   - Joins: a host may join hundreds of groups when it starts, with IGMPv2 and MLDv1 by a report each.
func DefaultLimits() Limits {
	return Limits{Broadcast: 1000, Multicast: 20000, Control: 2500, Joins: 200}
}

// of returns the limit of a budget, and how a frame is refused that exceeds it.
func (l *Limits) of(c Budget) (rate int, refusal Verdict) {
	switch c {
	case Broadcasts:
		return l.Broadcast, BroadcastRate
	case Multicasts:
		return l.Multicast, MulticastRate
	case Control:
		return l.Control, ControlRate
	case Join:
		return l.Joins, JoinRate
	default:
		return 0, Pass
	}
}

// How much a limit bears at once: what it allows in this time, and no less than so many frames, which a super-frame may stand for.
const (
	burstTime   = 2 * time.Second
	burstFrames = 64
	pacedTime   = 50 * time.Millisecond
)

// Meter measures what one identity sends to one segment. Any number of goroutines may use it. Of each budget it keeps one time:
// when all that was sent would have been, at the limit's pace (the generic cell rate algorithm, ITU-T I.371 annex A).
type Meter struct{ due [numClasses]atomic.Int64 }

// Take counts frames, and refuses those that exceed their limit. now is by any clock that does not go back. tolerance is how
// many times as much is borne at once: a receiver bears more than the sender's own node, since the way between them delays some
// frames more than others.
func (m *Meter) Take(l *Limits, c Budget, frames int, now time.Duration, tolerance int) Verdict {
	return m.take(l, c, frames, now, tolerance, true)
}

// Look says what Take would, and counts nothing.
func (m *Meter) Look(l *Limits, c Budget, frames int, now time.Duration, tolerance int) Verdict {
	return m.take(l, c, frames, now, tolerance, false)
}

// TakePaced is Take at a pace that bears only what comes together in a twentieth of a second, as a switch's storm control does.
func (m *Meter) TakePaced(l *Limits, c Budget, frames int, now time.Duration) Verdict {
	return m.paced(l, c, frames, now, true)
}

// LookPaced says what TakePaced would, and counts nothing.
func (m *Meter) LookPaced(l *Limits, c Budget, frames int, now time.Duration) Verdict {
	return m.paced(l, c, frames, now, false)
}

// paced lets a super-frame in whole if the first frame that it stands for may come in: the others are owed. Otherwise one that stands
// for more than the pace bears would never pass, however long nothing else has come.
func (m *Meter) paced(l *Limits, c Budget, frames int, now time.Duration, count bool) Verdict {
	rate, _ := l.of(c)
	if rate <= 0 {
		return Pass
	}
	each := time.Second / time.Duration(rate)
	return m.pace(l, c, frames, now, max(pacedTime, each)+time.Duration(frames-1)*each, count)
}

func (m *Meter) take(l *Limits, c Budget, frames int, now time.Duration, tolerance int, count bool) Verdict {
	rate, _ := l.of(c)
	if rate <= 0 {
		return Pass
	}
	bears := max(burstTime, burstFrames*time.Second/time.Duration(rate)) * time.Duration(tolerance)
	return m.pace(l, c, frames, now, bears, count)
}

func (m *Meter) pace(l *Limits, c Budget, frames int, now, bears time.Duration, count bool) Verdict {
	rate, refusal := l.of(c)
	if rate <= 0 {
		return Pass
	}
	each := time.Second / time.Duration(rate)
	bears = max(bears, each)
	for {
		due := m.due[c].Load()
		next := max(due, int64(now)) + int64(frames)*int64(each)
		if next-int64(now) > int64(bears) {
			return refusal
		}
		if !count || m.due[c].CompareAndSwap(due, next) {
			return Pass
		}
	}
}
