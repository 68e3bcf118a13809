package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/transport"
)

// peer asks a node how it reaches another.
func (r *rig) peer(n *world.Node, name string) transport.PeerStatus {
	r.Helper()
	var list struct {
		Peers []transport.PeerStatus `json:"peers"`
	}
	r.ok(n.Ask(r.ctx, &list, "peers"))
	for _, p := range list.Peers {
		if p.Name == name {
			return p
		}
	}
	return transport.PeerStatus{}
}

func (r *rig) awaitPath(n *world.Node, peer, path string, within time.Duration) transport.PeerStatus {
	r.Helper()
	var p transport.PeerStatus
	deadline := time.Now().Add(within)
	for {
		p = r.peer(n, peer)
		if p.Path == path {
			return p
		}
		if time.Now().After(deadline) {
			r.Fatalf("%s reaches %s by %q and not %q within %v: %+v", n.Name, peer, p.Path, path, within, p)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// addresses waits until nodes have addresses, and returns them.
func (r *rig) addresses(nodes ...*world.Node) []string {
	r.Helper()
	out := make([]string, len(nodes))
	for i, n := range nodes {
		r.await(n.Name+" has an address", 10*time.Second, func() bool {
			out[i] = n.Address(r.ctx)
			return out[i] != ""
		})
	}
	return out
}

// pings checks that a host is reached within the time.
func (r *rig) pings(from *lab.Host, to string, within time.Duration) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, within)
	defer cancel()
	if _, err := from.WaitPing(ctx, to); err != nil {
		r.Fatalf("%s does not reach %s within %v: %v", from.Name(), to, within, err)
	}
}

// silent checks that nothing comes back.
func (r *rig) silent(from *lab.Host, to string) {
	r.Helper()
	replies, err := from.Ping(r.ctx, to, lab.Echo{Count: 5, Interval: 100 * time.Millisecond, Wait: time.Second})
	if err == nil && replies.Received > 0 {
		r.Errorf("%s reaches %s: %d of %d", from.Name(), to, replies.Received, replies.Sent)
	}
}

// Site a and site b behind routers that keep ports, site c behind one that does not: a and b meet directly, c is relayed
// where holes cannot be punched, and `etherloom peers` says which and why.
func TestTopology(t *testing.T) {
	r := newRig(t)
	a := r.site("a", lab.PortPreserving, "--label", "team=x")
	b := r.site("b", lab.PortPreserving, "--label", "team=x")
	c := r.site("c", lab.Symmetric, "--label", "team=x")
	d := r.site("d", lab.AcceptingInput, "--label", "team=x")

	// Without a grant there is nothing: no TAP, no peer, no name.
	out, err := a.Host.Run(r.ctx, "ip", "-br", "link")
	r.ok(err)
	if strings.Contains(out, "loom") {
		t.Errorf("without a grant there is a TAP:\n%s", out)
	}
	if p := r.peer(a, "b"); p.ID != 0 {
		t.Errorf("without a grant b is known: %+v", p)
	}
	_, err = r.Grant(r.ctx, "label:team=x", "segment:lan")
	r.ok(err)
	addr := r.addresses(a, b, c, d)
	for i, from := range []*world.Node{a, b, c, d} {
		for j := range addr {
			if i != j {
				r.pings(from.Host, addr[j], 10*time.Second)
			}
		}
	}
	if p := r.awaitPath(a, "b", "direct", 20*time.Second); p.Why != "" || !strings.HasPrefix(p.Address, "203.0.113.22:") {
		t.Errorf("a reaches b: %+v", p)
	}
	r.awaitPath(b, "a", "direct", 10*time.Second)

	time.Sleep(16 * time.Second) // an attempt's whole life
	for _, n := range []*world.Node{a, b} {
		if p := r.peer(n, "c"); p.Path != "relayed" || !strings.Contains(p.Why, "peer's site") || !strings.Contains(p.Why, "symmetric") {
			t.Errorf("%s reaches c: %+v", n.Name, p)
		}
	}
	if p := r.peer(c, "a"); p.Path != "relayed" || !strings.Contains(p.Why, "this site") || !strings.Contains(p.Why, "symmetric") {
		t.Errorf("c reaches a: %+v", p)
	}
	// A router whose own input accepts packets spoils hole punching in one order of events, and is reached all the same.
	p := r.peer(a, "d")
	if p.Path == "relayed" && !strings.Contains(p.Why, "spoils hole punching") || p.Path == "" {
		t.Errorf("a reaches d: %+v", p)
	}
	r.pings(a.Host, addr[3], time.Second)
	r.scan(a)
}

// scan looks at a node from its own LAN, where no router protects it.
func (r *rig) scan(n *world.Node) {
	r.Helper()
	neighbour, err := r.Lab.AddHost("neighbour")
	r.ok(err)
	_, err = neighbour.Join(n.Uplink.Peer().Host(), "eth0", "192.0.2.99/24")
	r.ok(err)
	r.pings(neighbour, "192.0.2.2", 5*time.Second)
	scan, err := neighbour.ScanTCP(r.ctx, "192.0.2.2")
	r.ok(err)
	if len(scan.Open) != 0 {
		r.Errorf("open TCP ports: %v", scan.Open)
	}
	if scan.Refused+scan.Silent < 65000 {
		r.Errorf("the scan is not complete: %+v", scan)
	}
	// Every UDP port that the node has is asked with things that a careless program answers.
	var ports []uint16
	for p := 1; p < 65536; p++ {
		ports = append(ports, uint16(p))
	}
	for _, payload := range [][]byte{{0}, []byte("\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl"), append([]byte{0x81, 0, 0, 0}, make([]byte, 300)...)} {
		answers, err := neighbour.ProbeUDP(r.ctx, "192.0.2.2", ports, payload, time.Second)
		r.ok(err)
		if len(answers) != 0 {
			r.Errorf("answers on UDP: %v", answers)
		}
	}
}

// Programs that nobody here wrote work over it, both ways, with full-size packets.
func TestRealPrograms(t *testing.T) {
	r := newRig(t)
	a := r.site("a", lab.PortPreserving, "--label", "team=x")
	b := r.site("b", lab.PortPreserving, "--label", "team=x")
	_, err := r.Grant(r.ctx, "label:team=x", "segment:lan")
	r.ok(err)
	addr := r.addresses(a, b)
	r.pings(a.Host, addr[1], 10*time.Second)
	r.awaitPath(a, "b", "direct", 20*time.Second)

	run := func(h *lab.Host, name string, args ...string) string {
		t.Helper()
		out, err := h.Run(r.ctx, name, args...)
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return out
	}
	run(a.Host, "ping", "-c", "5", "-i", "0.1", "-W", "2", "b.etherloom.internal")
	run(a.Host, "ping", "-c", "3", "-i", "0.1", "-W", "2", "-M", "do", "-s", "1472", addr[1])
	run(b.Host, "ping", "-c", "3", "-i", "0.1", "-W", "2", "-6", "a.etherloom.internal")
	run(a.Host, "arping", "-c", "3", "-w", "5", "-I", "loom0", addr[1])

	if got := strings.TrimSpace(run(a.Host, "dig", "+short", "b.etherloom.internal", "A")); got != addr[1] {
		t.Errorf("dig A: %q", got)
	}
	if got := run(a.Host, "dig", "+short", "b.etherloom.internal", "AAAA"); !strings.HasPrefix(got, "fd") {
		t.Errorf("dig AAAA: %q", got)
	}
	if got := run(a.Host, "dig", "+short", "-x", addr[1]); !strings.HasPrefix(got, "b.etherloom.internal.") {
		t.Errorf("dig -x: %q", got)
	}
	if got := run(a.Host, "dig", "+tcp", "nobody.etherloom.internal"); !strings.Contains(got, "NXDOMAIN") {
		t.Errorf("dig of a name that does not exist: %s", got)
	}

	server, err := b.Host.Start(r.ctx, "iperf3", "-s")
	r.ok(err)
	time.Sleep(500 * time.Millisecond)
	for _, args := range [][]string{{}, {"-R"}, {"-u", "-b", "20M"}, {"-u", "-b", "20M", "-R"}, {"-P", "4"}} {
		out := run(a.Host, "iperf3", append([]string{"-c", addr[1], "-t", "2", "-f", "m"}, args...)...)
		t.Logf("iperf3 %v: %s", args, lastLines(out, 3))
	}
	_ = server.Stop(time.Second) // it says that it was interrupted
	// The host hands super-frames over, and is handed some.
	if p := r.local(a).Stats; p.RxOctets < 3000*p.RxFrames || p.TxOctets < 2000*p.TxFrames {
		t.Errorf("frames are small: %+v", p)
	}

	// A file both ways, byte for byte.
	data := strings.Repeat("All work and no play makes a dull overlay.\n", 200_000)
	for _, way := range [][2]*world.Node{{a, b}, {b, a}} {
		from, to := way[0], way[1]
		dst := addr[1]
		if to == a {
			dst = addr[0]
		}
		recv := to.Host.Command(r.ctx, "socat", "-u", "TCP-LISTEN:9000,reuseaddr", "STDOUT")
		var got strings.Builder
		recv.Stdout = &got
		r.ok(recv.Start())
		time.Sleep(300 * time.Millisecond)
		send := from.Host.Command(r.ctx, "socat", "-u", "STDIN", fmt.Sprintf("TCP:%s:9000", dst))
		send.Stdin = strings.NewReader(data)
		r.ok(send.Run())
		r.ok(recv.Wait())
		if got.String() != data {
			t.Errorf("from %s to %s: %d of %d bytes arrived, or others", from.Name, to.Name, got.Len(), len(data))
		}
	}
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
