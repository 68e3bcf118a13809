package client

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/controlv1/controlv1connect"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/identity"
)

// Times of a stream.
const (
	retryFirst  = 500 * time.Millisecond
	retryMost   = 5 * time.Second
	pingEvery   = 5 * time.Second // without traffic; a connection that does not answer is given up
	pingTimeout = 5 * time.Second
	dialTimeout = 10 * time.Second
	callTimeout = 15 * time.Second
)

// maxDelta is the longest message that a node takes from a controller: a state of some ten thousand peers.
const maxDelta = 16 << 20

// stream is the node's relation to one controller.
type stream struct {
	c   *Client
	url string
	out chan *controlv1.NodeMessage
	// posture asks the writer to say what the node says of itself now. What is newest then is sent, so one is enough.
	posture chan struct{}

	calls  *http.Transport // for unary
	unary  controlv1connect.NodeServiceClient
	cancel context.CancelFunc // ends run; guarded by Client.mu

	mu    sync.Mutex
	stop  context.CancelFunc // ends the present session
	up    bool
	since time.Time
	err   error
}

func newStream(c *Client, url string) *stream {
	calls := transportFor(c)
	return &stream{
		c: c, url: url, out: make(chan *controlv1.NodeMessage, 64), posture: make(chan struct{}, 1), since: time.Now(), err: errors.New("connecting"), calls: calls,
		unary: controlv1connect.NewNodeServiceClient(&http.Client{Transport: calls, Timeout: callTimeout}, url,
			connect.WithReadMaxBytes(maxDelta)),
	}
}

// transportFor makes a fresh HTTP/2 transport: one connection that shows the node's present certificate.
func transportFor(c *Client) *http.Transport {
	return http2Transport(identity.ClientTLS(c.cfg.Verifier(), c.cfg.Certificate))
}

func http2Transport(config *tls.Config) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	return &http.Transport{
		TLSClientConfig: config, Protocols: protocols,
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingEvery, PingTimeout: pingTimeout},
	}
}

// send hands a message to the stream, if it is up and not full, and says whether it did. Signals are repeated anyway.
func (s *stream) send(m *controlv1.NodeMessage) bool {
	s.mu.Lock()
	up := s.up
	s.mu.Unlock()
	if !up {
		return false
	}
	select {
	case s.out <- m:
		return true
	default:
		return false
	}
}

// say sends a hello in the midst of a session; where there is no room for it, a new session begins with one.
func (s *stream) say(hello *controlv1.NodeMessage) {
	if !s.send(hello) {
		s.restart()
	}
}

// restart lets the stream and the connection for calls be made anew, with the node's present certificate.
func (s *stream) restart() {
	s.calls.CloseIdleConnections()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		s.stop()
	}
}

func (s *stream) status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{URL: s.url, Connected: s.up, Since: s.since}
	if s.err != nil {
		r := asRefusal(s.err)
		st.Error, st.Refused = s.err.Error(), r != nil
		if r != nil && r.Status == controlv1.NodeStatus_NODE_STATUS_LOCKED {
			st.Lock = &Lock{Message: r.Message, Until: r.Until}
		}
	}
	return st
}

// run keeps the stream until ctx ends.
func (s *stream) run(ctx context.Context) {
	delay := retryFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := s.session(ctx)
		if ctx.Err() != nil {
			return
		}
		s.failed(err)
		if time.Since(began) > retryMost || errors.Is(err, errRestart) {
			delay = retryFirst
		}
		wait := delay/2 + rand.N(delay) //nolint:gosec // spreads the load, hides nothing
		if errors.Is(err, errRestart) {
			wait = 0
		}
		if r := asRefusal(err); r != nil {
			wait = min(wait, r.retry(time.Now()))
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
			delay = min(2*delay, retryMost)
		}
	}
}

var errRestart = errors.New("the stream is being replaced")

func (s *stream) failed(err error) {
	if r := asRefusal(err); r != nil {
		err = r
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil || s.err.Error() != err.Error() {
		s.since = time.Now()
		if !errors.Is(err, errRestart) {
			s.c.cfg.Log.Warn("no stream to the controller", "url", s.url, "err", err)
		}
	}
	s.err = err
}

// session is one stream, from hello to its end.
func (s *stream) session(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.mu.Lock()
	s.stop = func() { cancel(errRestart) }
	s.mu.Unlock()

	transport := transportFor(s.c)
	defer transport.CloseIdleConnections()
	dial := &http.Client{Transport: transport}
	rpc, err := controlv1connect.NewNodeServiceClient(dial, s.url, connect.WithReadMaxBytes(maxDelta)).Sync(ctx)
	if err != nil {
		return err
	}
	defer rpc.CloseResponse() //nolint:errcheck // it is over
	// Until the first message has come the controller may not be there at all.
	patience := time.AfterFunc(dialTimeout, func() { cancel(errors.New("no answer")) })
	defer patience.Stop()
	if err := rpc.Send(s.c.hello(false)); err != nil {
		return s.cause(ctx, streamError(rpc, err))
	}
	var writer sync.WaitGroup
	defer writer.Wait()
	defer cancel(nil)
	writer.Go(func() { s.write(ctx, rpc, cancel) })
	up := false
	defer func() {
		if up {
			s.down()
		}
	}()
	for {
		m, err := rpc.Receive()
		if err != nil {
			return s.cause(ctx, err)
		}
		if !up {
			patience.Stop()
			s.isUp()
			up = true
		}
		s.take(m)
	}
}

// streamError finds the controller's own words when sending has failed because it has ended the stream.
func streamError(rpc *connect.BidiStreamForClientSimple[controlv1.NodeMessage, controlv1.ControllerMessage], err error) error {
	if _, received := rpc.Receive(); received != nil {
		return received
	}
	return err
}

func (s *stream) cause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

func (s *stream) write(ctx context.Context, rpc *connect.BidiStreamForClientSimple[controlv1.NodeMessage, controlv1.ControllerMessage], cancel context.CancelCauseFunc) {
	send := func(m *controlv1.NodeMessage) {
		switch err := rpc.Send(m); {
		case errors.Is(err, io.EOF): // the controller has ended the stream; Receive learns why
			<-ctx.Done()
		case err != nil:
			cancel(err)
		}
	}
	select {
	case s.posture <- struct{}{}:
	default:
	}
	for {
		select {
		case <-ctx.Done():
			_ = rpc.CloseRequest()
			return
		case m := <-s.out:
			send(m)
		case <-s.posture:
			if m := s.c.report(); m != nil {
				send(m)
			}
		}
	}
}

// report is the message that says what the node says of itself; nil if there is nothing to say.
func (c *Client) report() *controlv1.NodeMessage {
	if c.cfg.Posture == nil {
		return nil
	}
	r := c.cfg.Posture()
	if r == nil {
		return nil
	}
	c.reported.Store(time.Now().UnixNano())
	return &controlv1.NodeMessage{Kind: &controlv1.NodeMessage_Posture{Posture: r}}
}

func (s *stream) isUp() {
	s.mu.Lock()
	s.up, s.since, s.err = true, time.Now(), nil
	s.mu.Unlock()
	s.c.contact.up(time.Now())
	s.c.cfg.Log.Info("stream to the controller is up", "url", s.url)
}

func (s *stream) down() {
	s.mu.Lock()
	s.up, s.since = false, time.Now()
	s.mu.Unlock()
	s.c.contact.down(time.Now())
}

// take handles one message from the controller.
func (s *stream) take(m *controlv1.ControllerMessage) {
	switch kind := m.GetKind().(type) {
	case *controlv1.ControllerMessage_Delta:
		if err := s.c.cfg.Apply(kind.Delta); err != nil {
			s.c.cfg.Log.Warn("state refused", "url", s.url, "err", err)
			s.say(s.c.hello(!errors.Is(err, state.ErrBase)))
		}
	case *controlv1.ControllerMessage_Signal:
		s.c.cfg.Signaled(identity.ID(kind.Signal.GetPeer()), kind.Signal.GetSealed())
	}
}

// Refused is an error by which a controller says that an administrator does not want the node.
type Refused struct {
	Status  controlv1.NodeStatus
	Message string
	Until   time.Time // when a lock ends by itself; zero: when it is lifted
}

func (r *Refused) Error() string {
	text := "an administrator has locked this node"
	if !r.Until.IsZero() {
		text += " until " + r.Until.UTC().Format(time.RFC3339)
	}
	if r.Status == controlv1.NodeStatus_NODE_STATUS_REMOVED {
		text = "an administrator has removed this node from the network (to join again, stop the daemon and move its state directory away)"
	}
	if r.Message != "" {
		text += ": " + r.Message
	}
	return text
}

// retry is how long a refused node waits at most: if a lock ends by itself meanwhile it is there soon after. Of a lock that
// should have ended for some time the clock is not to be trusted.
func (r *Refused) retry(now time.Time) time.Duration {
	left := r.Until.Sub(now)
	if r.Until.IsZero() || left < -retryMost {
		return 2 * retryMost
	}
	return max(left, retryFirst) + rand.N(retryFirst) //nolint:gosec // spreads the load
}

func asRefusal(err error) *Refused {
	var r *Refused
	if errors.As(err, &r) {
		return r
	}
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return nil
	}
	for _, d := range ce.Details() {
		if v, err := d.Value(); err == nil {
			if r, ok := v.(*controlv1.Refusal); ok {
				out := &Refused{Status: r.GetStatus(), Message: r.GetMessage()}
				if r.GetUntil() != nil {
					out.Until = r.GetUntil().AsTime()
				}
				return out
			}
		}
	}
	return nil
}

// clientFor makes an HTTP client for calls without a node's certificate.
func clientFor(config *tls.Config) *http.Client {
	return &http.Client{Transport: http2Transport(config), Timeout: callTimeout}
}
