// Package client is the node's side of the control protocol: it enrols (Enrol), and then keeps a stream to every
// controller at once. Any one of them is enough; a node that has none goes on with what it holds.
//
//	controller 1 <--- stream: hello, signals ---+
//	             ---- state, signals, alive --->|
//	                                            | Client ---> Apply, Signaled: the daemon
//	controller 2 <---------------------------->-+
//
// Each stream says hello with the version and hash of the state that the node holds; the controller answers with what is
// missing. A delta that starts from another version makes the stream say hello again; one that does not lead to what was
// signed makes it say hello with nothing, for the whole state. Streams are tried again with a jittered delay that grows to
// a few seconds, for ever.
package client

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/controlv1/controlv1connect"
	"github.com/etherloom/etherloom/identity"
)

// Config is what a Client needs. All fields but Posture must be set.
type Config struct {
	Controllers []string // https://HOST:PORT
	Verifier    func() *identity.Verifier
	Certificate func() *tls.Certificate
	// Hello fills in what the node holds; fresh asks for the whole state instead.
	Hello func(h *controlv1.Hello, fresh bool)
	// Apply takes a delta. state.ErrBase makes the stream say again what is held, another error ask for the whole state.
	Apply func(*controlv1.Delta) error
	// Posture returns what the node says of itself, at once; nil while there is nothing to say. Each stream says it after
	// its hello, and again after Report.
	Posture func() *controlv1.PostureReport
	// Signaled takes a sealed signal from a peer.
	Signaled func(from identity.ID, sealed []byte)
	Log      *slog.Logger
}

// Client keeps the node's streams. Its methods may be called concurrently.
type Client struct {
	cfg Config

	mu      sync.Mutex
	streams map[string]*stream
	spawn   func(*stream) // nil unless Run runs

	contact  contact
	reported atomic.Int64 // when a posture report was sent last, Unix nanoseconds; 0: never
}

// New returns a Client that is not connected yet.
func New(cfg Config) *Client {
	c := &Client{cfg: cfg, streams: make(map[string]*stream)}
	c.SetControllers(cfg.Controllers)
	return c
}

// Run keeps the streams until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	c.mu.Lock()
	c.spawn = func(s *stream) {
		ctx, cancel := context.WithCancel(ctx)
		s.cancel = cancel
		wg.Go(func() { s.run(ctx) })
	}
	for _, s := range c.streams {
		c.spawn(s)
	}
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	c.spawn = nil
	c.mu.Unlock()
	wg.Wait()
	return nil
}

// SetControllers replaces the controllers. Streams to those that stay are not touched.
func (c *Client) SetControllers(urls []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for url, s := range c.streams {
		if !slices.Contains(urls, url) {
			delete(c.streams, url)
			if s.cancel != nil {
				s.cancel()
			}
		}
	}
	for _, url := range urls {
		if c.streams[url] == nil {
			s := newStream(c, url)
			c.streams[url] = s
			if c.spawn != nil {
				c.spawn(s)
			}
		}
	}
}

// Reconnect replaces every stream by a new one, because the node has a new certificate.
func (c *Client) Reconnect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		s.restart()
	}
}

// Resync asks every controller for the whole state.
func (c *Client) Resync() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		s.say(c.hello(true))
	}
}

// Report makes every stream say what Posture returns then. It does not wait.
func (c *Client) Report() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		select {
		case s.posture <- struct{}{}:
		default:
		}
	}
}

// Reported is when a posture report was sent last; zero if none was.
func (c *Client) Reported() time.Time {
	if at := c.reported.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

func (c *Client) hello(fresh bool) *controlv1.NodeMessage {
	h := new(controlv1.Hello)
	c.cfg.Hello(h, fresh)
	return &controlv1.NodeMessage{Kind: &controlv1.NodeMessage_Hello{Hello: h}}
}

// Signal passes a sealed signal to a peer by every controller that can be reached. It does not wait.
func (c *Client) Signal(to identity.ID, sealed []byte) {
	m := &controlv1.NodeMessage{Kind: &controlv1.NodeMessage_Signal{
		Signal: &controlv1.Signal{Peer: uint32(to), Sealed: sealed},
	}}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		s.send(m)
	}
}

// ReportUse tells every controller that can be reached when grants were used last, and says whether there was one. It does not
// wait.
func (c *Client) ReportUse(uses []*controlv1.GrantUse) (told bool) {
	m := &controlv1.NodeMessage{Kind: &controlv1.NodeMessage_Use{Use: &controlv1.UseReport{Uses: uses}}}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		told = s.send(m) || told
	}
	return told
}

// Connected reports whether any controller is heard now.
func (c *Client) Connected() bool { return c.contact.now() }

// LastHeard is when a controller was last heard, counting only contact that has lasted for the settling time: after an
// outage the peers need a moment to renew their certificates, too.
func (c *Client) LastHeard(settle time.Duration) time.Time { return c.contact.settled(settle) }

// Status is what can be said of one controller.
type Status struct {
	URL       string    `json:"url"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	Error     string    `json:"error,omitempty"`   // why there is no stream
	Refused   bool      `json:"refused,omitempty"` // an administrator does not want the node
	Lock      *Lock     `json:"lock,omitempty"`    // the node is locked
}

// Lock is what a locked node is told.
type Lock struct {
	Message string    `json:"message"`
	Until   time.Time `json:"until,omitzero"` // zero: until an administrator unlocks it
}

// Status describes every controller, by address.
func (c *Client) Status() []Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Status
	for _, s := range c.streams {
		out = append(out, s.status())
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.URL, b.URL) })
	return out
}

// ErrNoController means that no controller can be reached at the moment.
var ErrNoController = errors.New("no controller can be reached")

// call tries f with one controller after another, those that are heard first.
func (c *Client) call(ctx context.Context, f func(context.Context, controlv1connect.NodeServiceClient) error) error {
	c.mu.Lock()
	var list []*stream
	for _, s := range c.streams {
		if s.status().Connected {
			list = append([]*stream{s}, list...)
		} else {
			list = append(list, s)
		}
	}
	c.mu.Unlock()
	err := ErrNoController
	for _, s := range list {
		if err = f(ctx, s.unary); err == nil {
			return nil
		}
		if r := asRefusal(err); r != nil {
			return r
		}
	}
	return err
}

// Renew gets a new certificate for the node's keys, DER.
func (c *Client) Renew(ctx context.Context) (leaf []byte, err error) {
	err = c.call(ctx, func(ctx context.Context, n controlv1connect.NodeServiceClient) error {
		r, err := n.Renew(ctx, &controlv1.RenewRequest{})
		leaf = r.GetCertificate()
		return err
	})
	return leaf, err
}

// ReportAddress tells the controllers which address a DHCP server has given the node on a segment; empty: none.
func (c *Client) ReportAddress(ctx context.Context, vni uint32, address string) error {
	return c.call(ctx, func(ctx context.Context, n controlv1connect.NodeServiceClient) error {
		_, err := n.ReportAddress(ctx, &controlv1.ReportAddressRequest{Vni: vni, Address: address})
		return err
	})
}

// ReportLeases tells the controllers what machines behind this gateway have asked of the DHCP services.
func (c *Client) ReportLeases(ctx context.Context, reports []*controlv1.LeaseReport) (refused []*controlv1.LeaseRefusal, err error) {
	err = c.call(ctx, func(ctx context.Context, n controlv1connect.NodeServiceClient) error {
		r, err := n.ReportLeases(ctx, &controlv1.ReportLeasesRequest{Reports: reports})
		refused = r.GetRefused()
		return err
	})
	return refused, err
}

// Declare says which ports onto VLANs this gateway wants, all of them, and returns what is not as it wants it, by port.
func (c *Client) Declare(ctx context.Context, list []*controlv1.DeclaredAttachment) (refused map[string]string, err error) {
	err = c.call(ctx, func(ctx context.Context, n controlv1connect.NodeServiceClient) error {
		r, err := n.DeclareAttachments(ctx, &controlv1.DeclareAttachmentsRequest{Attachments: list})
		refused = make(map[string]string)
		for _, result := range r.GetResults() {
			if result.GetError() != "" {
				refused[result.GetPort()] = result.GetError()
			}
		}
		return err
	})
	return refused, err
}

// RaiseHandshakeNonce makes handshakes from now on count as newer than all before.
func (c *Client) RaiseHandshakeNonce(ctx context.Context) (nonce uint64, err error) {
	err = c.call(ctx, func(ctx context.Context, n controlv1connect.NodeServiceClient) error {
		r, err := n.RaiseHandshakeNonce(ctx, &controlv1.RaiseHandshakeNonceRequest{})
		nonce = r.GetHandshakeNonce()
		return err
	})
	return nonce, err
}
