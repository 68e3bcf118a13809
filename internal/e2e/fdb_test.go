package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/node"
)

// What an administrator pins stays where it was pinned until it is removed, and what is flushed is learned again (L09, L10): by the
// commands, with a ping that goes on.
func TestFDBCommands(t *testing.T) {
	r := newRig(t)
	a, b, addr := r.pair()
	r.pings(a.Host, addr[1], 10*time.Second)
	mac := r.mac(b).String()
	entry := func() node.FDBEntry {
		t.Helper()
		var list struct {
			FDB []node.FDBEntry `json:"fdb"`
		}
		r.ok(a.Ask(r.ctx, &list, "fdb"))
		for _, e := range list.FDB {
			if e.MAC == mac {
				return e
			}
		}
		return node.FDBEntry{}
	}
	if e := entry(); e.Port != "b" || e.Kind != "dynamic" || e.Identity == 0 {
		t.Errorf("learned is %+v", e)
	}
	change := func(args ...string) (c node.FDBChange) {
		t.Helper()
		r.ok(a.Ask(r.ctx, &c, append([]string{"fdb"}, args...)...))
		return c
	}
	r.await("b is forgotten, and says nothing just then", 5*time.Second, func() bool {
		return change("flush", "lan", "--port", "b").Removed == 1 && entry().MAC == ""
	})
	r.pings(a.Host, addr[1], 5*time.Second)
	if e := entry(); e.Kind != "dynamic" {
		t.Errorf("learned again is %+v", e)
	}

	port := r.local(a).Port
	if c := change("add", "lan", mac, port); !c.Replaced || c.Added == nil || c.Added.Port != port {
		t.Errorf("add says %+v", c)
	}
	r.silent(a.Host, addr[1]) // its frames go back to where they came from
	change("flush")
	if e := entry(); e.Kind != "static" || e.Port != port || !e.Static {
		t.Errorf("pinned is %+v", e)
	}
	if c := change("add", "lan", mac, "b", "--sticky"); !c.Replaced {
		t.Errorf("add says %+v", c)
	}
	r.pings(a.Host, addr[1], 5*time.Second)
	if c := change("remove", "lan", mac); c.Removed != 1 {
		t.Errorf("remove says %+v", c)
	}
	out, err := a.Loom(r.ctx, "fdb", "add", "lan", mac, "nobody")
	if err == nil || !strings.Contains(out+err.Error(), "etherloom ports") {
		t.Errorf("a port that is not there: %s, %v", out, err)
	}
	r.pings(a.Host, addr[1], 5*time.Second)
}
