package node

import (
	"context"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"github.com/etherloom/etherloom/control/client"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
	"github.com/etherloom/etherloom/transport"
)

// TestLocal: local commands are answered through a socket that its owner alone may use, also over one that a daemon left
// behind that died.
func TestLocal(t *testing.T) {
	s := newSite(t)
	d := s.daemon()
	local := Dial(s.dir)
	var status Status
	wantError(t, local.Get(t.Context(), "status", &status), "no daemon answers at "+s.dir.Socket(), "etherloom run")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.dir.Socket(), Net: "unix"})
	must(t, err)
	dead.SetUnlinkOnClose(false)
	must(t, dead.Close())

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.serveLocal(ctx) }()
	eventually(t, "the daemon answers", func() bool { return local.Get(t.Context(), "status", &status) == nil })
	if info, err := os.Stat(s.dir.Socket()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v, %v", info.Mode(), err)
	}
	if status.Schema != Schema || status.Name != "self" || status.ID != selfID || status.Policy.Held || len(status.Problems) == 0 || status.Problems[0].About != "controllers" {
		t.Errorf("status is %+v", status)
	}
	must(t, d.take(s.delta(told{version: 5, resources: []*controlv1.Resource{
		netSettings(), self(), s.peer(8, "b"),
		aMachine(&controlv1.Machine{Id: 21, Name: "mb", Mac: []byte{2, 0, 0, 0, 0, 21}, Gateways: []uint32{8}, Attachments: []uint32{20}}),
	}})))
	must(t, local.Get(t.Context(), "status", &status))
	if !status.Policy.Held || status.Policy.Version != 5 || status.Zone != "etherloom.internal" {
		t.Errorf("status is %+v", status)
	}
	for _, what := range []string{"ports", "fdb", "names", "drops", "flows", "grants"} {
		var list []map[string]any
		if err := local.Get(t.Context(), what, &list); err != nil || list == nil {
			t.Errorf("%s: %v, %v", what, list, err)
		}
	}
	var peers []struct{ Name string }
	if err := local.Get(t.Context(), "peers", &peers); err != nil || len(peers) != 1 {
		t.Errorf("peers: %v, %v", peers, err)
	}
	wantError(t, local.Get(t.Context(), "nothing", &peers), "404")
	_, err = local.Ping(t.Context(), PingRequest{Peer: "c"})
	wantError(t, err, `no peer is called "c"`, "etherloom peers")
	for _, name := range []string{"mb", "host:mb", "mb.etherloom.internal."} {
		_, err = local.Ping(t.Context(), PingRequest{Peer: name})
		wantError(t, err, "mb is no node but behind a gateway", "`ping mb`")
	}
	cancel()
	must(t, <-done)
}

func TestDerivedProblems(t *testing.T) {
	now := time.Now()
	held := PolicyStatus{Held: true, Issued: now, Expires: now.Add(time.Hour)}
	void := PolicyStatus{Held: true, Issued: now, Expires: now}
	up, down := []client.Status{{}, {Connected: true}}, []client.Status{{}}
	for name, c := range map[string]struct {
		s    Status
		want []string
	}{
		"good":                    {Status{Policy: held, Controllers: up}, nil},
		"no controller":           {Status{Policy: held, Controllers: down}, []string{"controllers"}},
		"no controller yet":       {Status{Controllers: down}, []string{"controllers"}},
		"void":                    {Status{Policy: void, Controllers: up}, []string{"policy"}},
		"void without controller": {Status{Policy: void, Controllers: down}, []string{"controllers", "policy"}},
		"resolver":                {Status{Policy: held, Controllers: up, Resolver: ResolverStatus{Note: "x"}}, []string{"resolver"}},
		"locked":                  {Status{Policy: held, Controllers: []client.Status{{}, {Refused: true, Error: "locked"}}}, []string{"membership"}},
		"one relay down":          {Status{Policy: held, Controllers: up, Relays: []transport.RelayStatus{{Up: true}, {}}}, nil},
		"all relays down":         {Status{Policy: held, Controllers: up, Relays: []transport.RelayStatus{{}, {}}}, []string{"relays"}},
		"no underlay":             {Status{Policy: held, Controllers: up, Underlay: []transport.UnderlayStatus{}}, []string{"underlay"}},
		"small buffers": {Status{Policy: held, Controllers: up, Underlay: []transport.UnderlayStatus{
			{Local: "x", ReceiveBuffer: transport.SocketBuffer, SendBuffer: transport.SocketBuffer - 1},
		}}, []string{"underlay x"}},
		"no grant":           {Status{Policy: held, Controllers: up, Segments: []string{}}, []string{"grants"}},
		"no grant known yet": {Status{Policy: held, Controllers: down, Segments: []string{}}, []string{"controllers"}},
	} {
		if c.s.Segments == nil {
			c.s.Segments = []string{"lan"}
		}
		if c.s.Underlay == nil {
			c.s.Underlay = []transport.UnderlayStatus{{ReceiveBuffer: transport.SocketBuffer, SendBuffer: transport.SocketBuffer}}
		}
		var got []string
		for _, p := range c.s.derived(now) {
			got = append(got, p.About)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: problems about %v, want %v", name, got, c.want)
		}
	}
	one := (&Status{Controllers: down}).derived(now)[0].Text
	if two := (&Status{Policy: held, Controllers: down}).derived(now)[0].Text; one == two {
		t.Error("a node that holds a state and one that holds none are told the same")
	}
}

// TestLockOf: a node is locked if a controller says so and none takes it.
func TestLockOf(t *testing.T) {
	lock := &client.Lock{Message: "lost laptop"}
	for name, c := range map[string]struct {
		list []client.Status
		want *client.Lock
	}{
		"none":                        {nil, nil},
		"connected":                   {[]client.Status{{Connected: true}}, nil},
		"removed":                     {[]client.Status{{Refused: true}}, nil},
		"locked":                      {[]client.Status{{Refused: true, Lock: lock}, {}}, lock},
		"locked, but one has it back": {[]client.Status{{Refused: true, Lock: lock}, {Connected: true}}, nil},
	} {
		if got := lockOf(c.list); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestTag pins what stands before each frame on a link.
func TestTag(t *testing.T) {
	var b [tagSize]byte
	putTag(b[:], formatWhole, 0x010203, vswitch.Tag{Source: 0x04050607, Grant: 0x08090a0b})
	if want := [tagSize]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}; b != want {
		t.Errorf("tag is %v", b)
	}
	_, vni, tag, frame, ok := parseTag(append(b[:], "frame"...))
	if !ok || vni != 0x010203 || tag.Source != 0x04050607 || tag.Grant != 0x08090a0b || string(frame) != "frame" {
		t.Errorf("parsed %v, %v, %q, %v", vni, tag, frame, ok)
	}
	if _, _, _, frame, ok := parseTag(b[:]); !ok || len(frame) != 0 {
		t.Error("a tag alone is one")
	}
	for n := range tagSize {
		if _, _, _, _, ok := parseTag(b[:n]); ok {
			t.Errorf("%d bytes are a tag", n)
		}
	}
	b[0] = 2
	if _, _, _, _, ok := parseTag(b[:]); ok {
		t.Error("a format of tomorrow is understood")
	}
}

// TestLanes: no two goroutines have one number, and there are no more than there are.
func TestLanes(t *testing.T) {
	var l lanes
	for i := range maxLanes {
		if n, ok := l.take(0); !ok || int(n) != i {
			t.Fatalf("lane %d is %d, %v", i, n, ok)
		}
	}
	if n, ok := l.take(0); ok {
		t.Errorf("lane %d is given out twice", n)
	}
	l.state[7].tag[0] = 1
	l.release(7)
	if n, ok := l.take(0); !ok || n != 7 || l.state[7].tag[0] != 0 {
		t.Errorf("after lane 7 is free, %d is given out, %v", n, ok)
	}
}

// TestIngressWithoutSegment: what is for a segment that is not here asks for the whole state, but seldom; what is no frame
// at all asks for nothing.
func TestIngressWithoutSegment(t *testing.T) {
	d := newSite(t).daemon()
	in := d.newIngress(0).(*ingress)
	defer in.Close()
	now := time.Now()
	in.Receive(8, []byte("short"), now)
	if d.resync.last.Load() != 0 {
		t.Error("rubbish asks for the state")
	}
	message := make([]byte, tagSize+60)
	putTag(message, formatWhole, policy.VNI(1), vswitch.Tag{Source: 8, Grant: 1})
	in.Receive(8, message, now)
	if d.resync.last.Load() != now.UnixNano() {
		t.Error("does not ask")
	}
	in.Receive(8, message, now.Add(resyncEvery-1))
	if d.resync.last.Load() != now.UnixNano() {
		t.Error("asks too often")
	}
	in.Receive(8, message, now.Add(resyncEvery))
	if d.resync.last.Load() != now.Add(resyncEvery).UnixNano() {
		t.Error("asks only once")
	}
}

func TestLeasedPrefix(t *testing.T) {
	for _, c := range []struct {
		mask net.IPMask
		want string
	}{{net.CIDRMask(20, 32), "10.64.0.9/20"}, {nil, "10.64.0.9/24"}} {
		ack := &dhcpv4.DHCPv4{YourIPAddr: net.IPv4(10, 64, 0, 9), Options: dhcpv4.Options{}}
		if c.mask != nil {
			ack.UpdateOption(dhcpv4.OptSubnetMask(c.mask))
		}
		if got := leasedPrefix(&nclient4.Lease{ACK: ack}).String(); got != c.want {
			t.Errorf("mask %v: %s, want %s", c.mask, got, c.want)
		}
	}
}
