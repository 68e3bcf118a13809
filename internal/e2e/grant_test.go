package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// Removing a grant stops a running ping in under a second, both ways, and the TAP, the peer and the name go with it.
func TestGrantRemoved(t *testing.T) {
	r := newRig(t)
	a := r.site("a", lab.PortPreserving)
	b := r.site("b", lab.PortPreserving)
	_, err := r.Grant(r.ctx, "node:a", "segment:lan")
	r.ok(err)
	for round := range 3 {
		grant, err := r.Grant(r.ctx, "node:b", "segment:lan")
		r.ok(err)
		addr := r.addresses(a, b)
		r.pings(a.Host, addr[1], 10*time.Second)
		r.pings(b.Host, addr[0], 10*time.Second)

		there, back := r.stamped(a, addr[1]), r.stamped(b, addr[0])
		time.Sleep(500 * time.Millisecond)
		_, err = r.Admin(r.ctx, "grant", "remove", grant)
		r.ok(err)
		removed := time.Now()
		time.Sleep(1500 * time.Millisecond)
		for name, s := range map[string]*stamps{"a to b": there, "b to a": back} {
			last := s.stop()
			if last.IsZero() {
				t.Errorf("%s: no ping was answered before", name)
			}
			t.Logf("round %d, %s: the last answer came %v after the command's end", round, name, last.Sub(removed))
			if last.Sub(removed) > time.Second {
				t.Errorf("%s: answered for %v after the grant was removed", name, last.Sub(removed))
			}
		}
		r.await("b's TAP is gone", 2*time.Second, func() bool {
			out, err := b.Host.Run(r.ctx, "ip", "-br", "link")
			return err == nil && !strings.Contains(out, "loom")
		})
		if p := r.peer(a, "b"); p.ID != 0 {
			t.Errorf("a still knows b: %+v", p)
		}
		if out, err := a.Host.Run(r.ctx, "getent", "hosts", "b.etherloom.internal"); err == nil {
			t.Errorf("a still resolves b: %s", out)
		}
	}
}

// stamps pings and remembers when the last answer came.
type stamps struct {
	stopping chan struct{}
	done     chan time.Time
}

func (r *rig) stamped(from *world.Node, to string) *stamps {
	s := &stamps{make(chan struct{}), make(chan time.Time, 1)}
	go func() {
		var last time.Time
		for {
			select {
			case <-s.stopping:
				s.done <- last
				return
			default:
			}
			replies, err := from.Host.Ping(r.ctx, to, lab.Echo{Count: 1, Wait: 100 * time.Millisecond})
			if err == nil && replies.Received > 0 {
				last = time.Now()
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return s
}

func (s *stamps) stop() time.Time {
	close(s.stopping)
	return <-s.done
}

// A grant that expires cuts without anybody's doing, also without a controller.
func TestGrantExpires(t *testing.T) {
	r := newRig(t)
	a := r.site("a", lab.PortPreserving)
	b := r.site("b", lab.PortPreserving)
	_, err := r.Grant(r.ctx, "node:a", "segment:lan")
	r.ok(err)
	_, err = r.Grant(r.ctx, "node:b", "segment:lan", "--expires", "6s")
	r.ok(err)
	end := time.Now().Add(6 * time.Second)
	addr := r.addresses(a, b)
	r.pings(a.Host, addr[1], 4*time.Second)
	r.killController()
	time.Sleep(time.Until(end) + 500*time.Millisecond)
	r.silent(a.Host, addr[1])
	if out, err := b.Host.Run(r.ctx, "ip", "-br", "link"); err != nil || strings.Contains(out, "loom") {
		t.Errorf("after the grant's end b still has a TAP: %s, %v", out, err)
	}
}

// A locked node is cut off at once, is told why, and comes back when it is unlocked; a removed one does not.
func TestLock(t *testing.T) {
	r := newRig(t)
	a := r.site("a", lab.PortPreserving, "--label", "team=x")
	b := r.site("b", lab.PortPreserving, "--label", "team=x")
	_, err := r.Grant(r.ctx, "label:team=x", "segment:lan")
	r.ok(err)
	addr := r.addresses(a, b)
	r.pings(a.Host, addr[1], 10*time.Second)
	there := r.stamped(a, addr[1])
	time.Sleep(300 * time.Millisecond)
	_, err = r.Admin(r.ctx, "node", "lock", "b", "--message", "lost laptop")
	r.ok(err)
	locked := time.Now()
	time.Sleep(1500 * time.Millisecond)
	if last := there.stop(); last.Sub(locked) > time.Second {
		t.Errorf("answered for %v after the lock", last.Sub(locked))
	}
	r.await("b says that it is locked", 10*time.Second, func() bool {
		var s node.Status
		return b.Ask(r.ctx, &s, "status") == nil && strings.Contains(s.Controllers[0].Error, "lost laptop") &&
			len(s.Problems) > 0 && s.Problems[0].About == "membership"
	})
	r.silent(b.Host, addr[0])
	_, err = r.Admin(r.ctx, "node", "unlock", "b")
	r.ok(err)
	r.pings(a.Host, addr[1], 15*time.Second)

	_, err = r.Admin(r.ctx, "node", "remove", "b")
	r.ok(err)
	time.Sleep(time.Second)
	r.silent(a.Host, addr[1])
	r.silent(b.Host, addr[0])
	if _, err = r.Admin(r.ctx, "node", "unlock", "b"); err == nil {
		t.Error("a removed node can be unlocked")
	}
}

// A machine that waits for approval gets nothing, and everything when it is approved.
func TestApproval(t *testing.T) {
	r := newRig(t)
	a := r.site("a", lab.PortPreserving, "--label", "team=x", "--approve")
	_, err := r.Grant(r.ctx, "label:team=x", "segment:lan")
	r.ok(err)
	time.Sleep(time.Second)
	if got := a.Address(r.ctx); got != "" {
		t.Errorf("before approval a has address %s", got)
	}
	_, err = r.Admin(r.ctx, "node", "approve", "a")
	r.ok(err)
	r.addresses(a)
}
