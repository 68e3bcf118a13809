package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/controlv1/controlv1connect"
	"github.com/etherloom/etherloom/control/document"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
	"github.com/etherloom/etherloom/identity"
)

// caller is who makes a request: what the gate found out, and all that the services know of it.
type caller struct {
	leaf    *identity.Certificate // nil for a machine that enrols
	source  string
	request string
	conn    *http.ResponseController
}

type callerKey struct{}

func callerOf(ctx context.Context) *caller {
	c, ok := ctx.Value(callerKey{}).(*caller)
	if !ok {
		panic("server: a request that did not come through the gate")
	}
	return c
}

// actor is the caller as the audit log names it.
func (c *caller) actor() store.Actor {
	a := store.Actor{Name: "machine", Source: c.source, Request: c.request}
	if c.leaf != nil {
		a.Name = c.leaf.Name.String()
	}
	return a
}

// gate decides who calls and whether they may, before a body is read.
type gate struct {
	c      *Controller
	calls  *sourceBuckets
	mux    *http.ServeMux
	errors *connect.ErrorWriter
}

func newGate(c *Controller) *gate {
	g := &gate{
		c: c, mux: http.NewServeMux(), errors: connect.NewErrorWriter(),
		calls: newBuckets[netip.Prefix](c.opts.Limits.Calls, c.opts.Limits.CallBurst, maxSources),
	}
	options := connect.WithHandlerOptions(
		// No compression: a small body cannot become a large one, and the length of a state, which holds credentials
		// beside names that others chose, tells nothing of them.
		connect.WithCompression("gzip", nil, nil),
		connect.WithRecover(g.recovered),
		connect.WithInterceptors(connect.UnaryInterceptorFunc(g.finish)),
	)
	g.mux.Handle(controlv1connect.NewEnrolServiceHandler(&enrolment{c}, options, connect.WithReadMaxBytes(int(c.opts.Limits.Body))))
	g.mux.Handle(controlv1connect.NewNodeServiceHandler(newNodeService(c), options, connect.WithReadMaxBytes(int(c.opts.Limits.Body))))
	g.mux.Handle(controlv1connect.NewAdminServiceHandler(&adminService{c}, options, connect.WithReadMaxBytes(int(c.bodyOf(controlv1connect.AdminServiceName)))))
	return g
}

// ServeHTTP lets a request through to its service, or refuses it.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	who := &caller{source: r.RemoteAddr, request: newRequestID(), conn: http.NewResponseController(w)}
	w.Header().Set("Etherloom-Request", who.request)
	service, method, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	want, known := demandOf(service)
	if !ok || !known {
		http.NotFound(w, r)
		return
	}
	if err := g.admit(who, r, want, method); err != nil {
		g.c.stats.callsRefused.Add(1)
		level := slog.LevelDebug // a stranger's, of whom there may be many
		if who.leaf != nil {
			level = slog.LevelInfo
		}
		g.c.log.Log(r.Context(), level, "call was refused", slog.String("source", who.source), slog.String("method", r.URL.Path),
			slog.String("request", who.request), slog.Any("err", err))
		_ = g.errors.Write(w, r, err) // whoever it was may be gone
		return
	}
	if r.URL.Path != controlv1connect.NodeServiceSyncProcedure {
		r.Body = http.MaxBytesReader(w, r.Body, g.c.bodyOf(service))
	}
	g.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, who)))
}

// bodyOf is how many bytes a request may have. An administrator, who has been identified before one is read, sends documents.
func (c *Controller) bodyOf(service string) int64 {
	if service == controlv1connect.AdminServiceName {
		return c.opts.Limits.Body + 2*document.MaxSize // as JSON, a line's end takes two bytes
	}
	return c.opts.Limits.Body
}

// demandOf returns the kind of certificate that a service asks of its callers, "" for none. A service that is not here
// does not exist.
func demandOf(service string) (kind identity.Kind, known bool) {
	switch service {
	case controlv1connect.EnrolServiceName:
		return "", true
	case controlv1connect.NodeServiceName:
		return identity.KindNode, true
	case controlv1connect.AdminServiceName:
		return identity.KindAdmin, true
	}
	return "", false
}

// admit finds out who calls. Whoever cannot show a certificate that is worth something pays with the source's budget
// of calls.
func (g *gate) admit(who *caller, r *http.Request, want identity.Kind, method string) error {
	now := g.c.now()
	err := g.identify(who, r, want, method, now)
	if (want == "" || err != nil) && !g.calls.allow(sourceOf(r.RemoteAddr), now) {
		return refuse(connect.CodeResourceExhausted, "too many calls from your address: wait a little and try again")
	}
	return err
}

func (g *gate) identify(who *caller, r *http.Request, want identity.Kind, method string, now time.Time) error {
	if want == "" {
		return nil
	}
	leaf := identity.PeerLeaf(r.TLS)
	if leaf == nil {
		return refuse(connect.CodeUnauthenticated, "this call needs a client certificate of kind %s, found none", want)
	}
	v := g.c.verifier
	m := g.c.store.Model()
	if want == identity.KindNode && method == "Renew" {
		v = graceful(v, m)
	}
	cert, err := v.Verify(leaf, want, now)
	if err != nil {
		return refuse(connect.CodeUnauthenticated, "your certificate: %w", err)
	}
	who.leaf = cert
	if want == identity.KindAdmin {
		return checkAdmin(m, cert, now)
	}
	_, err = checkNode(m, cert)
	return err
}

// graceful is a verifier that takes certificates which ended less than the grace ago: whoever renews such a one could
// not do so before, for want of a controller.
func graceful(v *identity.Verifier, m *model.Model) *identity.Verifier {
	return &identity.Verifier{
		CA: v.CA, Network: v.Network, Grace: time.Duration(m.Settings.Grace),
		LastController: func() time.Time { return time.Time{} },
	}
}

// checkNode holds a verified leaf against what is known of its node now.
func checkNode(m *model.Model, leaf *identity.Certificate) (*model.Node, error) {
	n := m.Nodes[leaf.Name.ID]
	// Ids can come back when an old backup of the store is restored; keys cannot.
	if n == nil || !bytes.Equal(n.Sign, leaf.Sign) || !bytes.Equal(n.Static, leaf.Static[:]) {
		return nil, refuse(connect.CodePermissionDenied, "this network knows no node %d with your keys: join again with a new token",
			leaf.Name.ID)
	}
	switch n.Status {
	case model.StatusLocked:
		return nil, cut(n, "node %q is locked by an administrator%s", n.Name, because(n.Message))
	case model.StatusRemoved:
		return nil, cut(n, "node %q was removed from the network by an administrator%s: to come back, join again with a new token",
			n.Name, because(n.Message))
	case model.StatusActive, model.StatusPending:
	}
	return n, nil
}

func because(message string) string {
	if message == "" {
		return ""
	}
	return ": " + message
}

// cut is an error that tells a node what an administrator decided about it.
func cut(n *model.Node, format string, args ...any) error {
	err := connect.NewError(connect.CodePermissionDenied, fmt.Errorf(format, args...))
	detail, encoding := connect.NewErrorDetail(&controlv1.Refusal{Status: n.Status.Proto(), Message: n.Message})
	if encoding == nil {
		err.AddDetail(detail)
	}
	return err
}

func checkAdmin(m *model.Model, leaf *identity.Certificate, now time.Time) error {
	a := m.Admins[leaf.Name.ID]
	if a == nil || !bytes.Equal(a.Sign, leaf.Sign) {
		return refuse(connect.CodePermissionDenied, "this network knows no administrator %d with your key", leaf.Name.ID)
	}
	if a.Revoked {
		return refuse(connect.CodePermissionDenied, "administrator %q was revoked", a.Name)
	}
	if !now.Before(a.Expires) {
		return refuse(connect.CodePermissionDenied, "administrator %q's credential has expired: ask another one for a new one, or "+
			"start the controller with --new-admin", a.Name)
	}
	return nil
}

// refuse is an error that a caller sees.
func refuse(code connect.Code, format string, args ...any) error {
	return connect.NewError(code, fmt.Errorf(format, args...))
}

// finish turns what a service returns into what the caller sees. An error that no rule made is logged whole and shown
// without its inside.
func (g *gate) finish(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		resp, err := next(ctx, r)
		return resp, g.visible(ctx, r.Spec().Procedure, err)
	}
}

func (g *gate) visible(ctx context.Context, method string, err error) error {
	var shown *connect.Error
	if err == nil || errors.As(err, &shown) || ctx.Err() != nil {
		return err
	}
	if errors.Is(err, model.ErrFull) || errors.Is(err, store.ErrTooLarge) {
		return refuse(connect.CodeResourceExhausted, "%w", err)
	}
	who := callerOf(ctx)
	g.c.log.Error("call failed", slog.String("method", method), slog.String("request", who.request), slog.Any("err", err))
	if store.Unavailable(err) {
		return refuse(connect.CodeUnavailable, "the controller cannot reach its store: try again, or look into its log for request %s",
			who.request)
	}
	return refuse(connect.CodeInternal, "the controller failed: look into its log for request %s", who.request)
}

// recovered makes a panic in a service an error of that one call.
func (g *gate) recovered(ctx context.Context, spec connect.Spec, _ http.Header, value any) error {
	return g.visible(ctx, spec.Procedure, fmt.Errorf("panic: %v\n%s", value, debug.Stack()))
}

func newRequestID() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
