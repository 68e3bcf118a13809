package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/compile"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/identity"
)

// stream is one node's connection. Its writer owns everything but what is marked as shared.
type stream struct {
	c    *Controller
	node identity.ID
	who  *caller
	wire *connect.BidiStream[controlv1.NodeMessage, controlv1.ControllerMessage]

	told  *compile.Result // what the node holds, as far as we know; nil: unknown
	base  uint64          // the version at which it holds that
	above position        // nothing is sent that is not newer than this
	due   time.Time       // when the expiry of its state is to be moved on

	// Shared with the reader, the hub, and other streams.
	hellos  chan *controlv1.Hello
	signals chan *controlv1.Signal
	view    atomic.Pointer[compile.Result]
	evicted chan struct{}
	evict   func()
}

// position orders states: a node takes only greater ones.
type position struct{ epoch, version uint64 }

func (a position) less(b position) bool {
	return a.epoch < b.epoch || a.epoch == b.epoch && a.version < b.version
}

// signalQueue is how many signals wait for a node at most.
const signalQueue = 64

// Sync is the long-lived stream: hello and signals up, signed state and signals down.
func (s *nodeService) Sync(ctx context.Context, wire *connect.BidiStream[controlv1.NodeMessage, controlv1.ControllerMessage]) error {
	who := callerOf(ctx)
	st := &stream{
		c: s.c, node: who.leaf.Name.ID, who: who, wire: wire,
		hellos: make(chan *controlv1.Hello, 1), signals: make(chan *controlv1.Signal, signalQueue), evicted: make(chan struct{}),
	}
	st.evict = sync.OnceFunc(func() { close(st.evicted) })
	err := st.run(ctx, s)
	s.c.stats.streamsEnded.Add(1)
	if shown := s.c.gate.visible(ctx, wire.Spec().Procedure, err); shown != nil {
		s.c.log.Info("stream of a node ended", slog.Uint64("id", uint64(st.node)), slog.String("source", who.source),
			slog.Any("err", shown))
		return shown
	}
	return nil
}

// run writes and reads until one of the two ends.
func (st *stream) run(ctx context.Context, s *nodeService) error {
	// Until the first hello the request's own deadline for a body holds; afterwards only pings end a dead connection.
	if err := st.who.conn.SetReadDeadline(time.Now().Add(st.c.opts.Patience)); err != nil {
		return fmt.Errorf("stream's deadline: %w", err)
	}
	first, err := st.greet(s)
	if err != nil {
		return err
	}
	if err := errors.Join(st.who.conn.SetReadDeadline(time.Time{}), st.who.conn.SetWriteDeadline(time.Time{})); err != nil {
		return fmt.Errorf("stream's deadline: %w", err)
	}
	if m := st.c.store.Model(); st.mustGo(m) != nil {
		return st.farewell(m)
	}
	st.c.hub.add(st)
	defer st.c.hub.remove(st)
	defer func() { st.c.dossiers.ended(st, st.c.now()) }()
	st.c.stats.streams.Add(1)
	defer st.c.stats.streams.Add(-1)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return st.read(ctx, s, first) })
	err = st.write(ctx)
	// A deadline in the past wakes the reader; the answer can still be written.
	_ = st.who.conn.SetReadDeadline(time.Unix(1, 0)) // fails if the stream is gone, which wakes it too
	readErr := g.Wait()
	switch {
	case !errors.Is(err, context.Canceled):
		return err
	case errors.Is(readErr, io.EOF):
		return nil
	}
	return readErr
}

// greet waits for the first message, which must be a hello.
func (st *stream) greet(s *nodeService) (*controlv1.Hello, error) {
	msg, err := st.wire.Receive()
	if err != nil {
		return nil, refuse(connect.CodeDeadlineExceeded, "expected a hello within %v, found %w", st.c.opts.Patience, err)
	}
	hello := msg.GetHello()
	if hello == nil {
		return nil, refuse(connect.CodeInvalidArgument, "expected a hello first, found another message")
	}
	if err := s.mayHello(st); err != nil {
		return nil, err
	}
	st.hello(hello)
	return hello, nil
}

// read takes what the node sends. What is to be stored of it is stored here, so that the writer never waits for the
// store: it may have to cut the node off.
func (st *stream) read(ctx context.Context, s *nodeService, first *controlv1.Hello) (err error) {
	// net/http catches a panic of the writer, which is its own goroutine, but not of this one.
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("panic: %v\n%s", value, debug.Stack())
		}
	}()
	s.c.heed(ctx, st.who, first)
	for {
		msg, err := st.wire.Receive()
		if ctx.Err() != nil {
			return nil // the writer has ended the stream
		}
		if err != nil {
			return err
		}
		switch kind := msg.GetKind().(type) {
		case *controlv1.NodeMessage_Signal:
			s.signal(st, kind.Signal)
		case *controlv1.NodeMessage_Posture:
			if err := s.report(st, kind.Posture); err != nil {
				return err
			}
		case *controlv1.NodeMessage_Use:
			if s.uses.allow(st.node, s.c.now()) { // what is not heard now is said again when the grant is used again
				s.c.heedUse(ctx, st, kind.Use)
			}
		case *controlv1.NodeMessage_Hello:
			if err := s.mayHello(st); err != nil {
				return err
			}
			select {
			case st.hellos <- kind.Hello:
			case <-ctx.Done():
				return nil
			}
			s.c.heed(ctx, st.who, kind.Hello)
		}
	}
}

// write tells the node what there is to tell, until it is to be cut off or the context ends.
func (st *stream) write(ctx context.Context) error {
	alive := time.NewTicker(st.c.opts.Alive)
	defer alive.Stop()
	end := time.NewTimer(st.who.leaf.NotAfter.Sub(st.c.now()))
	defer end.Stop()
	for {
		m, stale := st.c.store.Current()
		if st.mustGo(m) != nil {
			return st.farewell(m)
		}
		if err := st.tell(m); err != nil {
			return err
		}
		renew := time.NewTimer(st.due.Sub(st.c.now()))
		err := st.await(ctx, stale, renew.C, alive.C, end.C)
		renew.Stop()
		if err != nil {
			return err
		}
	}
}

// await waits for one thing to happen, and does what needs no new Model.
func (st *stream) await(ctx context.Context, stale <-chan struct{}, renew, alive, end <-chan time.Time) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-stale:
	case <-renew:
	case hello := <-st.hellos:
		st.hello(hello)
	case sig := <-st.signals:
		return st.send(&controlv1.ControllerMessage{Kind: &controlv1.ControllerMessage_Signal{Signal: sig}})
	case <-alive:
		return st.send(&controlv1.ControllerMessage{Kind: &controlv1.ControllerMessage_Alive{
			Alive: &controlv1.Alive{Now: timestamppb.New(st.c.now())},
		}})
	case <-end:
		return refuse(connect.CodeUnauthenticated, "the certificate of this connection has expired: renew it and connect again")
	case <-st.evicted:
		return refuse(connect.CodeAborted, "the node has opened %d newer streams", maxStreams)
	}
	return nil
}

// mustGo says why the node may have no stream.
func (st *stream) mustGo(m *model.Model) error {
	_, err := checkNode(m, st.who.leaf)
	return err
}

// farewell ends the stream of a node that must go. If it was cut off it is told, signed like any other, the state in which
// it shares nothing with anybody, unless it holds that already: so its own end closes, too, and stays closed when it starts
// again.
func (st *stream) farewell(m *model.Model) error {
	why := st.mustGo(m)
	if _, err := knownNode(m, st.who.leaf); err != nil {
		return why
	}
	next, err := st.c.compiler.Compile(m, st.node, st.told)
	if err != nil || st.told != nil && next.Hash == st.told.Hash {
		return why
	}
	if err := st.tell(m); err != nil {
		st.c.log.Info("a node that was cut off was not told its state", slog.Uint64("id", uint64(st.node)), slog.Any("err", err))
	}
	return why
}

// hello takes what the node says it holds.
func (st *stream) hello(h *controlv1.Hello) {
	st.told, st.base, st.above = nil, 0, position{h.GetEpoch(), h.GetVersion()}
	st.due = time.Time{}
	m := st.c.store.Model()
	if h.GetEpoch() == m.Settings.Epoch && h.GetVersion() > 0 {
		if st.told = st.c.hub.recall(st.node, h.GetHash()); st.told == nil {
			now, err := st.c.compiler.Compile(m, st.node, nil)
			if err == nil && bytes.Equal(now.Hash[:], h.GetHash()) {
				st.told = now
			}
		}
	}
	if st.told != nil {
		st.base = h.GetVersion()
	} else if (position{m.Settings.Epoch, m.Version}).less(st.above) {
		st.c.log.Warn("node holds a newer state than the store: if the store was restored from a backup, raise the epoch",
			slog.Uint64("id", uint64(st.node)), slog.Uint64("epoch", h.GetEpoch()), slog.Uint64("version", h.GetVersion()))
	}
}

// retryTell is when something that could not be sent is tried again.
const retryTell = time.Second

// tell sends the node what it does not hold yet, or moves the expiry of what it holds on.
func (st *stream) tell(m *model.Model) error {
	next, err := st.c.compiler.Compile(m, st.node, st.told)
	if err != nil {
		return err
	}
	st.view.Store(next)
	same := st.told != nil && next.Hash == st.told.Hash
	now := st.c.now()
	if same && now.Before(st.due) {
		st.told = next
		return nil
	}
	st.due = now.Add(retryTell)
	at := position{m.Settings.Epoch, m.Version}
	if at.less(st.above) || at == st.above && !same {
		return nil // the node would not take it; there will be a newer Model
	}
	h := st.header(m, next)
	if !h.GetExpires().AsTime().After(now) {
		return nil
	}
	from := st.told
	if h.GetBase() == 0 {
		from = nil
	}
	set, removed := st.c.compiler.Delta(from, next)
	delta, err := st.c.self.Load().signer.Sign(h, set, removed)
	if err != nil {
		return err
	}
	if err := st.send(&controlv1.ControllerMessage{Kind: &controlv1.ControllerMessage_Delta{Delta: delta}}); err != nil {
		return err
	}
	st.c.stats.count(h.GetBase() == 0, same)
	st.told, st.base, st.above = next, m.Version, at
	// A quarter of the time that the state is good for.
	st.due = now.Add(max(time.Duration(m.Settings.Grace)/4, retryEvery))
	st.c.hub.remember(st.node, next)
	return nil
}

// header is that of a delta to next. The state's time counts from when the store was last known to be reachable: past
// that, the policy may have changed without this controller.
func (st *stream) header(m *model.Model, next *compile.Result) *controlv1.StateHeader {
	return &controlv1.StateHeader{
		Network: st.c.ca.Network[:], Node: uint32(st.node), Epoch: m.Settings.Epoch, Base: st.base, Version: m.Version,
		Hash: next.Hash[:], Issued: timestamppb.New(st.c.now()),
		Expires:   timestamppb.New(st.c.store.Confirmed().Add(time.Duration(m.Settings.Grace))),
		AuditHead: m.AuditHead().Proto(),
	}
}

// sendTime is how long a node may take to read one message before its stream is given up.
const sendTime = 10 * time.Second

func (st *stream) send(msg *controlv1.ControllerMessage) error {
	if err := st.who.conn.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return fmt.Errorf("stream's deadline: %w", err)
	}
	if err := st.wire.Send(msg); err != nil {
		return err
	}
	if err := st.who.conn.SetWriteDeadline(time.Time{}); err != nil {
		return fmt.Errorf("stream's deadline: %w", err)
	}
	return nil
}
