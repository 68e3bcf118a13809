package node

import (
	"testing"
	"time"

	"github.com/etherloom/etherloom/identity"
)

// What a peer sends goes to those who know its format: a hello to the elections, which count what is none. An empty message goes
// to nobody.
func TestIngressHello(t *testing.T) {
	for name, c := range map[string]struct {
		message   []byte
		malformed uint64
	}{
		"no hello":        {[]byte{formatHello, 0, 0, 0, 1, 2, 3}, 1},
		"half its header": {[]byte{formatHello, 0}, 0},
		"nothing":         {nil, 0},
		"a format of tomorrow, that looks like a hello": {[]byte{formatHello + 11, 0, 0, 0, 1, 2, 3}, 0},
	} {
		_, d, in := newDoor(t)
		d.sentinel = &sentinel{d: d}
		in.Receive(identity.ID(trialNear), c.message, time.Now())
		if n := d.malformed.Load(); n != c.malformed {
			t.Errorf("%s: %d malformed, want %d", name, n, c.malformed)
		}
	}
}
