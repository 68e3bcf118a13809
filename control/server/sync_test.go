package server

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/compile"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/identity"
)

// pair is a desk with two nodes on one segment.
func pair(t testing.TB, edit ...func(*Options)) (*desk, *machine, *machine) {
	t.Helper()
	d := newDesk(t, edit...)
	token := d.token(func(r *controlv1.CreateTokenRequest) { r.Labels = []string{"a=b"} })
	d.grant("label:a=b", "segment:lan")
	a, b := d.join("a", token).sync(), d.join("b", token).sync()
	eventually(t, "the two know each other and each other's programs", func() bool {
		x, y := a.contents(), b.contents()
		return x.Peers[b.id].GetMaxWire() == 1 && x.Self.GetMaxWire() == 1 && y.Peers[a.id].GetMaxWire() == 1 && y.Self.GetMaxWire() == 1
	})
	return d, a, b
}

// TestCut: a locked node's stream ends at once, it is told why, and nothing lets it in again until it is unlocked. A
// removed one never comes back.
func TestCut(t *testing.T) {
	d, a, b := pair(t)
	for _, c := range []struct {
		status controlv1.NodeStatus
		action string
	}{{controlv1.NodeStatus_NODE_STATUS_LOCKED, "locked"}, {controlv1.NodeStatus_NODE_STATUS_REMOVED, "removed"}} {
		start := time.Now()
		d.setStatus("a", c.status, "lost laptop")
		eventually(t, "the stream ends", func() bool { return a.failed() != nil })
		took := time.Since(start)
		t.Logf("%s: stream cut %.1f ms after the command began", c.action, float64(took.Microseconds())/1000)
		if took > promptly {
			t.Errorf("the cut took %v", took)
		}
		wantError(t, a.failed(), connect.CodePermissionDenied, "lost laptop")
		if r := refusal(t, a.failed()); r.Status != c.status || r.Message != "lost laptop" {
			t.Errorf("refusal is %v", r)
		}
		eventually(t, "the other node forgets it and holds it revoked", func() bool {
			held := b.contents()
			return len(held.Peers) == 0 && held.Revocations[a.id] != nil
		})
		_, err := a.api.Renew(t.Context(), &controlv1.RenewRequest{})
		wantError(t, err, connect.CodePermissionDenied, "node \"a\"")
		if refusal(t, err).Status != c.status {
			t.Errorf("%s: refusal of a renewal is %v", c.action, refusal(t, err))
		}
		a.sync()
		eventually(t, "the new stream ends", func() bool { return a.failed() != nil })
		wantError(t, a.failed(), connect.CodePermissionDenied, "by an administrator")
		if c.action == "removed" {
			break
		}
		d.setStatus("a", controlv1.NodeStatus_NODE_STATUS_ACTIVE, "")
		a.sync()
		eventually(t, "after it was unlocked all is as before", func() bool {
			return len(a.contents().Peers) == 1 && len(b.contents().Peers) == 1 && len(b.contents().Revocations) == 0
		})
	}
	_, err := d.admin.SetNodeStatus(t.Context(), &controlv1.SetNodeStatusRequest{Name: "a", Status: controlv1.NodeStatus_NODE_STATUS_ACTIVE})
	wantError(t, err, connect.CodeNotFound, `no node is called "a"`)
}

// refusal is the detail by which a node knows what became of it.
func refusal(t testing.TB, err error) *controlv1.Refusal {
	t.Helper()
	var ce *connect.Error
	if errors.As(err, &ce) {
		for _, d := range ce.Details() {
			if v, err := d.Value(); err == nil {
				if r, ok := v.(*controlv1.Refusal); ok {
					return r
				}
			}
		}
	}
	t.Errorf("no refusal in %v", err)
	return &controlv1.Refusal{}
}

// TestDeltaLatency measures the way from the store to the node: a grant is removed and added, again and again.
func TestDeltaLatency(t *testing.T) {
	d, a, _ := pair(t)
	const rounds = 30
	var fromCommand, fromStore []time.Duration
	for i := range rounds {
		grants, err := d.admin.ListGrants(t.Context(), &controlv1.ListGrantsRequest{})
		must(t, err)
		_, stale := d.ctl.store.Current()
		start := time.Now()
		committed := make(chan time.Time, 1)
		go func() {
			<-stale
			committed <- time.Now()
		}()
		_, err = d.admin.RemoveGrant(t.Context(), &controlv1.RemoveGrantRequest{Id: grants.Grants[0].Id})
		must(t, err)
		for len(a.contents().Segments) != 0 {
			time.Sleep(50 * time.Microsecond)
		}
		fromCommand, fromStore = append(fromCommand, time.Since(start)), append(fromStore, time.Since(<-committed))
		d.grant("label:a=b", "segment:lan")
		eventually(t, fmt.Sprint("round ", i), func() bool { return len(a.contents().Peers) == 1 })
	}
	slices.Sort(fromCommand)
	slices.Sort(fromStore)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	t.Logf("grant removed: from the command's begin to the node's new state, median %.2f ms, worst %.2f ms; from the durable change, median %.2f ms",
		ms(fromCommand[rounds/2]), ms(fromCommand[rounds-1]), ms(fromStore[rounds/2]))
	if fromStore[rounds/2] > 100*time.Millisecond {
		t.Errorf("median from the durable change is %v", fromStore[rounds/2])
	}
}

// TestReconnect: a node that comes back is sent what it lacks and no more.
func TestReconnect(t *testing.T) {
	d, a, b := pair(t)
	before := d.ctl.Stats()
	a.sync()
	eventually(t, "its state is renewed", func() bool { return d.ctl.Stats().StatesRenewed > before.StatesRenewed })
	if s := d.ctl.Stats(); s.StatesFull != before.StatesFull || s.StatesDelta != before.StatesDelta {
		t.Errorf("a node that lacked nothing was sent: %+v, before %+v", s, before)
	}
	// While it is away, something changes.
	must(t, a.stream.CloseRequest())
	eventually(t, "the stream has ended", func() bool { return errors.Is(a.failed(), io.EOF) && !d.ctl.hub.online(a.id) })
	d.setStatus("b", controlv1.NodeStatus_NODE_STATUS_LOCKED, "")
	before = d.ctl.Stats()
	a.sync()
	eventually(t, "it learns of the change", func() bool { return a.contents().Revocations[b.id] != nil })
	if s := d.ctl.Stats(); s.StatesFull != before.StatesFull || s.StatesDelta == before.StatesDelta {
		t.Errorf("it was sent everything: %+v, before %+v", s, before)
	}
	// It asks for everything.
	a.sync(func(h *controlv1.Hello) { h.Epoch, h.Version, h.Hash = 0, 0, nil })
	eventually(t, "it is sent everything", func() bool { return d.ctl.Stats().StatesFull == before.StatesFull+1 })
	// It holds something that this controller never said.
	before = d.ctl.Stats()
	a.sync(func(h *controlv1.Hello) { h.Version, h.Hash = h.Version-1, make([]byte, 32) })
	eventually(t, "it is sent everything again", func() bool { return d.ctl.Stats().StatesFull == before.StatesFull+1 })
	// Again on the same stream.
	must(t, a.stream.Send(&controlv1.NodeMessage{Kind: &controlv1.NodeMessage_Hello{Hello: &controlv1.Hello{Agent: "test/1", MaxWire: 1, Aes: true}}}))
	eventually(t, "and a third time", func() bool { return d.ctl.Stats().StatesFull == before.StatesFull+2 })
	if err := a.failed(); err != nil {
		t.Error(err)
	}
}

// TestNewerThanTheStore: after an old backup was restored, nodes hold newer versions than the store. They are sent
// nothing until an administrator raises the epoch.
func TestNewerThanTheStore(t *testing.T) {
	d, a, _ := pair(t)
	before := d.ctl.Stats()
	a.sync(func(h *controlv1.Hello) { h.Version, h.Hash = h.Version+1000, make([]byte, 32) })
	eventually(t, "the controller says so", func() bool { return strings.Contains(d.logs.String(), "raise the epoch") })
	time.Sleep(100 * time.Millisecond)
	if s := d.ctl.Stats(); s.StatesFull != before.StatesFull {
		t.Error("a node was sent what it will not take")
	}
	r, err := d.admin.RaiseEpoch(t.Context(), &controlv1.RaiseEpochRequest{})
	must(t, err)
	eventually(t, "after the epoch was raised it is sent everything", func() bool {
		h := a.holds()
		return h.Header.GetEpoch() == r.Epoch && r.Epoch == 2
	})
}

// TestStreamManners: what a node may not do on a stream.
func TestStreamManners(t *testing.T) {
	d := newDesk(t, func(o *Options) { o.Patience, o.Alive = time.Second, time.Second })
	a := d.join("a", d.token())
	open := func(first *controlv1.NodeMessage) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		stream, err := a.api.Sync(ctx)
		must(t, err)
		if first == nil {
			must(t, stream.Send(nil)) // opens the stream and sends nothing
		} else {
			must(t, stream.Send(first))
		}
		_, err = stream.Receive()
		return err
	}
	wantError(t, open(nil), connect.CodeDeadlineExceeded, "expected a hello within 1s")
	wantError(t, open(&controlv1.NodeMessage{}), connect.CodeInvalidArgument, "expected a hello first")
	wantError(t, open(&controlv1.NodeMessage{Kind: &controlv1.NodeMessage_Signal{Signal: &controlv1.Signal{Peer: 1}}}),
		connect.CodeInvalidArgument, "expected a hello first")
	hello := &controlv1.Hello{Agent: strings.Repeat("x", 100<<10)}
	wantError(t, open(&controlv1.NodeMessage{Kind: &controlv1.NodeMessage_Hello{Hello: hello}}), connect.CodeDeadlineExceeded, "65536")

	a.sync(func(h *controlv1.Hello) { h.Agent = "\x1b[31mred\n" + strings.Repeat("x", 100) })
	eventually(t, "the program's name is stored, fit to print", func() bool {
		agent := d.ctl.store.Model().Nodes[a.id].Agent
		return strings.HasPrefix(agent, "[31mred") && len(agent) == 64
	})
	select {
	case msg := <-a.seen:
		if msg.GetAlive().GetNow() == nil {
			t.Errorf("came %v", msg)
		}
	case <-time.After(patience):
		t.Error("no sign of life")
	}
	for range 40 {
		if a.stream.Send(&controlv1.NodeMessage{Kind: &controlv1.NodeMessage_Hello{Hello: &controlv1.Hello{}}}) != nil {
			break
		}
	}
	eventually(t, "hellos without end are cut off", func() bool { return a.failed() != nil })
	wantError(t, a.failed(), connect.CodeResourceExhausted, "too many hellos")
	resp, err := d.join("b", d.token()).http.Get(d.url() + "/etherloom.control.v1.NodeService/Sync")
	must(t, err)
	resp.Body.Close()
}

// TestStreamsOfOneNode: a node has at most three streams; the newest gets the signals.
func TestStreamsOfOneNode(t *testing.T) {
	d, a, b := pair(t)
	first := a.stream
	var streams []*machine
	for range maxStreams {
		clone := &machine{d: d, name: "a", keys: a.keys, seen: make(chan *controlv1.ControllerMessage, 10)}
		clone.use(a.leaf)
		streams = append(streams, clone.sync())
		eventually(t, "the stream is there", func() bool { return clone.holds() != nil })
	}
	eventually(t, "the oldest stream ends", func() bool { return a.failed() != nil })
	wantError(t, a.failed(), connect.CodeAborted, "newer streams")
	if first != a.stream {
		t.Fatal("another stream ended")
	}
	b.signal(a, []byte("hi"))
	select {
	case msg := <-streams[maxStreams-1].seen:
		if string(msg.GetSignal().GetSealed()) != "hi" {
			t.Errorf("came %v", msg)
		}
	case <-time.After(patience):
		t.Error("the newest stream got no signal")
	}
	list, err := d.admin.ListNodes(t.Context(), &controlv1.ListNodesRequest{Name: "a"})
	must(t, err)
	if !list.Nodes[0].Online {
		t.Error("a node with streams is not online")
	}
}

// TestSignals: the controller passes signals on between nodes that share a segment, in its own words about who sent
// them, and bounds their size and number.
func TestSignals(t *testing.T) {
	d, a, b := pair(t, func(o *Options) { o.Limits.Signals, o.Limits.SignalBurst = 1, 30 })
	stranger := d.join("stranger", d.token()).sync()
	eventually(t, "the stranger has its state", func() bool { return stranger.holds() != nil })
	a.signal(b, []byte("one"))
	got := <-b.seen
	if s := got.GetSignal(); identity.ID(s.GetPeer()) != a.id || string(s.GetSealed()) != "one" {
		t.Errorf("b received %v", got)
	}
	is := func(what string, want func(Stats) bool) {
		t.Helper()
		eventually(t, what, func() bool { return want(d.ctl.Stats()) })
	}
	a.signal(b, make([]byte, maxSignal))
	is("the largest is passed", func(s Stats) bool { return s.SignalsPassed == 2 })
	a.signal(b, make([]byte, maxSignal+1))
	is("one byte more is not", func(s Stats) bool { return s.SignalsTooLarge == 1 && s.SignalsPassed == 2 })
	stranger.signal(b, []byte("x"))
	a.signal(stranger, []byte("x"))
	a.signal(&machine{id: 999}, []byte("x"))
	a.signal(a, []byte("x"))
	is("strangers are not passed on", func(s Stats) bool { return s.SignalsForbidden == 4 && s.SignalsPassed == 2 })
	must(t, b.stream.CloseRequest())
	eventually(t, "b is gone", func() bool { return !d.ctl.hub.online(b.id) })
	a.signal(b, []byte("x"))
	is("to one who is not there it is lost", func(s Stats) bool { return s.SignalsLost == 1 })
	for range 40 {
		a.signal(b, []byte("x"))
	}
	is("too many are dropped", func(s Stats) bool { return s.SignalsTooMany >= 10 })
	if err := a.failed(); err != nil {
		t.Errorf("the sender was cut off: %v", err)
	}
}

// TestSignalAfterGrant: with its grant a node loses the right to send signals, although its stream goes on.
func TestSignalAfterGrant(t *testing.T) {
	d, a, b := pair(t)
	grants, err := d.admin.ListGrants(t.Context(), &controlv1.ListGrantsRequest{})
	must(t, err)
	_, err = d.admin.RemoveGrant(t.Context(), &controlv1.RemoveGrantRequest{Id: grants.Grants[0].Id})
	must(t, err)
	eventually(t, "the grant is gone", func() bool { return len(a.contents().Peers) == 0 })
	a.signal(b, []byte("x"))
	eventually(t, "the signal is dropped", func() bool { return d.ctl.Stats().SignalsForbidden == 1 })
}

// TestSignalOfLocked: a signal that was read before the writer has cut a locked node off is not passed on.
func TestSignalOfLocked(t *testing.T) {
	d, a, b := pair(t)
	s := newNodeService(d.ctl)
	st := &stream{c: d.ctl, node: a.id, who: &caller{leaf: mustLeaf(t, d, a)}}
	view, err := d.ctl.compiler.Compile(d.ctl.store.Model(), a.id, nil)
	must(t, err)
	st.view.Store(view)
	s.signal(st, &controlv1.Signal{Peer: uint32(b.id)})
	d.setStatus("a", controlv1.NodeStatus_NODE_STATUS_LOCKED, "")
	s.signal(st, &controlv1.Signal{Peer: uint32(b.id)})
	if got := d.ctl.Stats(); got.SignalsPassed != 1 || got.SignalsForbidden != 1 {
		t.Errorf("stats are %+v", got)
	}
}

// TestFullQueue: a receiver that does not read loses signals, and holds nobody else up.
func TestFullQueue(t *testing.T) {
	h := newHub()
	st := &stream{node: 1, signals: make(chan *controlv1.Signal, 2), evict: func() {}}
	h.add(st)
	passed := 0
	for range 5 {
		if h.pass(1, &controlv1.Signal{}) {
			passed++
		}
	}
	if passed != 2 {
		t.Errorf("%d signals entered a queue of 2", passed)
	}
	h.remove(st)
	if h.pass(1, &controlv1.Signal{}) || h.online(1) || len(h.streams) != 0 {
		t.Error("a stream that ended still takes signals")
	}
	h.remember(1, &compile.Result{Hash: [32]byte{1}})
	if h.recall(1, make([]byte, 32)) != nil || h.recall(1, nil) != nil || h.recall(2, make([]byte, 32)) != nil {
		t.Error("a state of another hash was recalled")
	}
	h.forget(1)
	if len(h.told) != 0 {
		t.Error("a node that is gone is remembered")
	}
}

// TestRenew: keys are certified anew, also a while after the certificate's end, but not for ever; and a stream lives no
// longer than the certificate that it was opened with.
func TestRenew(t *testing.T) {
	d := newDesk(t, func(o *Options) { o.CertificateLifetime, o.Grace = time.Hour, 10*time.Hour })
	a := d.join("a", d.token())
	resp, err := a.api.Renew(t.Context(), &controlv1.RenewRequest{})
	must(t, err)
	old := mustLeaf(t, d, a)
	a.use(resp.Certificate)
	leaf := mustLeaf(t, d, a)
	if leaf.Serial == old.Serial || leaf.Static != old.Static || leaf.Name != old.Name || !leaf.Sign.Equal(old.Sign) {
		t.Errorf("renewed %+v to %+v", old, leaf)
	}
	list, err := d.admin.ListNodes(t.Context(), &controlv1.ListNodesRequest{Name: "a"})
	must(t, err)
	if list.Nodes[0].CertificateSerial != leaf.Serial {
		t.Errorf("the store knows serial %s, want %s", list.Nodes[0].CertificateSerial, leaf.Serial)
	}

	d.clock.advance(2 * time.Hour) // the controller renews itself by real time, so its own has ended too; clients mind, we do not
	v, err := identity.NewVerifier(d.ctl.CA())
	must(t, err)
	late := d.ctl.now()
	if _, err := v.Verify([][]byte{a.leaf}, identity.KindNode, late); !errors.Is(err, identity.ErrExpired) {
		t.Fatalf("the certificate has not ended: %v", err)
	}
	resp, err = a.api.Renew(t.Context(), &controlv1.RenewRequest{})
	if err != nil {
		t.Fatalf("renewal within the grace: %v", err)
	}
	_, err = a.api.RaiseHandshakeNonce(t.Context(), &controlv1.RaiseHandshakeNonceRequest{})
	wantError(t, err, connect.CodeUnauthenticated, "certificate has expired")
	a.sync()
	eventually(t, "a stream with an ended certificate is refused", func() bool { return a.failed() != nil })
	wantError(t, a.failed(), connect.CodeUnauthenticated, "certificate has expired")
	a.use(resp.Certificate)
	_, err = a.api.RaiseHandshakeNonce(t.Context(), &controlv1.RaiseHandshakeNonceRequest{})
	must(t, err)
	d.clock.advance(12 * time.Hour)
	_, err = a.api.Renew(t.Context(), &controlv1.RenewRequest{})
	wantError(t, err, connect.CodeUnauthenticated, "certificate has expired")
}

// TestStreamEndsWithItsCertificate: see TestRenew. The clock is set ahead so far that the stream has seconds left, which is
// enough to open it on a busy machine too.
func TestStreamEndsWithItsCertificate(t *testing.T) {
	d := newDesk(t, func(o *Options) { o.CertificateLifetime, o.Grace = time.Hour, time.Hour })
	a := d.join("a", d.token())
	d.clock.advance(mustLeaf(t, d, a).NotAfter.Sub(d.clock.now()) - 6*time.Second)
	a.sync()
	eventually(t, "it is told its state", func() bool { return a.holds() != nil })
	if err := a.failed(); err != nil {
		t.Errorf("the stream ended before its certificate: %v", err)
	}
	eventually(t, "the stream ends", func() bool { return a.failed() != nil })
	wantError(t, a.failed(), connect.CodeUnauthenticated, "renew it and connect again")
}

// TestStateExpiry: the state's time is moved on while nothing changes, and counts from when the store last answered.
func TestStateExpiry(t *testing.T) {
	d := newDesk(t, func(o *Options) { o.Grace = 12 * time.Second })
	a := d.join("a", d.token()).sync()
	eventually(t, "the node has its state", func() bool { return a.holds() != nil })
	first := a.holds()
	if left := time.Until(first.Expires()); left > 12*time.Second || left < 6*time.Second {
		t.Errorf("a new state is good for %v", left)
	}
	eventually(t, "it is renewed", func() bool { return a.holds().Expires().After(first.Expires().Add(500 * time.Millisecond)) })
	if h := a.holds().Header; h.GetVersion() < first.Header.GetVersion() {
		t.Errorf("version went from %d to %d", first.Header.GetVersion(), h.GetVersion())
	}
}

// TestManyNodes opens streams of many nodes that all know each other, and measures how long a change takes to all.
func TestManyNodes(t *testing.T) {
	n := 60
	if testing.Short() {
		n = 20
	}
	d := newDesk(t)
	token := d.token(func(r *controlv1.CreateTokenRequest) { r.Labels = []string{"a=b"} })
	d.grant("label:a=b", "segment:lan")
	start := time.Now()
	all := make([]*machine, n)
	for i := range all {
		all[i] = d.join(fmt.Sprint("n", i), token).sync()
	}
	t.Logf("%d nodes joined, one after the other, in %.1f s", n, time.Since(start).Seconds())
	reached := func(ok func(*state.Contents) bool) func() bool {
		return func() bool {
			for _, m := range all {
				if !ok(m.contents()) {
					return false
				}
			}
			return true
		}
	}
	eventually(t, "all know all", reached(func(c *state.Contents) bool { return len(c.Peers) == n-1 }))
	start = time.Now()
	d.setStatus("n0", controlv1.NodeStatus_NODE_STATUS_LOCKED, "")
	gone := all[0]
	all = all[1:]
	eventually(t, "all know that one is locked", reached(func(c *state.Contents) bool { return c.Revocations[gone.id] != nil && len(c.Peers) == n-2 }))
	t.Logf("%d nodes knew of a lock %.1f ms after the command began", n-1, float64(time.Since(start).Microseconds())/1000)
	for _, m := range all {
		if err := m.failed(); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
}

// TestForgedNode: a stream of a node that the CA never certified so is refused at the gate.
func TestForgedNode(t *testing.T) {
	d, a, _ := pair(t)
	pub, key, err := ed25519.GenerateKey(nil)
	must(t, err)
	leaf, err := d.ctl.ca.Issue(identity.Certificate{
		Name: identity.Name{Kind: identity.KindNode, ID: a.id}, Sign: pub, Static: a.keys.StaticPublic(),
	}, time.Hour, time.Now())
	must(t, err)
	forged := &machine{d: d, name: "a", keys: identity.NodeKeys{Sign: key, Static: a.keys.Static}, seen: make(chan *controlv1.ControllerMessage, 1)}
	forged.use(leaf.DER)
	forged.sync()
	eventually(t, "the stream is refused", func() bool { return forged.failed() != nil })
	wantError(t, forged.failed(), connect.CodePermissionDenied, "with your keys")
	if a.failed() != nil {
		t.Error("the real one was cut off")
	}
}
