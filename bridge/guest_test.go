package bridge

import (
	"os"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/internal/lab"
)

// What needs a bridge that knows VLANs, or a bond, is tested in a guest where this machine's kernel has none: these tests, by a kernel that has.
func TestInGuest(t *testing.T) {
	if os.Getenv("ETHERLOOM_ACCEPT") != "1" {
		t.Skip("a guest boots only with ETHERLOOM_ACCEPT=1")
	}
	root := os.Getenv("ETHERLOOM_GUEST") // what scripts/guest.sh prints
	if root == "" {
		root = "/"
	}
	k, err := lab.FindGuestKernel(root)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	k.Programs = []string{self, "tc", "ethtool"}
	l, _ := host(t)
	g, err := l.AddGuest(t.Context(), "guest", k)
	if err != nil {
		t.Fatal(err)
	}
	out, err := g.Run(t.Context(), "PATH=/lab:$PATH ETHERLOOM_E2E=1 bridge.test -test.v -test.run '^(TestTell|TestPort|TestMove|TestWireTakes|TestWireFollows)'")
	t.Log(out)
	if err != nil || strings.Contains(out, "--- SKIP") || !strings.Contains(out, "--- PASS: TestTell (") {
		t.Errorf("in the guest: %v", err)
	}
}
