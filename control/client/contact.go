package client

import (
	"sync"
	"time"
)

// contact follows when any controller is heard.
type contact struct {
	mu    sync.Mutex
	count int       // streams that are up
	began time.Time // of the present contact
	last  time.Time // end of the last contact that had settled
	gap   time.Time // when the last stream went down
}

// contactGap is how long contact may be gone and still count as one: streams are replaced when a certificate is.
const contactGap = 5 * time.Second

func (c *contact) up(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == 0 && (c.began.IsZero() || now.Sub(c.gap) > contactGap) {
		c.began = now
	}
	c.count++
}

func (c *contact) down(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count--
	if c.count == 0 {
		c.gap = now
	}
}

func (c *contact) now() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count > 0
}

// settled is the last moment at which contact had lasted for the time given.
func (c *contact) settled(after time.Duration) time.Time { return c.settledAt(after, time.Now()) }

func (c *contact) settledAt(after time.Duration, now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.began.IsZero() {
		return c.last
	}
	end := c.gap
	if c.count > 0 {
		end = now
	}
	if end.Sub(c.began) >= after {
		c.last = end
	}
	return c.last
}
