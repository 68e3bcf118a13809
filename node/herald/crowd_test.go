package herald

import (
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// A machine that makes up addresses and concerns no peer costs nothing for each of a thousand peers that others concern.
func TestFloodConcernsNobody(t *testing.T) {
	const peers, addresses, host, flooder = 1000, 3000, 5000, 5001
	h := New(Config{Table: fdb.New[vswitch.Place](fdb.Limits{})})
	h.audience = map[policy.Identity][]policy.Identity{flooder: {peers + 1}}
	for id := range policy.Identity(peers) {
		h.audience[host] = append(h.audience[host], id+1)
	}
	for i := range addresses {
		h.noteLocked(ether.MAC{2, 3: byte(i >> 8), 4: byte(i)}, claim{who: flooder})
	}
	look := func() (told int) {
		h.whoseLocked()
		for id := range policy.Identity(peers + 1) {
			if entries, more := h.news(id + 1); len(entries) > 0 && more == addresses {
				told++
			}
			if h.hasMoved(id + 1) {
				t.Fatal("nothing has moved")
			}
		}
		return told
	}
	best := time.Hour
	for range 5 {
		began := time.Now()
		if told := look(); told != 1 {
			t.Fatalf("%d peers are told", told)
		}
		best = min(best, time.Since(began))
	}
	if best > 10*time.Millisecond {
		t.Errorf("it takes %v", best)
	}
	// With a change of the host's, all are told, and of that alone.
	h.noteLocked(ether.MAC{2, 1}, claim{who: host})
	h.whoseLocked()
	for id := range policy.Identity(peers) {
		if entries, more := h.news(id + 1); len(entries) != entryLen || more != 1 {
			t.Fatalf("peer %d is told %d bytes", id+1, len(entries))
		}
	}
}
