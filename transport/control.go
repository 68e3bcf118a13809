package transport

import (
	"context"
	"time"
)

// tick is how often the control loop looks at every open link.
const tick = 100 * time.Millisecond

// runControl is the one loop that drives everything but data.
func (e *Endpoint) runControl(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case in := <-e.handshakes:
			e.handshake(in, time.Now())
		case p := <-e.wakeups:
			e.open(p, time.Now())
		case now := <-ticker.C:
			e.tick(now)
		}
	}
}

func (e *Endpoint) open(p *Peer, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.openLocked(p, now)
}

func (e *Endpoint) tick(now time.Time) {
	e.coarse.Store(now.UnixNano())
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.peers {
		e.tendLocked(p, now)
	}
	for _, s := range e.sockets {
		e.tendMappingLocked(s, now)
	}
	e.rememberLocked()
}
