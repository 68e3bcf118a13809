package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/etherloom/etherloom/bridge"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/node/statedir"
	"github.com/etherloom/etherloom/transport"
	"golang.org/x/sys/unix"
)

// Local commands talk to the daemon through a unix socket in the state directory: HTTP, JSON. Who can reach the socket is
// root or the daemon's own user, for the directory is 0700.

// serveLocal answers local commands until ctx ends.
func (d *Daemon) serveLocal(ctx context.Context) error {
	path := d.dir.Socket()
	// What is there is of a daemon that died: this one holds the directory's lock.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("local socket: %w", err)
	}
	old := unix.Umask(0o177)
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return fmt.Errorf("local socket: %w", err)
	}
	server := &http.Server{
		Handler: d.localHandler(), ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("local socket: %w", err)
	}
	return nil
}

func (d *Daemon) localHandler() http.Handler {
	mux := http.NewServeMux()
	list := func(path string, get func() any) {
		mux.HandleFunc("GET /"+path, func(w http.ResponseWriter, _ *http.Request) { reply(w, get()) })
	}
	list("status", func() any { return d.Status() })
	list("peers", func() any { return d.endpoint.Peers() })
	list("ports", func() any { return d.Ports() })
	list("fdb", func() any { return d.FDB() })
	list("names", func() any { return d.Names() })
	list("drops", func() any { return d.Drops() })
	list("posture", func() any { return d.Posture() })
	list("dhcp", func() any { return d.DHCP() })
	list("flows", func() any { return d.Flows() })
	list("grants", func() any { return d.Grants() })
	list("mirrors", func() any { return d.Mirrors() })
	list("attachments", func() any { return d.Attachments() })
	mux.HandleFunc("POST /ping", d.localPing)
	mux.HandleFunc("POST /explain", d.localExplain)
	d.localFDB(mux)
	d.localPorts(mux)
	d.localMirrors(mux)
	d.localAttachments(mux)
	return mux
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// PingRequest asks for a sealed probe to a peer.
type PingRequest struct {
	Peer string        `json:"peer"` // name
	Wait time.Duration `json:"wait_ns"`
}

func (d *Daemon) localPing(w http.ResponseWriter, r *http.Request) {
	var req PingRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&req); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id, ok := d.peerNamed(strings.TrimSuffix(strings.TrimSuffix(req.Peer, "."), "."+d.member.Zone))
	if !ok {
		http.Error(w, d.noPing(req.Peer), http.StatusNotFound)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), min(max(req.Wait, 100*time.Millisecond), time.Minute))
	defer cancel()
	results, err := d.endpoint.Ping(ctx, id)
	if err != nil {
		http.Error(w, err.Error(), http.StatusGatewayTimeout)
		return
	}
	reply(w, results)
}

// noPing says why there is nothing to probe. A host has no daemon that would answer.
func (d *Daemon) noPing(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.contents != nil {
		plain := strings.TrimPrefix(strings.TrimSuffix(strings.TrimSuffix(name, "."), "."+d.member.Zone), "host:")
		for _, m := range d.contents.Machines {
			if m.GetName() == plain {
				return fmt.Sprintf("%s is no node but behind a gateway, so there is no link of its own to measure: `ping %s` asks the host itself, `etherloom ping` its gateway, "+
					"and `etherloom explain --to %s` says what becomes of a frame", plain, plain, plain)
			}
		}
	}
	return fmt.Sprintf("no peer is called %q: `etherloom peers` lists those that this node shares a grant with", name)
}

func (d *Daemon) localExplain(w http.ResponseWriter, r *http.Request) {
	var req ExplainRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 2*bridge.MaxFrame)).Decode(&req); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	e, err := d.Explain(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	reply(w, e)
}

// answering serves what is asked and answered in JSON.
func answering[Q, A any](do func(Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&q); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a, err := do(q)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		reply(w, a)
	}
}

func (d *Daemon) peerNamed(name string) (identity.ID, bool) {
	for _, p := range d.endpoint.Peers() {
		if p.Name == name {
			return p.ID, true
		}
	}
	return 0, false
}

// Local is a client of a daemon on this machine.
type Local struct{ http *http.Client }

// Dial returns a client of the daemon that uses the state directory.
func Dial(dir *statedir.Dir) *Local {
	dialer := func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", dir.Socket())
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("not permitted to ask the daemon at %s: run this as root", dir.Socket())
		}
		if err != nil {
			return nil, fmt.Errorf("no daemon answers at %s: is `etherloom run` running with this state directory?", dir.Socket())
		}
		return conn, nil
	}
	return &Local{&http.Client{Transport: &http.Transport{DialContext: dialer}}}
}

// Get asks for one of the lists: status, peers, ports, fdb, names, dhcp, drops, flows, grants, mirrors, posture, attachments.
func (l *Local) Get(ctx context.Context, what string, into any) error {
	return l.do(ctx, http.MethodGet, what, nil, into)
}

// Ping sends a sealed probe to a peer by every path.
func (l *Local) Ping(ctx context.Context, r PingRequest) (out []transport.PingResult, err error) {
	err = l.do(ctx, http.MethodPost, "ping", r, &out)
	return out, err
}

// Explain asks what becomes of a frame.
func (l *Local) Explain(ctx context.Context, r ExplainRequest) (*Explained, error) {
	out := new(Explained)
	if err := l.do(ctx, http.MethodPost, "explain", r, out); err != nil {
		return nil, err
	}
	return out, nil
}

// AddFDB pins an address to a port.
func (l *Local) AddFDB(ctx context.Context, r FDBAdd) (out *FDBChange, err error) {
	err = l.do(ctx, http.MethodPost, "fdb/add", r, &out)
	return out, err
}

// RemoveFDB forgets an address.
func (l *Local) RemoveFDB(ctx context.Context, r FDBRemove) (out *FDBChange, err error) {
	err = l.do(ctx, http.MethodPost, "fdb/remove", r, &out)
	return out, err
}

// FlushFDB forgets what was learned.
func (l *Local) FlushFDB(ctx context.Context, r FDBFlush) (out *FDBChange, err error) {
	err = l.do(ctx, http.MethodPost, "fdb/flush", r, &out)
	return out, err
}

// SetPort changes attributes of a port.
func (l *Local) SetPort(ctx context.Context, r PortSet) (out *PortDetail, err error) {
	err = l.do(ctx, http.MethodPost, "port/set", r, &out)
	return out, err
}

// ShowPort asks for all of a port.
func (l *Local) ShowPort(ctx context.Context, r PortSet) (out *PortDetail, err error) {
	err = l.do(ctx, http.MethodPost, "port/show", r, &out)
	return out, err
}

func (l *Local) do(ctx context.Context, method, what string, body, into any) error {
	var in io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://daemon/"+what, in)
	if err != nil {
		return err
	}
	resp, err := l.http.Do(req)
	if err != nil {
		var op *net.OpError
		if inner := errors.Unwrap(err); inner != nil && !errors.As(err, &op) {
			return inner
		}
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return errors.New(string(bytes.TrimSpace(text)))
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
