package server

import (
	"runtime"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/control/controlv1"
)

// TestOneNetwork is the main way through: join, grant, see each other, lose the grant.
func TestOneNetwork(t *testing.T) {
	d := newDesk(t)
	token := d.token()
	a, b := d.join("a", token).sync(), d.join("b", token).sync()
	eventually(t, "a node without a grant knows its own name and nobody else", func() bool {
		c := a.contents()
		return c.Self.GetName() == "a" && c.Settings.GetZone() == "etherloom.internal" && len(c.Peers) == 0 && len(c.Segments) == 0
	})
	d.grant("node:a", "segment:lan")
	id := d.grant("node:b", "segment:lan")
	eventually(t, "both see each other", func() bool {
		return a.contents().Peers[b.id].GetName() == "b" && b.contents().Peers[a.id].GetName() == "a"
	})
	c := a.contents()
	if len(c.Segments) != 1 || len(c.Grants) != 2 || len(c.Self.Stations) != 1 || len(c.Peers[b.id].Stations) != 1 {
		t.Errorf("a knows %v", c)
	}
	_, err := d.admin.RemoveGrant(t.Context(), &controlv1.RemoveGrantRequest{Id: id})
	must(t, err)
	eventually(t, "b sees nobody, and a does not see b", func() bool {
		return len(b.contents().Segments) == 0 && len(b.contents().Peers) == 0 && len(a.contents().Peers) == 0
	})
	if len(a.contents().Segments) != 1 {
		t.Error("a lost its segment with b's grant")
	}
	for _, m := range []*machine{a, b} {
		if err := m.failed(); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
}

// TestStopLeavesNothing: when Run has returned, no goroutine of ours is left, although streams were open.
func TestStopLeavesNothing(t *testing.T) {
	d, a, _ := pair(t)
	d.stop()
	eventually(t, "the node's stream has ended", func() bool { return a.failed() != nil })
	ours := func() (left []string) {
		buf := make([]byte, 1<<20)
		for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			for _, name := range []string{"server.(*Controller)", "server.(*stream)", "server.(*listener)", "store.(*Store)", "etcdserver."} {
				if strings.Contains(g, name) {
					left = append(left, g)
					break
				}
			}
		}
		return left
	}
	for range 100 {
		if len(ours()) == 0 {
			return
		}
		runtime.Gosched()
	}
	eventually(t, "all goroutines have ended", func() bool { return len(ours()) == 0 })
}
