package policy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// End says why a flow is remembered no more.
type End uint8

// The ends.
const (
	Active  End = iota // it is still remembered
	Idle               // silent for too long
	Closed             // silent after TCP ended it
	Cut                // policy does not let it pass any more
	Evicted            // its opener began too many
)

func (e End) String() string { return [...]string{"active", "idle", "closed", "cut", "evicted"}[e] }

// Record is what is known of a flow. The counts of a Record that Collect returns are since the one before of the same flow.
type Record struct {
	Opener, Other Identity
	Tuple         Tuple       // as it began
	VLANs         ether.VLANs // on which it is, inside a transparent segment
	Grant         GrantID
	Observed      GrantID // the grant in mode observe that would have let it begin; 0 if there is none
	Began, Last   time.Time
	Frames        [2]uint64 // onward, and answers
	Octets        [2]uint64 // of whole frames
	End           End
}

// tally is a flow's part of a Record, and how much of that Collect has returned.
type tally struct {
	began, told    time.Time
	frames, octets [2]uint64

	toldFrames, toldOctets [2]uint64
}

func (t *tally) add(w way, p *Passage) {
	t.frames[w]++
	t.octets[w] += uint64(len(p.Frame.Data))
}

// records collects the flows that have ended.
type records struct {
	all   atomic.Bool // flows are remembered also where nothing would need it
	mu    sync.Mutex
	ended []Record
	lost  uint64
}

// maxEnded is how many flows that have ended wait for Collect at most.
const maxEnded = 8192

// RecordAll makes Flows remember every flow, also those between two who may send everything to each other. Of a flow that was
// there before, whoever is seen first counts as its opener.
func (f *Flows) RecordAll(on bool) { f.records.all.Store(on) }

// whole is the flow from its beginning on.
func whole(opener Identity, k *flowKey, e *flow) Record {
	return Record{
		Opener: opener, Other: k.other, Tuple: k.tuple, VLANs: k.vlans, Grant: e.grant, Observed: e.observed, Began: e.tally.began,
		Last: e.seen, Frames: e.tally.frames, Octets: e.tally.octets,
	}
}

// since is what Collect has not returned of the flow.
func since(opener Identity, k *flowKey, e *flow, end End) Record {
	r := whole(opener, k, e)
	r.End = end
	for w := range r.Frames {
		r.Frames[w] -= e.tally.toldFrames[w]
		r.Octets[w] -= e.tally.toldOctets[w]
	}
	return r
}

// endLocked forgets a flow.
func (f *Flows) endLocked(s *flowShard, opener Identity, k flowKey, e *flow, end End) {
	delete(s.m, k)
	if end == Idle && e.ending {
		end = Closed
	}
	if e.tally.frames == [2]uint64{} {
		return // another gateway has told of it, and has carried it
	}
	r := &f.records
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ended) == maxEnded {
		r.lost++
		return
	}
	r.ended = append(r.ended, since(opener, &k, e, end))
}

// Collect returns what flows have carried since they were collected last: those that have ended, and the live ones that were not
// collected for as long as every says. lost counts flows that ended and nobody collected in time.
func (f *Flows) Collect(now time.Time, every time.Duration) (out []Record, lost uint64) {
	f.records.mu.Lock()
	out, lost = f.records.ended, f.records.lost
	f.records.ended, f.records.lost = nil, 0
	f.records.mu.Unlock()
	f.each(func(opener Identity, k *flowKey, e *flow) {
		t := &e.tally
		if now.Sub(t.told) < every {
			return
		}
		if t.frames != t.toldFrames {
			out = append(out, since(opener, k, e, Active))
		}
		t.told, t.toldFrames, t.toldOctets = now, t.frames, t.octets
	})
	return out, lost
}

// Live lists the flows that are remembered, with what they have carried from their beginning on.
func (f *Flows) Live() []Record {
	var out []Record
	f.each(func(opener Identity, k *flowKey, e *flow) { out = append(out, whole(opener, k, e)) })
	return out
}

// each calls fn for every flow, with its shard locked.
func (f *Flows) each(fn func(Identity, *flowKey, *flow)) {
	for opener, set := range *f.openers.Load() {
		for i := range set {
			s := &set[i]
			s.mu.Lock()
			for k, e := range s.m {
				fn(opener, &k, e)
			}
			s.mu.Unlock()
		}
	}
}
