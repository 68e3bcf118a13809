package lab

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"
)

func TestScanTCP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.site(t, "2", PortPreserving)
	for _, address := range []string{server1 + ":1", server1 + ":443", server1 + ":65535", "[2001:db8::10]:22"} {
		must(w.servers[0].Listen(t.Context(), "tcp", address))(t, closeAfter[net.Listener])
	}
	must(s.host.Listen(t.Context(), "tcp", ":443"))(t, closeAfter[net.Listener])
	must(s.router.Listen(t.Context(), "tcp", ":443"))(t, closeAfter[net.Listener])
	for _, c := range []struct {
		from *Host
		to   string
		want Scan
	}{
		{w.servers[1], server1, Scan{Open: []uint16{1, 443, 65535}, Refused: 65532}},
		{w.servers[1], "2001:db8::10", Scan{Open: []uint16{22}, Refused: 65534}},
		{w.servers[1], "203.0.113.2", Scan{Silent: 65535}}, // the router of a site
		{w.servers[1], "192.0.2.1", Scan{Unreachable: 65535}},
	} {
		start := time.Now()
		got := must(c.from.ScanTCP(t.Context(), c.to))(t)
		if !slices.Equal(got.Open, c.want.Open) || got.Refused != c.want.Refused ||
			got.Silent != c.want.Silent || got.Unreachable != c.want.Unreachable {
			t.Errorf("scan of %s: %+v, want %+v", c.to, got, c.want)
		}
		t.Logf("scan of %s took %s", c.to, time.Since(start).Round(time.Millisecond))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.servers[1].ScanTCP(ctx, server1); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled scan: %v", err)
	}
}

func TestProbeUDP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reflect(t, w.servers[0], server1+":7")
	reflect(t, w.servers[0], server1+":65535")
	reflect(t, w.servers[0], "[2001:db8::10]:9")
	udp(t, w.servers[0], server1+":8") // silent
	quiet := must(w.AddHost("quiet"))(t)
	must(quiet.Join(w.internet, "eth0", "203.0.113.50/24"))(t)
	ports := make([]uint16, 0, 65535)
	for p := range 65535 {
		ports = append(ports, uint16(p+1))
	}
	for addr, want := range map[string][]string{
		server1: {server1 + ":65535", server1 + ":7"}, "2001:db8::10": {"[2001:db8::10]:9"}, "203.0.113.50": nil,
	} {
		var got []string
		for _, a := range must(w.servers[1].ProbeUDP(t.Context(), addr, ports, []byte("?"), time.Second))(t) {
			got = append(got, a.From.String())
			if len(a.Payload) == 0 {
				t.Errorf("the answer of %s has no payload", a.From)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("answers %v, want %v", got, want)
		}
	}
}

// The time to the first reply is what it takes until a link is up.
func TestWaitPing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const outage = 700 * time.Millisecond
	cut := must(w.links[0].Drop(Match{}))(t)
	go func() {
		time.Sleep(outage)
		_ = cut.Remove()
	}()
	if d := must(w.servers[1].WaitPing(t.Context(), server1))(t); d < outage-100*time.Millisecond || d > outage+3*time.Second {
		t.Errorf("first reply after %s, the outage was %s", d, outage)
	}
	must(w.links[0].Drop(Match{}))(t)
	ctx, cancel := context.WithTimeout(t.Context(), brief)
	defer cancel()
	if _, err := w.servers[1].WaitPing(ctx, server1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for what never answers: %v", err)
	}
}
