package e2e

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// With its role a router is heard, of either family, and forwards; when the role goes, it is no router any more.
func TestRouterRole(t *testing.T) {
	r := newRig(t)
	a, b, addr := r.pair()
	mac, own, far := r.mac(b), netip.MustParseAddr(addr[1]), netip.MustParseAddr("198.51.100.7")
	all := []byte{224, 0, 0, 1}
	to := func(payload []byte) []byte {
		return append(append(ethernet(broadcast(), mac, unix.ETH_P_IP), payload...), "hear-me"...)
	}
	frames := map[string][]byte{
		"router advertisement":      routerAdvertisement(mac),
		"ICMP router advertisement": to(ipv4(own.AsSlice(), all, 1, 0, append([]byte{9, 0, 0, 0, 1, 2, 7, 8}, own.AsSlice()...))),
		"packet from beyond":        to(ipv4(far.AsSlice(), all, 17, 0, udp(1000, 2000))),
	}
	inside := to(ipv4(netip.MustParseAddr(addr[0]).AsSlice(), all, 17, 0, udp(1000, 2000)))
	heard := func(what string, frame []byte) bool {
		t.Helper()
		tap, err := a.Host.Capture("loom0")
		r.ok(err)
		defer func() { r.ok(tap.Stop()) }()
		for range 10 {
			r.inject(b.Host, "loom0", frame)
			time.Sleep(50 * time.Millisecond)
			if yes, err := tap.Contains(frame); err != nil {
				r.Fatalf("%s: %v", what, err)
			} else if yes {
				return true
			}
		}
		return false
	}
	role := func(args ...string) {
		t.Helper()
		_, err := r.Admin(r.ctx, append([]string{"node", "role", "b", "--segment", "lan"}, args...)...)
		r.ok(err)
		time.Sleep(time.Second) // as long as what an administrator changes may take
	}
	for what, frame := range frames {
		if heard(what, frame) {
			t.Errorf("%s passes without the role", what)
		}
	}
	role("--add", "router", "--add", "querier")
	for what, frame := range frames {
		if !heard(what, frame) {
			t.Errorf("%s does not pass with the role", what)
		}
	}
	if heard("packet as a", inside) {
		t.Error("a router passes as its neighbour")
	}
	out, err := r.Admin(r.ctx, "node", "show", "b")
	r.ok(err)
	if !strings.Contains(out, "querier, router") {
		t.Errorf("node show: %s", out)
	}
	role("--remove", "router", "--remove", "querier")
	for what, frame := range frames {
		if heard(what, frame) {
			t.Errorf("%s passes after the role was taken away", what)
		}
	}
}
