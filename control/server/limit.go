package server

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// buckets limits how often each of many parties may do something. Parties that have been quiet are forgotten; when too
// many are there at once, the newcomers share one bucket, so a flood of sources costs bounded memory.
type buckets[K comparable] struct {
	rate  rate.Limit
	burst int
	most  int

	mu   sync.Mutex
	each map[K]*rate.Limiter
	rest *rate.Limiter
}

func newBuckets[K comparable](perSecond float64, burst, most int) *buckets[K] {
	return &buckets[K]{
		rate: rate.Limit(perSecond), burst: burst, most: most, each: map[K]*rate.Limiter{},
		rest: rate.NewLimiter(rate.Limit(perSecond), burst),
	}
}

// allow takes one token from a party's bucket, and reports whether there was one.
func (b *buckets[K]) allow(party K, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, ok := b.each[party]
	if !ok {
		if len(b.each) >= b.most {
			b.forgetLocked(now)
		}
		if len(b.each) >= b.most {
			return b.rest.AllowN(now, 1)
		}
		l = rate.NewLimiter(b.rate, b.burst)
		b.each[party] = l
	}
	return l.AllowN(now, 1)
}

// forgetLocked drops full buckets: their parties lose nothing by it.
func (b *buckets[K]) forgetLocked(now time.Time) {
	for party, l := range b.each {
		if l.TokensAt(now) >= float64(b.burst) {
			delete(b.each, party)
		}
	}
}

// maxSources is how many sources or nodes are limited one by one.
const maxSources = 10000

type sourceBuckets = buckets[netip.Prefix]
