package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/node/statedir"
	"github.com/etherloom/etherloom/transport"
)

// saver writes what must outlive the process, on a goroutine of its own: a slow disk must not hold up a change of policy.
// Only the newest of each thing is written.
type saver struct {
	wake chan struct{}

	mu     sync.Mutex
	state  []byte
	memory *transport.Remembered
	member *statedir.Membership
}

func newSaver() *saver { return &saver{wake: make(chan struct{}, 1)} }

func (s *saver) put(set func()) {
	s.mu.Lock()
	set()
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write writes what waits. What could not be written waits on, unless something newer has come.
func (s *saver) write(dir *statedir.Dir) error {
	s.mu.Lock()
	stateData, memory, member := s.state, s.memory, s.member
	s.state, s.memory, s.member = nil, nil, nil
	s.mu.Unlock()
	var errs []error
	if stateData != nil {
		if err := dir.SaveState(stateData); err != nil {
			errs = append(errs, err)
			s.restore(func() {
				if s.state == nil {
					s.state = stateData
				}
			})
		}
	}
	if memory != nil {
		if err := dir.SaveMemory(*memory); err != nil {
			errs = append(errs, err)
			s.restore(func() {
				if s.memory == nil {
					s.memory = memory
				}
			})
		}
	}
	if member != nil {
		if err := dir.SaveMembership(*member); err != nil {
			errs = append(errs, err)
			s.restore(func() {
				if s.member == nil {
					s.member = member
				}
			})
		}
	}
	return errors.Join(errs...)
}

func (s *saver) restore(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// retryWrite is how long after a failure the disk is tried again.
const retryWrite = 5 * time.Second

// keepSaved writes until ctx ends.
func (d *Daemon) keepSaved(ctx context.Context) error {
	retry := time.NewTimer(retryWrite)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.saver.wake:
		case <-retry.C:
		}
		err := d.saver.write(d.dir)
		d.mu.Lock()
		d.problemLocked("disk", err)
		d.mu.Unlock()
		retry.Reset(retryWrite)
	}
}

func (d *Daemon) saveStateLocked() {
	data, err := d.held.Load().Marshal()
	d.problemLocked("state", err)
	if err == nil {
		d.saver.put(func() { d.saver.state = data })
	}
}

func (d *Daemon) remember(r transport.Remembered) {
	d.saver.put(func() { d.saver.memory = &r })
}

// keepMembershipLocked keeps where the controllers are now, so that a later start finds them.
func (d *Daemon) keepMembershipLocked(c *state.Contents) {
	m := d.member
	if urls := c.Settings.GetControllers(); len(urls) > 0 {
		m.Controllers = urls
	}
	m.Zone = c.Settings.GetZone()
	if m.Zone != d.member.Zone || !slices.Equal(m.Controllers, d.member.Controllers) {
		d.member = m
		d.saver.put(func() { d.saver.member = &m })
	}
}
