package server

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/controlv1/controlv1connect"
	"github.com/etherloom/etherloom/control/credential"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/identity"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patience is how long something may take on a machine with much else to do.
const patience = 30 * time.Second

// promptly is how long on such a machine what happens at once may take.
const promptly = 5 * time.Second

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// wantError checks an error's code and that its text helps.
func wantError(t testing.TB, err error, code connect.Code, text string) {
	t.Helper()
	if connect.CodeOf(err) != code || err == nil || !bytes.Contains([]byte(err.Error()), []byte(text)) {
		t.Errorf("error is %v\nwant %v: ...%s...", err, code, text)
	}
}

type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// clock is one that tests set ahead.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// desk is a controller that runs, and its administrator.
type desk struct {
	t     testing.TB
	dir   string
	ctl   *Controller
	logs  *logs
	clock *clock
	cred  *credential.Admin
	admin controlv1connect.AdminServiceClient
	stop  func()
}

func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "loom")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func options(dir string, d *desk) Options {
	return Options{
		DataDir: dir, Listen: "127.0.0.1:0", Now: d.clock.now,
		Log: slog.New(slog.NewTextHandler(d.logs, &slog.HandlerOptions{Level: slog.LevelInfo})),
		Limits: Limits{
			Calls: 1000, CallBurst: 1000, Changes: 1000, ChangeBurst: 1000,
		},
	}
}

func newDesk(t testing.TB, edit ...func(*Options)) *desk { return newDeskAt(t, shortDir(t), edit...) }

func newDeskAt(t testing.TB, dir string, edit ...func(*Options)) *desk {
	t.Helper()
	d := &desk{t: t, dir: dir, logs: new(logs), clock: new(clock)}
	opts := options(dir, d)
	for _, f := range edit {
		f(&opts)
	}
	d.start(opts)
	if data, err := credential.Read(filepath.Join(dir, "admin.json")); err == nil {
		d.cred, err = credential.ParseAdmin(data)
		must(t, err)
		d.admin = controlv1connect.NewAdminServiceClient(d.client(d.cred.Certificate, d.cred.Key), d.url())
	}
	return d
}

func (d *desk) start(opts Options) {
	d.t.Helper()
	ctl, err := Open(d.t.Context(), opts)
	must(d.t, err)
	d.ctl = ctl
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ctl.Run(ctx) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			d.t.Errorf("Run: %v", err)
		}
	})
	d.t.Cleanup(d.stop)
}

func (d *desk) url() string { return "https://" + d.ctl.Addr().String() }

// client speaks TLS with a leaf, or with none.
func (d *desk) client(leaf []byte, key []byte) *http.Client {
	d.t.Helper()
	v, err := identity.NewVerifier(d.ctl.CA())
	must(d.t, err)
	var cert *tls.Certificate
	if leaf != nil {
		cert = identity.TLSCertificate(leaf, key)
	}
	transport := &http.Transport{TLSClientConfig: identity.ClientTLS(v, func() *tls.Certificate { return cert }), ForceAttemptHTTP2: true}
	d.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (d *desk) token(edit ...func(*controlv1.CreateTokenRequest)) identity.Token {
	d.t.Helper()
	r := &controlv1.CreateTokenRequest{Uses: 1000}
	for _, f := range edit {
		f(r)
	}
	resp, err := d.admin.CreateToken(d.t.Context(), r)
	must(d.t, err)
	token, err := identity.ParseToken(resp.Token)
	must(d.t, err)
	return token
}

func (d *desk) grant(from, to string) uint32 {
	d.t.Helper()
	r, err := d.admin.AddGrant(d.t.Context(), &controlv1.AddGrantRequest{From: from, To: to})
	must(d.t, err)
	return r.Grant.Id
}

func (d *desk) setStatus(name string, status controlv1.NodeStatus, message string) {
	d.t.Helper()
	_, err := d.admin.SetNodeStatus(d.t.Context(), &controlv1.SetNodeStatusRequest{Name: name, Status: status, Message: message})
	must(d.t, err)
}

// machine is a node's side of the protocol.
type machine struct {
	d    *desk
	name string
	keys identity.NodeKeys
	leaf []byte
	id   identity.ID

	http *http.Client
	api  controlv1connect.NodeServiceClient

	mu     sync.Mutex
	held   *state.Held
	ended  error
	leave  func()
	seen   chan *controlv1.ControllerMessage // all but deltas
	stream *connect.BidiStreamForClientSimple[controlv1.NodeMessage, controlv1.ControllerMessage]
}

func (d *desk) enrolClient() controlv1connect.EnrolServiceClient {
	return controlv1connect.NewEnrolServiceClient(d.client(nil, nil), d.url())
}

// enrol runs the two steps, with the request edited in between.
func (d *desk) enrol(secret []byte, name string, keys identity.NodeKeys, edit ...func(*controlv1.EnrolRequest)) (*controlv1.EnrolResponse, error) {
	api := d.enrolClient()
	begin, err := api.Begin(d.t.Context(), &controlv1.BeginRequest{Secret: secret})
	if err != nil {
		return nil, err
	}
	proof, err := keys.Prove(secret, name, identity.Challenge{Opaque: begin.Challenge, Ephemeral: begin.Ephemeral})
	if err != nil {
		return nil, err
	}
	static := keys.StaticPublic()
	r := &controlv1.EnrolRequest{
		Secret: secret, Challenge: begin.Challenge, Name: name, SignKey: keys.SignPublic(), StaticKey: static[:],
		Signature: proof.Signature, Mac: proof.MAC,
	}
	for _, f := range edit {
		f(r)
	}
	return api.Enrol(d.t.Context(), r)
}

func (d *desk) join(name string, token identity.Token) *machine {
	d.t.Helper()
	keys, err := identity.NewNodeKeys()
	must(d.t, err)
	resp, err := d.enrol(token.Secret[:], name, keys)
	must(d.t, err)
	m := &machine{d: d, name: name, keys: keys, seen: make(chan *controlv1.ControllerMessage, 100)}
	m.use(resp.Certificate)
	return m
}

// use takes a certificate for all further calls.
func (m *machine) use(leaf []byte) {
	m.d.t.Helper()
	m.leaf = leaf
	v, err := identity.NewVerifier(m.d.ctl.CA())
	must(m.d.t, err)
	cert, err := v.Verify([][]byte{leaf}, identity.KindNode, m.d.clock.now())
	must(m.d.t, err)
	m.id = cert.Name.ID
	m.http = m.d.client(leaf, m.keys.Sign)
	m.api = controlv1connect.NewNodeServiceClient(m.http, m.d.url())
}

// reader is how the machine believes deltas.
func (m *machine) reader() *state.Reader {
	v, err := identity.NewVerifier(m.d.ctl.CA())
	must(m.d.t, err)
	return &state.Reader{Verifier: v, Node: m.id}
}

// sync opens a stream and follows it until it ends.
func (m *machine) sync(edit ...func(*controlv1.Hello)) *machine {
	m.d.t.Helper()
	if m.leave != nil {
		m.leave()
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.d.t.Cleanup(cancel)
	stream, err := m.api.Sync(ctx)
	must(m.d.t, err)
	// The end of the context alone does not reach the controller.
	m.leave = func() {
		cancel()
		_ = stream.CloseRequest()
		_ = stream.CloseResponse()
	}
	hello := &controlv1.Hello{Agent: "test/1", MaxWire: 1, Aes: true}
	m.mu.Lock()
	m.held.Hello(hello)
	m.stream, m.ended = stream, nil
	m.mu.Unlock()
	for _, f := range edit {
		f(hello)
	}
	// If the gate refused the stream, Receive says why.
	_ = stream.Send(&controlv1.NodeMessage{Kind: &controlv1.NodeMessage_Hello{Hello: hello}})
	go m.follow(stream, m.reader())
	return m
}

func (m *machine) follow(stream *connect.BidiStreamForClientSimple[controlv1.NodeMessage, controlv1.ControllerMessage], r *state.Reader) {
	for {
		msg, err := stream.Receive()
		if err != nil {
			m.mu.Lock()
			if m.stream == stream {
				m.ended = err
			}
			m.mu.Unlock()
			return
		}
		delta := msg.GetDelta()
		if delta == nil {
			select {
			case m.seen <- msg:
			default:
			}
			continue
		}
		m.mu.Lock()
		held, err := r.Apply(m.held, delta, m.d.clock.now())
		if err != nil && !errors.Is(err, state.ErrOld) {
			m.ended = fmt.Errorf("apply: %w", err)
		}
		m.held = held
		m.mu.Unlock()
	}
}

// contents is what the machine holds now.
func (m *machine) contents() *state.Contents {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held == nil {
		return &state.Contents{}
	}
	c, err := m.held.State.Contents()
	must(m.d.t, err)
	return c
}

func (m *machine) holds() *state.Held {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held
}

// failed is the error that the stream ended with, if it has ended.
func (m *machine) failed() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ended
}

func (m *machine) signal(to *machine, sealed []byte) {
	m.d.t.Helper()
	must(m.d.t, m.stream.Send(&controlv1.NodeMessage{Kind: &controlv1.NodeMessage_Signal{
		Signal: &controlv1.Signal{Peer: uint32(to.id), Sealed: sealed},
	}}))
}

// gzipped compresses a body.
func gzipped(t testing.TB, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(body)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}
