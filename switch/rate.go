package vswitch

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// This file holds what enters and leaves by a port to its rate, as a policer does (tc-police(8)): a frame that exceeds it is dropped, and
// none waits. The bucket is a time: when all that has passed would have, at the rate (the generic cell rate algorithm, ITU-T I.371 annex
// A). It goes by the clock of the batch.

// rate is how much may pass in one direction.
type rate struct {
	bits  int64 // in a second, of whole frames, without what a cable adds (preamble, FCS); 0: any number
	burst int64 // octets that may come at once; 0: as below
}

// What a port bears at once if nothing else is set: what its rate carries in this time, and no less than two frames, for of one alone
// much would be lost between those that come when it is full.
const (
	rateTime   = 50 * time.Millisecond
	rateOctets = 2 * 1514
)

const (
	minBits  = 8_000
	maxBits  = 100_000_000_000
	maxBurst = 1 << 30
)

// bucket measures what passes in one direction. Any number of goroutines may use it.
type bucket struct{ due atomic.Int64 }

// takes reports whether frames of so many octets, of which the first has so many, may pass now, and counts them unless somebody only asks.
// A super-frame passes whole if its first frame may: the others are owed.
func (b *bucket) takes(r rate, octets, first int, now time.Duration, count bool) bool {
	cost := r.time(int64(octets))
	bears := r.bears() + cost - r.time(int64(first))
	for {
		due := b.due.Load()
		next := max(due, int64(now)) + cost
		if next-int64(now) > max(bears, cost) {
			return false
		}
		if !count || b.due.CompareAndSwap(due, next) {
			return true
		}
	}
}

// time is how long octets take at the rate, in nanoseconds, to the nearest.
func (r rate) time(octets int64) int64 { return (octets*8*int64(time.Second) + r.bits/2) / r.bits }

func (r rate) bears() int64 {
	if r.burst > 0 {
		return r.time(r.burst)
	}
	return max(int64(rateTime), r.time(rateOctets))
}

// octetsOf is how many octets the frames have together for which one stands, and how many the first of them.
func octetsOf(frame []byte, undone ether.Offload) (all, first int) {
	cut, super := ether.Cut(frame, undone, len(frame))
	if !super || cut.Len() == len(frame) {
		return len(frame), len(frame)
	}
	head := cut.Len() - int(undone.Size)
	count := (len(frame) - head + int(undone.Size) - 1) / int(undone.Size)
	return len(frame) + (count-1)*head, cut.Len()
}

// exceeds reports whether a frame that enters by the port, or leaves by it, is more than its rate.
func (p *Port) exceeds(l *layout, c *carriage, entering bool) bool {
	a, b, count := p.attributes.Load(), &p.leaving, &p.counters.txRate
	r := rate{a.RateOut, a.BurstOut}
	if entering {
		b, count, r = &p.entering, &p.counters.rxRate, rate{a.RateIn, a.BurstIn}
	}
	if r.bits == 0 {
		return false
	}
	all, first := octetsOf(c.Frame.Data, c.undone)
	if b.takes(r, all, first, c.Now.Sub(l.start), c.asked == nil) {
		return false
	}
	if c.asked == nil {
		count.Add(1)
	}
	return true
}

// unit is one of tc(8): by which factor a number of it is bits, or octets.
type unit struct {
	name   string
	factor float64
}

// The units of tc(8), the longest first of those that begin alike; those of rates are bits a second (RATES), those of sizes octets (SIZES).
var (
	rateUnits = []unit{ //nolint:gochecknoglobals // a constant table
		{"tibit", 1 << 40},
		{"gibit", 1 << 30},
		{"mibit", 1 << 20},
		{"kibit", 1 << 10},
		{"tbit", 1e12},
		{"gbit", 1e9},
		{"mbit", 1e6},
		{"kbit", 1e3},
		{"tibps", 8 << 40},
		{"gibps", 8 << 30},
		{"mibps", 8 << 20},
		{"kibps", 8 << 10},
		{"tbps", 8e12},
		{"gbps", 8e9},
		{"mbps", 8e6},
		{"kbps", 8e3},
		{"bit", 1},
		{"bps", 8},
		{"t", 1e12},
		{"g", 1e9},
		{"m", 1e6},
		{"k", 1e3},
		{"", 1},
	}
	sizeUnits = []unit{ //nolint:gochecknoglobals // a constant table
		{"gbit", 1 << 27},
		{"mbit", 1 << 17},
		{"kbit", 1 << 7},
		{"gb", 1 << 30},
		{"mb", 1 << 20},
		{"kb", 1 << 10},
		{"g", 1 << 30},
		{"m", 1 << 20},
		{"k", 1 << 10},
		{"b", 1},
		{"", 1},
	}
)

// measured reads a number with one of the units, of which the last is none.
func measured(text string, units []unit) (int64, bool) {
	lower := strings.ToLower(text)
	u := units[slices.IndexFunc(units, func(u unit) bool { return strings.HasSuffix(lower, u.name) })]
	number := strings.TrimSuffix(lower, u.name)
	n, err := strconv.ParseFloat(number, 64)
	n = math.Round(n * u.factor)
	plain := number != "" && strings.Trim(number, "0123456789.") == ""
	return int64(n), err == nil && plain && n < 1<<62
}

// shape reads a rate or, if there is none, a size.
func shape(rate, burst *int64, key, value string) error {
	if rate != nil {
		return setRate(rate, key, value)
	}
	return setBurst(burst, key, value)
}

// setRate reads a rate in bits a second; 0 is any.
func setRate(to *int64, key, value string) error {
	n, ok := measured(value, rateUnits)
	if !ok || n != 0 && (n < minBits || n > maxBits) {
		return fmt.Errorf("%s is a rate from 8kbit to 100gbit with a unit of tc(8), such as 10mbit, or 0 for any, found %q", key, value)
	}
	*to = n
	return nil
}

// setBurst reads a size in octets; 0 is what suits the rate.
func setBurst(to *int64, key, value string) error {
	n, ok := measured(value, sizeUnits)
	if !ok || n > maxBurst {
		return fmt.Errorf("%s is a size of at most 1g with a unit of tc(8), such as 64k, or 0 for what suits the rate, found %q", key, value)
	}
	*to = n
	return nil
}

// rateText is a rate as setRate takes it, in the greatest unit of which it is a whole number.
func rateText(bits int64) string {
	for _, u := range []unit{{"gbit", 1e9}, {"mbit", 1e6}, {"kbit", 1e3}} {
		if bits != 0 && bits%int64(u.factor) == 0 {
			return strconv.FormatInt(bits/int64(u.factor), 10) + u.name
		}
	}
	return strconv.FormatInt(bits, 10)
}

// burstText is a size as setBurst takes it.
func burstText(octets int64) string {
	for _, u := range []unit{{"m", 1 << 20}, {"k", 1 << 10}} {
		if octets != 0 && octets%int64(u.factor) == 0 {
			return strconv.FormatInt(octets/int64(u.factor), 10) + u.name
		}
	}
	return strconv.FormatInt(octets, 10)
}
