package node

import (
	"time"

	"github.com/etherloom/etherloom/bridge"
)

// This file tries again what could not be opened, a TAP or a wire. What stands in the way may go without notice: a kernel module is loaded, a disk
// has room again. And nobody waits for a notice who makes them himself: a wire that fails half-way has made a TAP and removed it, and the
// kernel tells of both.

// attempt is one to open something, which has failed.
type attempt struct {
	err  error
	next time.Time // when it is tried again
	wait time.Duration
}

// What could not be opened is tried again after so long, and each time after twice as long.
const (
	againFirst = time.Second
	againMost  = 30 * time.Second
)

// failedLocked takes down that something could not be opened.
func (d *Daemon) failedLocked(about string, err error, now time.Time) {
	wait := againFirst
	if a := d.attempts[about]; a != nil {
		wait = min(2*a.wait, againMost)
	}
	d.attempts[about] = &attempt{err, now.Add(wait), wait}
}

// pausesLocked is why a wire is not tried now. What speaks against it from the start is no failure: it is looked at each time, and tried at once when
// that is gone.
func (d *Daemon) pausesLocked(cfg bridge.WireConfig, to device, now time.Time) error {
	a := d.attempts[to.String()]
	if a == nil || !now.Before(a.next) {
		return nil
	}
	if err := bridge.CanTake(cfg); err != nil {
		delete(d.attempts, to.String())
		return err
	}
	return a.err
}

// againLocked has the next attempt be made in time.
func (d *Daemon) againLocked(now time.Time) {
	var next time.Time
	for _, a := range d.attempts {
		if next.IsZero() || a.next.Before(next) {
			next = a.next
		}
	}
	if d.again != nil {
		d.again.Stop()
	}
	if next.IsZero() || d.ctx.Err() != nil {
		return
	}
	d.again = time.AfterFunc(max(next.Sub(now), 0)+time.Millisecond, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.applyLocked(time.Now())
	})
}
