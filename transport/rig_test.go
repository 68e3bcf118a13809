package transport

import (
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun"
)

type addrPort = netip.AddrPort

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// notBetween cuts the direct way between two public addresses.
func notBetween(x, y string) func(from, to netip.AddrPort) bool {
	return func(from, to netip.AddrPort) bool {
		f, t := from.Addr().String(), to.Addr().String()
		return (f != x || t != y) && (f != y || t != x)
	}
}

// keepBusy sends a message each way every second.
func (w *world) keepBusy(a, b *testNode, d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
		a.send(b, "busy")
		b.send(a, "busy")
	}
}

// deliverRepeatedly sends until something arrives.
func (n *testNode) deliverRepeatedly(to *testNode, within time.Duration) {
	n.w.t.Helper()
	to.take()
	for deadline := time.Now().Add(within); ; time.Sleep(100 * time.Millisecond) {
		if len(to.take()) > 0 {
			return
		}
		if time.Now().After(deadline) {
			n.w.t.Fatalf("nothing arrived from node %d at node %d within %v: %+v", n.id, to.id, within, n.status(to))
		}
		n.send(to, "again")
	}
}

// crash ends the node without letting it say farewell: nothing of it leaves the machine any more.
func (n *testNode) crash() {
	mute := n.host.Addr()
	n.w.net.SetFilter(func(from, _ netip.AddrPort) bool { return from.Addr() != mute })
	n.w.mu.Lock()
	delete(n.w.nodes, n.id) // the controller passes it nothing on
	n.w.mu.Unlock()
	n.stop()
	n.w.net.SetFilter(nil)
}

// stunRequest is a binding request for a user; empty: for nobody.
func stunRequest(t *testing.T, user string) []byte {
	t.Helper()
	attrs := []stun.Setter{stun.TransactionID, stun.BindingRequest}
	if user != "" {
		attrs = append(attrs, stun.NewUsername(user), stun.NewShortTermIntegrity("guess"), stun.Fingerprint)
	}
	m, err := stun.Build(attrs...)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

// hasPending reports whether a handshake has made state here that is not confirmed.
func (n *testNode) hasPending(peer *testNode) bool {
	n.e.mu.Lock()
	defer n.e.mu.Unlock()
	return n.e.peers[peer.id].pending != nil
}
