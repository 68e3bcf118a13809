package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/controlv1/controlv1connect"
	"github.com/etherloom/etherloom/control/credential"
	"github.com/etherloom/etherloom/control/server"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/identity"

	"google.golang.org/protobuf/types/known/timestamppb"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patience is how long something may take on a machine with much else to do.
const patience = 30 * time.Second

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// wantError checks that an error says all of these.
func wantError(t testing.TB, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error is %v, want ...%s...", err, text)
		}
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

func (l *logs) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// desk is a controller that runs, and its administrator.
type desk struct {
	t      testing.TB
	dir    string
	edit   []func(*server.Options)
	ctl    *server.Controller
	url    string
	cred   *credential.Admin
	grants int
	admin  *Admin
	stop   func()
}

func newDesk(t testing.TB, edit ...func(*server.Options)) *desk {
	t.Helper()
	dir, err := os.MkdirTemp("", "loom") // short: etcd has unix sockets in it
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &desk{t: t, dir: dir, edit: edit}
	d.start("127.0.0.1:0")
	data, err := credential.Read(filepath.Join(dir, "admin.json"))
	must(t, err)
	d.cred, err = credential.ParseAdmin(data)
	must(t, err)
	d.admin, err = NewAdmin(d.cred)
	must(t, err)
	return d
}

func (d *desk) start(listen string) {
	d.t.Helper()
	opts := server.Options{
		DataDir: d.dir, Listen: listen, Log: slog.New(slog.DiscardHandler),
		Limits: server.Limits{Calls: 1000, CallBurst: 1000, Changes: 1000, ChangeBurst: 1000},
	}
	for _, f := range d.edit {
		f(&opts)
	}
	ctl, err := server.Open(context.Background(), opts)
	must(d.t, err)
	d.ctl, d.url = ctl, "https://"+ctl.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ctl.Run(ctx) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			d.t.Errorf("controller: %v", err)
		}
	})
	d.t.Cleanup(d.stop)
}

// restart stops the controller and starts it again in the same place.
func (d *desk) restart() {
	d.t.Helper()
	d.stop()
	d.start(strings.TrimPrefix(d.url, "https://"))
}

func (d *desk) do(f func(context.Context, controlv1connect.AdminServiceClient) error) {
	d.t.Helper()
	must(d.t, d.admin.Do(context.Background(), f))
}

func (d *desk) token(edit ...func(*controlv1.CreateTokenRequest)) (token identity.Token) {
	d.t.Helper()
	r := &controlv1.CreateTokenRequest{Uses: 100}
	for _, f := range edit {
		f(r)
	}
	d.do(func(ctx context.Context, a controlv1connect.AdminServiceClient) error {
		resp, err := a.CreateToken(ctx, r)
		if err == nil {
			token, err = identity.ParseToken(resp.GetToken())
		}
		return err
	})
	return token
}

// grant adds a grant that is like no other: it has an end of its own.
func (d *desk) grant(from string) {
	d.t.Helper()
	d.grants++
	until := time.Now().Add(time.Duration(d.grants) * time.Hour)
	d.do(func(ctx context.Context, a controlv1connect.AdminServiceClient) error {
		_, err := a.AddGrant(ctx, &controlv1.AddGrantRequest{From: from, To: "segment:lan", Expires: timestamppb.New(until)})
		return err
	})
}

func (d *desk) setStatus(name string, status controlv1.NodeStatus, message string) {
	d.t.Helper()
	d.do(func(ctx context.Context, a controlv1connect.AdminServiceClient) error {
		_, err := a.SetNodeStatus(ctx, &controlv1.SetNodeStatusRequest{Name: name, Status: status, Message: message})
		return err
	})
}

func (d *desk) audit() (list []*controlv1.AuditEntry) {
	d.t.Helper()
	d.do(func(ctx context.Context, a controlv1connect.AdminServiceClient) error {
		r, err := a.ListAudit(ctx, &controlv1.ListAuditRequest{})
		list = r.GetEntries()
		return err
	})
	return list
}

// deadURL is where no controller listens.
func deadURL(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return "https://" + l.Addr().String()
}

type signal struct {
	from   identity.ID
	sealed string
}

// member is a machine that has enrolled, and what a daemon does with its Client.
type member struct {
	t      testing.TB
	c      *Client
	id     identity.ID
	keys   identity.NodeKeys
	cert   atomic.Pointer[tls.Certificate]
	shown  atomic.Int32 // how often a controller has asked for the certificate
	reader *state.Reader
	logs   logs
	heard  chan signal
	leave  func()

	mu     sync.Mutex
	held   *state.Held
	hellos []*controlv1.Hello
	fresh  []bool
	refuse error // the next delta is refused with it
}

func newKeys(t testing.TB) identity.NodeKeys {
	t.Helper()
	keys, err := identity.NewNodeKeys()
	must(t, err)
	return keys
}

// join enrols a machine; its client does not run yet.
func (d *desk) join(name string, urls ...string) *member {
	d.t.Helper()
	keys := newKeys(d.t)
	token := d.token()
	token.URLs = []string{d.url} // another controller may learn of the token a moment later
	e, err := Enrol(d.t.Context(), token, name, keys)
	must(d.t, err)
	v, err := identity.NewVerifier(e.CA)
	must(d.t, err)
	m := &member{
		t: d.t, id: e.Certificate.Name.ID, keys: keys, heard: make(chan signal, 10),
		reader: &state.Reader{Verifier: v, Node: e.Certificate.Name.ID}, leave: func() {},
	}
	m.cert.Store(identity.TLSCertificate(e.Leaf, keys.Sign))
	if len(urls) == 0 {
		urls = e.Controllers
	}
	m.c = New(Config{
		Controllers: urls, Verifier: func() *identity.Verifier { return v }, Log: slog.New(slog.NewTextHandler(&m.logs, nil)),
		Certificate: func() *tls.Certificate {
			m.shown.Add(1)
			return m.cert.Load()
		},
		Hello: m.hello, Apply: m.apply,
		Signaled: func(from identity.ID, sealed []byte) { m.heard <- signal{from, string(sealed)} },
	})
	return m
}

func (m *member) hello(h *controlv1.Hello, fresh bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h.Agent, h.MaxWire = "test/1", 1
	if !fresh {
		m.held.Hello(h)
	}
	m.hellos, m.fresh = append(m.hellos, h), append(m.fresh, fresh)
}

func (m *member) apply(d *controlv1.Delta) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refuse; err != nil {
		m.refuse = nil
		return err
	}
	held, err := m.reader.Apply(m.held, d, time.Now())
	if err == nil {
		m.held = held
	}
	return err
}

// run lets the client run, until leave is called or the test ends.
func (m *member) run() *member {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.c.Run(ctx) }()
	m.leave = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			must(m.t, err)
		case <-time.After(5 * time.Second):
			m.t.Error("Run does not end")
		}
	})
	m.t.Cleanup(m.leave)
	return m
}

func (m *member) holds() *state.Held {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held
}

func (m *member) contents() *state.Contents {
	m.t.Helper()
	held := m.holds()
	if held == nil {
		return &state.Contents{}
	}
	c, err := held.State.Contents()
	must(m.t, err)
	return c
}

// greetings are the hellos said so far, and whether each was to hold nothing.
func (m *member) greetings() ([]*controlv1.Hello, []bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hellos, m.fresh
}

func (m *member) status(url string) Status {
	m.t.Helper()
	for _, s := range m.c.Status() {
		if s.URL == url {
			return s
		}
	}
	m.t.Fatalf("no status of %s", url)
	return Status{}
}

// settled waits until the member holds the newest that the controller has to say of its program, so that nothing more
// comes unless something changes.
func (m *member) settled() {
	m.t.Helper()
	eventually(m.t, "the node's own record names its program", func() bool { return m.contents().Self.GetMaxWire() == 1 })
}
