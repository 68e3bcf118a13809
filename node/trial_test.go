package node

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/ether"
	vswitch "github.com/etherloom/etherloom/switch"
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

// TCP is told what fits into one datagram, so that its segments need not be cut.
func TestSegmentSizeIsTold(t *testing.T) {
	tr := newTrial(t)
	kept := &keeping{}
	tr.far.local = vswitch.NewPort("host", vswitch.Local, trialFar, kept)
	for _, p := range tr.far.sw.Ports() {
		if p.Kind == vswitch.Local {
			tr.far.sw.RemovePort(p)
		}
	}
	tr.far.sw.AddPort(tr.far.local)
	syn := append(trialFrame(1, 14), []byte{
		0x45, 0, 0, 44, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
		0x80, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 1460 >> 8, 1460 & 0xff,
	}...)
	syn[12], syn[13] = 8, 0
	undone, ok := ether.Partial(syn)
	if !ok {
		t.Fatal("the SYN makes no sense")
	}
	tr.Send([][]byte{syn}, undone)
	// Receive counts what its own host gets; here another does.
	if err := tr.Receive(); err != nil {
		t.Fatal(err)
	}
	if len(kept.frame) != len(syn) {
		t.Fatalf("the host has %d bytes", len(kept.frame))
	}
	mss := int(kept.frame[len(syn)-2])<<8 | int(kept.frame[len(syn)-1])
	if want := transport.MaxInOne - tagSize - 14 - 20 - 20; mss != want {
		t.Errorf("TCP is told %d, want %d", mss, want)
	}
	// A segment of that size, and with 12 bytes of options fewer of payload, is one datagram.
	if n := 14 + 20 + 20 + mss; n+tagSize > tr.loop.Peer.Largest() {
		t.Errorf("a frame of %d bytes does not fit", n)
	}
}

// keeping is a host that keeps the last frame.
type keeping struct{ frame []byte }

func (k *keeping) Send(frame []byte, _ ether.Offload, _ vswitch.Tag, _ vswitch.Lane) {
	k.frame = append(k.frame[:0], frame...)
}
