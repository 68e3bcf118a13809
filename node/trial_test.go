package node

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/transport"
)

func newTrial(t *testing.T) *Trial {
	t.Helper()
	tr, err := NewTrial(transport.AES256GCM,
		TrialEnd{ether.MAC{2, 0, 0, 0, 0, 1}, netip.MustParseAddr("192.0.2.1")},
		TrialEnd{ether.MAC{2, 0, 0, 0, 0, 2}, netip.MustParseAddr("192.0.2.2")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

func trialFrame(src byte, n int) []byte {
	f := make([]byte, n)
	copy(f, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, src, 0x88, 0xb5})
	return f
}

// What a Trial is sent arrives, whole, through both switches.
func TestTrialCarries(t *testing.T) {
	tr := newTrial(t)
	for round := uint64(1); round <= 3; round++ {
		tr.Send([][]byte{trialFrame(1, 64), trialFrame(1, 1514), trialFrame(1, 700)}, ether.Offload{})
		if err := tr.Receive(); err != nil {
			t.Fatal(err)
		}
		if frames, octets := tr.Arrived(); frames != 3*round || octets != (64+1514+700)*round {
			t.Errorf("round %d: %d frames, %d bytes", round, frames, octets)
		}
	}
	if err := tr.Refused(); err != nil {
		t.Error(err)
	}
	for _, s := range []*segment{tr.near, tr.far} {
		for _, p := range s.sw.Ports() {
			if c := p.Stats(); c.RxFrames+c.TxFrames != 9 {
				t.Errorf("port %s of node %d: %+v", p.Name, p.Identity, c)
			}
		}
	}
}

// A Trial admits as a node does, and says what it has refused.
func TestTrialAdmits(t *testing.T) {
	tr := newTrial(t)
	tr.Send([][]byte{trialFrame(3, 64)}, ether.Offload{})
	tr.Send([][]byte{trialFrame(1, 64)}, ether.Offload{Checksum: true, Size: 100})
	if err := tr.Receive(); err != nil {
		t.Fatal(err)
	}
	if frames, _ := tr.Arrived(); frames != 0 {
		t.Errorf("%d frames arrived", frames)
	}
	if err := tr.Refused(); err == nil || strings.Count(err.Error(), "1 frames") != 2 {
		t.Errorf("Refused = %v", err)
	}
}
