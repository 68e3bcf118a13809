package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/lab"
)

// A node that goes on sending after its grant was removed, as if it had not heard, is cut off by who receives, in under a
// second.
func TestReceiverRefusesRemovedGrant(t *testing.T) {
	r := newRefusal(t, "mallory", "victim", "bob")
	r.reaches()
	// A daemon that does not obey is one that never hears: it keeps its TAP, its sessions and what it believes.
	const https = 443
	_, err := r.mallory.Uplink.Drop(lab.Match{Protocol: unix.IPPROTO_TCP, ToPort: https}, lab.Match{Protocol: unix.IPPROTO_TCP, FromPort: https})
	r.ok(err)
	tap, err := r.victim.Host.Capture("loom0")
	r.ok(err)
	const marker = "still-here"
	honest := &attack{name: "after the grant", frame: append(ethernet(r.v.mac, r.m.mac, 0x88b5), marker...)}

	removed := make(chan time.Time, 1)
	go func() {
		time.Sleep(time.Second)
		_, err := r.Admin(r.ctx, "grant", "remove", r.grants["mallory"])
		removed <- time.Now()
		if err != nil {
			t.Error(err)
		}
	}()
	r.send(6*time.Second, honest)
	at := <-removed
	r.ok(tap.Stop())
	count, last := r.lastSeen(tap, marker)
	t.Logf("%d of %d frames reached victim, the last %v after the command's end; refused: %v",
		count, honest.sent, last.Sub(at), r.dropped(r.victim))
	if count < attackRate/2 {
		t.Errorf("%d frames reached victim: too few before the grant was removed", count)
	}
	if after := last.Sub(at); after > time.Second {
		t.Errorf("a frame reached victim %v after the grant was removed", after)
	}
	if r.local(r.mallory).Port == "" {
		t.Error("mallory's daemon has heard of it: the test shows nothing")
	}
	r.pings(r.victim.Host, r.b.v4.String(), time.Second)
}

// lastSeen reads a capture: how many frames have the marker, and when the last of them was there.
func (r *rig) lastSeen(tap *lab.Capture, marker string) (count int, last time.Time) {
	r.Helper()
	file, err := os.Open(tap.Path())
	r.ok(err)
	defer file.Close()
	reader, err := pcapgo.NewReader(bufio.NewReader(file))
	r.ok(err)
	for {
		frame, info, err := reader.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return count, last
		}
		r.ok(err)
		if bytes.HasSuffix(frame, []byte(marker)) {
			count, last = count+1, info.Timestamp
		}
	}
}

// A grant in a frame proves nothing: naming another's, or one that is no more, lets nothing pass, although the sender is a
// member of the segment.
func TestReceiverRefusesForgedGrant(t *testing.T) {
	r := newRefusal(t, "bob", "victim", "mallory")
	frame := func() []byte { return ethernet(r.v.mac, r.m.mac, 0x88b5) }
	r.opened()
	r.refused(&attack{name: "bob's grant", reason: "wrong-grant", frame: frame()})

	_, err := r.Admin(r.ctx, "grant", "remove", r.grants["bob"])
	r.ok(err)
	_, err = r.Grant(r.ctx, "node:bob", "segment:lan")
	r.ok(err)
	r.pings(r.victim.Host, r.b.v4.String(), 10*time.Second)
	r.refused(&attack{name: "a grant that is no more", reason: "unknown-grant", frame: frame()})
}

// opened waits until mallory has a direct link to victim, although no frame of its own passes.
func (r *refusal) opened() {
	r.Helper()
	r.send(attackProbe, &attack{name: "opens the link", frame: ethernet(r.v.mac, r.m.mac, 0x88b5)})
	r.awaitPath(r.mallory, "victim", "direct", 20*time.Second)
}
