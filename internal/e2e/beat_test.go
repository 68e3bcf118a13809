package e2e

import (
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
)

// beatEvery is how often a beat sends a frame: what is measured by it is exact to that.
const beatEvery = 5 * time.Millisecond

// beat sends marked frames from one node's TAP to another's, as root there can, whatever becomes of them. What the other
// host gets is captured on its TAP, with the kernel's time.
type beat struct {
	name   string
	marker []byte
	tap    *lab.Capture
	stop   chan struct{}
	done   chan int
}

// beats is one each way.
type beats [2]*beat

// beating starts beats between two nodes, and waits until both are heard.
func (r *rig) beating(a, b *world.Node, macA, macB net.HardwareAddr, within time.Duration) beats {
	r.Helper()
	round := time.Now().UnixNano()
	out := beats{r.beat(a, b, macA, macB, round), r.beat(b, a, macB, macA, round)}
	for _, w := range out {
		r.await("frames flow "+w.name, within, func() bool {
			n, _, err := w.tap.Seen(w.marker)
			return err == nil && n > 10
		})
	}
	return out
}

func (r *rig) beat(from, to *world.Node, src, dst net.HardwareAddr, round int64) *beat {
	r.Helper()
	w := &beat{name: from.Name + " to " + to.Name, stop: make(chan struct{}), done: make(chan int, 1)}
	w.marker = fmt.Appendf(nil, "beat %s, round %d;", w.name, round)
	var err error
	w.tap, err = to.Host.Capture("loom0")
	r.ok(err)
	socket := r.tapSocket(from.Host)
	frame := append(ethernet(dst, src, 0x88b5), w.marker...)
	frame = append(frame, make([]byte, 64)...)
	go func() {
		defer unix.Close(socket)
		tick := time.NewTicker(beatEvery)
		defer tick.Stop()
		for sent := 0; ; sent++ {
			select {
			case <-w.stop:
				w.done <- sent
				return
			case <-tick.C:
				_ = unix.Send(socket, frame, unix.MSG_DONTWAIT) // the TAP may be gone
			}
		}
	}()
	return w
}

// silence waits for some time, ends the beats, and returns how long after a moment the last frame came each way: below
// zero if it came before.
func (r *rig) silence(w beats, since time.Time, wait time.Duration) (after [2]time.Duration) {
	r.Helper()
	time.Sleep(time.Until(since.Add(wait)))
	for i, b := range w {
		close(b.stop)
		sent := <-b.done
		n, last, err := b.tap.Seen(b.marker)
		r.ok(err)
		r.ok(b.tap.Stop())
		if n == 0 {
			r.Errorf("%s: %d of %d frames arrived", b.name, n, sent)
		}
		after[i] = last.Sub(since)
	}
	return after
}
