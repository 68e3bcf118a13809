package client

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/controlv1/controlv1connect"
	"github.com/etherloom/etherloom/control/server"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/identity"
)

// TestPosture: what the node says of itself follows the hello of every stream, if there is something to say, and again
// after Report, the newest then.
func TestPosture(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	a := d.join("a")
	var sequence atomic.Uint64
	a.c.cfg.Posture = func() *controlv1.PostureReport {
		if n := sequence.Load(); n > 0 {
			return &controlv1.PostureReport{Sequence: n}
		}
		return nil
	}
	received := func() (n *controlv1.Node) {
		d.do(func(ctx context.Context, api controlv1connect.AdminServiceClient) error {
			r, err := api.ListNodes(ctx, &controlv1.ListNodesRequest{Name: "a"})
			if err == nil {
				n = r.GetNodes()[0]
			}
			return err
		})
		return n
	}
	a.run()
	eventually(t, "the stream is up", func() bool { return a.status(d.url).Connected })
	if n := received(); n.GetPosture() != nil || !a.c.Reported().IsZero() {
		t.Errorf("nothing was said, and %v was received", n.GetPosture())
	}
	for range 3 {
		n := sequence.Add(1)
		a.c.Report()
		eventually(t, "it is received", func() bool { return received().GetPosture().GetSequence() == n })
	}
	if since := time.Since(a.c.Reported()); since < 0 || since > 10*time.Second {
		t.Errorf("reported %v ago", since)
	}
	d.restart()
	eventually(t, "it is said again", func() bool { return received().GetPosture().GetSequence() == 3 })
}

// TestStream is the main way: the stream comes up, what changes arrives, signals pass, the controller comes back after a
// restart, and the client ends when it is told to.
func TestStream(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	a, b := d.join("a"), d.join("b")
	if a.c.Connected() || !a.c.LastHeard(0).IsZero() {
		t.Error("connected before Run")
	}
	if s := a.status(d.url); s.Connected || s.Error != "connecting" {
		t.Errorf("status before Run is %+v", s)
	}
	a.run()
	b.run()
	d.grant("node:a")
	d.grant("node:b")
	eventually(t, "both know each other", func() bool {
		return a.contents().Peers[b.id].GetName() == "b" && b.contents().Peers[a.id].GetName() == "a"
	})
	if at := a.c.LastHeard(time.Hour); !at.IsZero() {
		t.Errorf("contact of some milliseconds counts as an hour, at %v", at)
	}
	since := a.status(d.url).Since
	if s := a.status(d.url); !s.Connected || s.Error != "" || !a.c.Connected() || time.Since(a.c.LastHeard(0)) > patience {
		t.Errorf("status of a stream that is up is %+v, last heard %v", s, a.c.LastHeard(0))
	}
	a.c.Signal(b.id, []byte("sealed"))
	if got := <-b.heard; got != (signal{a.id, "sealed"}) {
		t.Errorf("b was given %v", got)
	}
	a.settled()
	b.settled()

	d.restart()
	eventually(t, "the stream is back", func() bool { return a.status(d.url).Connected && a.status(d.url).Since.After(since) })
	said, fresh := a.greetings()
	last := said[len(said)-1]
	if slices.Contains(fresh, true) || said[0].GetVersion() != 0 || last.GetVersion() == 0 || len(last.GetHash()) != 32 {
		t.Errorf("hellos were %v", said)
	}
	d.setStatus("b", controlv1.NodeStatus_NODE_STATUS_LOCKED, "")
	eventually(t, "a change after the restart arrives", func() bool { return len(a.contents().Peers) == 0 && a.contents().Revocations[b.id] != nil })

	a.leave()
	if a.c.Connected() || a.status(d.url).Connected {
		t.Error("still connected when Run has returned")
	}
	heard := a.c.LastHeard(0)
	if time.Sleep(20 * time.Millisecond); !a.c.LastHeard(0).Equal(heard) {
		t.Error("a client that does not run hears a controller")
	}
}

// TestDeltaRefused: after a delta that starts elsewhere the node says again what it holds, after one that does not lead
// to what was signed it asks for everything; both ways it gets there.
func TestDeltaRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	a := d.join("a").run()
	a.settled()
	for _, c := range []struct {
		err   error
		fresh bool
	}{{state.ErrBase, false}, {state.ErrHash, true}, {state.ErrFork, true}} {
		before, _ := a.greetings()
		holds := a.holds().Header.GetVersion()
		a.mu.Lock()
		a.refuse = c.err
		a.mu.Unlock()
		grants := len(a.contents().Grants)
		d.grant("node:a")
		eventually(t, "the change arrives after all", func() bool { return len(a.contents().Grants) == grants+1 })
		said, fresh := a.greetings()
		if len(said) != len(before)+1 {
			t.Fatalf("%v: %d hellos, want one more than %d", c.err, len(said), len(before))
		}
		want := holds
		if c.fresh {
			want = 0
		}
		if last := said[len(said)-1]; fresh[len(fresh)-1] != c.fresh || last.GetVersion() != want {
			t.Errorf("%v: the node says that it holds %d, fresh %v; want %d, %v", c.err, last.GetVersion(), fresh[len(fresh)-1], want, c.fresh)
		}
	}
	if !a.c.Connected() || a.logs.count("stream to the controller is up") != 1 {
		t.Error("the stream did not stay up meanwhile")
	}
	before, _ := a.greetings()
	a.c.Resync()
	said, fresh := a.greetings()
	if len(said) != len(before)+1 || !fresh[len(fresh)-1] {
		t.Errorf("Resync says %v", said[len(before):])
	}
}

// TestReconnect: after a renewal all streams and calls show the new certificate; nothing hangs on the old one.
func TestReconnect(t *testing.T) {
	t.Parallel()
	d := newDesk(t, func(o *server.Options) { o.CertificateLifetime = 9 * time.Second })
	a := d.join("a").run()
	eventually(t, "the stream is up", a.c.Connected)
	if _, err := a.c.RaiseHandshakeNonce(t.Context()); err != nil {
		t.Fatal(err)
	}
	v := a.reader.Verifier
	first, err := v.Inspect(a.cert.Load().Certificate[0])
	must(t, err)
	time.Sleep(time.Until(first.NotAfter) - 6*time.Second) // certificates end at whole seconds
	leaf, err := a.c.Renew(t.Context())
	must(t, err)
	second, err := v.Verify([][]byte{leaf}, identity.KindNode, time.Now())
	must(t, err)
	if second.Serial == first.Serial || second.Name != first.Name || second.Static != a.keys.StaticPublic() {
		t.Errorf("renewed to %+v", second)
	}
	a.cert.Store(identity.TLSCertificate(leaf, a.keys.Sign))
	old, shown := a.status(d.url).Since, a.shown.Load()
	a.c.Reconnect()
	eventually(t, "there is another stream", func() bool { return a.shown.Load() > shown && a.c.Connected() && a.status(d.url).Since.After(old) })
	since := a.status(d.url).Since
	// The controller ends a stream, and refuses a call, when the certificate it was opened with has ended.
	time.Sleep(time.Until(first.NotAfter) + 100*time.Millisecond)
	if s := a.status(d.url); !s.Connected || s.Since != since {
		t.Errorf("when the first certificate has ended the stream is %+v, expected one since %v", s, since)
	}
	if _, err := a.c.RaiseHandshakeNonce(t.Context()); err != nil {
		t.Errorf("a call when the first certificate has ended: %v", err)
	}
}

// TestReconnectAtOnce: each Reconnect makes calls come by another connection, also right after a call, and streams come
// back without a wait.
func TestReconnectAtOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	a := d.join("a").run()
	eventually(t, "the stream is up", a.c.Connected)
	const rounds = 8 // a controller takes 20 hellos at once from one node
	for range rounds {
		_, err := a.c.Renew(t.Context())
		must(t, err)
		a.c.Reconnect()
	}
	from := make(map[string]bool)
	for _, e := range d.audit() {
		if e.GetAction() == "node.renew" {
			from[e.GetSource()] = true
		}
	}
	if len(from) != rounds {
		t.Errorf("%d renewals came by %d connections", rounds, len(from))
	}

	// A stream that is replaced is back at once; it does not wait like one that failed.
	fastest := time.Hour
	const times = 5
	for range times {
		begin, old := time.Now(), a.status(d.url).Since
		a.c.Reconnect()
		eventually(t, "there is another stream", func() bool { return a.status(d.url).Connected && a.status(d.url).Since.After(old) })
		fastest = min(fastest, time.Since(begin))
	}
	if fastest >= retryFirst/2 { // which is the least that one that failed waits
		t.Errorf("of %d streams the fastest was replaced within %v", times, fastest)
	}
	if n := a.logs.count("no stream to the controller"); n != 0 {
		t.Errorf("replacing streams is logged as trouble %d times", n)
	}
}

// TestRefused: a locked node is told by whom it was cut off and why, calls say so too, and it is back as soon as it is
// unlocked. A removed node is told that.
func TestRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	a := d.join("a").run()
	for _, c := range []struct {
		status  controlv1.NodeStatus
		message string
		text    string
	}{
		{controlv1.NodeStatus_NODE_STATUS_LOCKED, "lost laptop", "an administrator has locked this node: lost laptop"},
		{controlv1.NodeStatus_NODE_STATUS_REMOVED, "", "an administrator has removed this node from the network (to join again, stop the daemon and move its state directory away)"},
	} {
		eventually(t, "the stream is up", a.c.Connected)
		d.setStatus("a", c.status, c.message)
		eventually(t, "the stream ends and its status says why", func() bool { return a.status(d.url).Error == c.text && !a.c.Connected() })
		_, err := a.c.Renew(t.Context())
		var r *Refused
		if !errors.As(err, &r) || *r != (Refused{Status: c.status, Message: c.message}) || r.Error() != c.text {
			t.Errorf("a call is refused with %v", err)
		}
		if c.status == controlv1.NodeStatus_NODE_STATUS_LOCKED {
			d.setStatus("a", controlv1.NodeStatus_NODE_STATUS_ACTIVE, "")
		}
	}
	if n := a.logs.count("an administrator has locked this node"); n != 1 {
		t.Errorf("the lock is logged %d times", n)
	}
}

// TestLockThatEnds: a locked node knows until when and why, and is there again soon after a lock ends by itself, however
// long it has waited between attempts.
func TestLockThatEnds(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	a := d.join("a").run()
	eventually(t, "the stream is up", a.c.Connected)
	const life = 6 * time.Second
	d.do(func(ctx context.Context, c controlv1connect.AdminServiceClient) error {
		_, err := c.AddLock(ctx, &controlv1.AddLockRequest{Target: "node:a", Message: "for a while", Ttl: durationpb.New(life)})
		return err
	})
	end := time.Now().Add(life)
	eventually(t, "it knows of the lock", func() bool {
		l := a.status(d.url).Lock
		return l != nil && l.Message == "for a while" && l.Until.Sub(end).Abs() < 2*time.Second
	})
	if got := a.status(d.url).Error; !strings.Contains(got, "has locked this node until 20") || !strings.HasSuffix(got, "Z: for a while") {
		t.Errorf("its status says %q", got)
	}
	time.Sleep(time.Until(end) - 100*time.Millisecond)
	if a.c.Connected() {
		t.Error("it is back before the end")
	}
	eventually(t, "it is back", a.c.Connected)
	if late := time.Since(end); late > 3500*time.Millisecond {
		t.Errorf("it is back %v after the end", late)
	}
	if s := a.status(d.url); s.Lock != nil || s.Refused {
		t.Errorf("back, its status is %+v", s)
	}
}

// TestRetryOfRefused: an end that is near bounds the wait, however it lies; none, or one long past, does not.
func TestRetryOfRefused(t *testing.T) {
	now := time.Now()
	for left, want := range map[time.Duration]time.Duration{
		3 * time.Second: 3 * time.Second, time.Hour: time.Hour,
		time.Millisecond: retryFirst, -time.Second: retryFirst,
	} {
		if got := (&Refused{Until: now.Add(left)}).retry(now); got < want || got > want+retryFirst {
			t.Errorf("%v before the end it waits %v at most, want %v and a little", left, got, want)
		}
	}
	for _, until := range []time.Time{{}, now.Add(-time.Hour)} {
		if got := (&Refused{Until: until}).retry(now); got < retryMost+retryMost/2 {
			t.Errorf("locked until %v it waits %v at most, which bounds the ordinary wait", until, got)
		}
	}
}

// beside starts a second controller of the same network on the first one's store.
func (d *desk) beside() *desk {
	d.t.Helper()
	dir, err := os.MkdirTemp("", "loom")
	must(d.t, err)
	d.t.Cleanup(func() { os.RemoveAll(dir) })
	wrap, err := os.ReadFile(filepath.Join(d.dir, "ca.wrap"))
	must(d.t, err)
	must(d.t, os.WriteFile(filepath.Join(dir, "ca.wrap"), wrap, 0o600))
	second := &desk{t: d.t, dir: dir, cred: d.cred, admin: d.admin, edit: []func(*server.Options){func(o *server.Options) {
		o.EtcdEndpoints = []string{"unix://" + filepath.Join(d.dir, "etcd", "client.sock")}
	}}}
	second.start("127.0.0.1:0")
	return second
}

// TestSeveralControllers: any one of them is enough, each has its own status, and what concerns one leaves the others
// alone.
func TestSeveralControllers(t *testing.T) {
	t.Parallel()
	first := newDesk(t)
	second := first.beside()
	dead := deadURL(t)
	a := first.join("a", first.url, second.url, dead).run()
	eventually(t, "two streams are up", func() bool { return a.status(first.url).Connected && a.status(second.url).Connected })
	list := a.c.Status()
	if len(list) != 3 || list[0].URL > list[1].URL || list[1].URL > list[2].URL {
		t.Errorf("status is %+v", list)
	}
	since := a.status(first.url).Since

	second.stop()
	eventually(t, "the second is down", func() bool { return !a.status(second.url).Connected })
	if !a.c.Connected() || a.status(first.url).Since != since {
		t.Error("the end of the second controller touched the first")
	}
	for range 3 {
		if _, err := a.c.Renew(t.Context()); err != nil {
			t.Errorf("a call with one of three controllers there: %v", err)
		}
	}
	first.grant("node:a")
	eventually(t, "a change arrives", func() bool { return len(a.contents().Grants) == 1 })
	// The dead one is tried again and again by now, but has had the same trouble since the beginning.
	eventually(t, "the dead one has an error", func() bool { return a.status(dead).Error != "connecting" })
	trouble := a.status(dead)
	time.Sleep(2 * retryFirst)
	if s := a.status(dead); s != trouble || s.Connected {
		t.Errorf("status of the dead one was %+v, is %+v", trouble, s)
	}
	if n := a.logs.count("url=" + dead); n != 1 {
		t.Errorf("the dead one is logged %d times", n)
	}

	a.c.SetControllers([]string{first.url})
	if list := a.c.Status(); len(list) != 1 || list[0].Since != since || !a.c.Connected() {
		t.Errorf("left alone with the first: %+v", list)
	}
	a.c.SetControllers([]string{dead})
	eventually(t, "no controller is heard", func() bool { return !a.c.Connected() })
	if _, err := a.c.Renew(t.Context()); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("a call without any controller: %v", err)
	}
	a.c.SetControllers(nil)
	if _, err := a.c.Renew(t.Context()); !errors.Is(err, ErrNoController) {
		t.Errorf("a call with no controller known: %v", err)
	}
	a.c.SetControllers([]string{dead, first.url})
	eventually(t, "a controller that comes back to the list is heard again", a.c.Connected)
}

// TestReportAddress: what a DHCP server gave reaches the controller, and its refusal the node.
func TestReportAddress(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	a := d.join("a")
	wantError(t, a.c.ReportAddress(t.Context(), 999, "10.64.0.9/24"), "there is no segment 999")
	wantError(t, a.c.ReportAddress(t.Context(), 999, "nonsense"), "ADDRESS/LENGTH")
	one, err := a.c.RaiseHandshakeNonce(t.Context())
	must(t, err)
	if two, err := a.c.RaiseHandshakeNonce(t.Context()); err != nil || two <= one {
		t.Errorf("nonces are %d and %d, %v", one, two, err)
	}
}

// TestSendNeverWaits: what is given to a stream that is down is gone, and a stream that is full drops.
func TestSendNeverWaits(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	s := newStream(d.join("a").c, d.url)
	s.send(new(controlv1.NodeMessage))
	if len(s.out) != 0 {
		t.Error("a stream that is down keeps messages")
	}
	s.up = true
	done := make(chan bool)
	go func() {
		for range cap(s.out) + 10 {
			s.send(new(controlv1.NodeMessage))
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("send waits")
	}
	if len(s.out) != cap(s.out) {
		t.Errorf("%d messages wait", len(s.out))
	}
}

// TestHungControllers: controllers that take connections and then say nothing do not hold up calls while another is heard.
func TestHungControllers(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	urls := []string{d.url}
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer l.Close()
		urls = append(urls, "https://"+l.Addr().String())
	}
	a := d.join("a", urls...).run()
	eventually(t, "the one stream is up", a.c.Connected)
	for range 4 {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		if _, err := a.c.Renew(ctx); err != nil {
			t.Errorf("a call: %v", err)
		}
		cancel()
	}
}

// TestRunWaits: when Run has returned, nothing of the client is at work any more.
func TestRunWaits(t *testing.T) {
	began, release := make(chan bool), make(chan bool)
	ca, err := identity.NewCA(identity.NewNetworkID(), time.Now())
	must(t, err)
	v, err := identity.NewVerifier(ca.Certificate())
	must(t, err)
	c := New(Config{
		Controllers: []string{deadURL(t)}, Verifier: func() *identity.Verifier { return v }, Log: slog.New(slog.DiscardHandler),
		Hello: func(*controlv1.Hello, bool) {
			began <- true
			<-release
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	<-began
	cancel()
	select {
	case err := <-done:
		t.Errorf("Run returned in the middle of a hello: %v", err)
		done <- nil
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	must(t, <-done)
}
