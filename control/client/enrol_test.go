package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/controlv1/controlv1connect"
	"github.com/etherloom/etherloom/control/credential"
	"github.com/etherloom/etherloom/identity"
)

func TestEnrol(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	token, keys := d.token(), newKeys(t)
	token.URLs = []string{deadURL(t), d.url} // one that is down does not matter
	e, err := Enrol(t.Context(), token, "a", keys)
	must(t, err)
	c := e.Certificate
	if c.Static != keys.StaticPublic() || !c.Sign.Equal(keys.SignPublic()) || c.Name.ID == 0 || string(c.DER) != string(e.Leaf) {
		t.Errorf("certificate is %+v", c)
	}
	if string(e.CA) != string(d.ctl.CA()) || e.Zone != "etherloom.internal" || len(e.Controllers) != 1 || e.Controllers[0] != d.url || e.Pending {
		t.Errorf("enrolled as %+v", e)
	}
	e, err = Enrol(t.Context(), d.token(func(r *controlv1.CreateTokenRequest) { r.Approve = true }), "b", newKeys(t))
	if err != nil || !e.Pending {
		t.Errorf("with a token that asks for approval: %+v, %v", e, err)
	}

	// What a controller has decided is not asked of the next one.
	other := deadURL(t)
	used := d.token()
	used.URLs = []string{d.url, other}
	_, err = Enrol(t.Context(), used, "a", newKeys(t))
	wantError(t, err, d.url+": ", `a node called "a" is in the network already`)
	if strings.Contains(err.Error(), other) {
		t.Errorf("another controller was asked: %v", err)
	}
	// Without any controller each has its own explanation.
	used.URLs = []string{other, "https://127.0.0.1:1"}
	_, err = Enrol(t.Context(), used, "c", newKeys(t))
	wantError(t, err, other+": cannot connect: ", "https://127.0.0.1:1: cannot connect: ", "refused")
	// Somebody else's server is found out before it learns the secret.
	foreign := d.token()
	foreign.Pin[0] ^= 1
	_, err = Enrol(t.Context(), foreign, "c", newKeys(t))
	wantError(t, err, d.url+": "+identity.ErrPin.Error())
}

// TestCheckEnrolled: nothing of an answer is believed but what the CA of the token has certified for our own keys.
func TestCheckEnrolled(t *testing.T) {
	now := time.Now()
	newCA := func() *identity.CA {
		ca, err := identity.NewCA(identity.NewNetworkID(), now)
		must(t, err)
		return ca
	}
	ca, other := newCA(), newCA()
	keys, others := newKeys(t), newKeys(t)
	issue := func(ca *identity.CA, kind identity.Kind, sign, static identity.NodeKeys, at time.Time) []byte {
		c, err := ca.Issue(identity.Certificate{
			Name: identity.Name{Kind: kind, ID: 1}, Sign: sign.SignPublic(), Static: static.StaticPublic(),
		}, time.Hour, at)
		must(t, err)
		return c.DER
	}
	good := issue(ca, identity.KindNode, keys, keys, now)
	for _, c := range []struct {
		name string
		ca   []byte
		leaf []byte
		want string // "": accepted
	}{
		{"good", ca.Certificate(), good, ""},
		{"another network", other.Certificate(), issue(other, identity.KindNode, keys, keys, now), identity.ErrPin.Error()},
		{"no CA", nil, good, "CA's certificate"},
		{"no certificate", ca.Certificate(), nil, "the certificate that the controller issued"},
		{"another CA's certificate", ca.Certificate(), issue(other, identity.KindNode, keys, keys, now), identity.ErrIssuer.Error()},
		{"a controller's certificate", ca.Certificate(), issue(ca, identity.KindController, keys, keys, now), identity.ErrKind.Error()},
		{"ended", ca.Certificate(), issue(ca, identity.KindNode, keys, keys, now.Add(-2*time.Hour)), identity.ErrExpired.Error()},
		{"another Ed25519 key", ca.Certificate(), issue(ca, identity.KindNode, others, keys, now), "other keys than ours"},
		{"another X25519 key", ca.Certificate(), issue(ca, identity.KindNode, keys, others, now), "other keys than ours"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &controlv1.EnrolResponse{Ca: c.ca, Certificate: c.leaf, Status: controlv1.NodeStatus_NODE_STATUS_PENDING}
			e, err := checkEnrolled(r, identity.Token{Pin: ca.Pin()}, keys)
			if c.want != "" {
				wantError(t, err, c.want)
			} else if err != nil || !e.Pending {
				t.Errorf("%+v, %v", e, err)
			}
		})
	}
}

func TestDecided(t *testing.T) {
	for code, want := range map[connect.Code]bool{
		connect.CodeUnavailable: false, connect.CodeDeadlineExceeded: false, connect.CodeCanceled: false, connect.CodeUnknown: false,
		connect.CodeAborted: false, connect.CodeResourceExhausted: false, connect.CodeInternal: false,
		connect.CodeNotFound: true, connect.CodeAlreadyExists: true, connect.CodePermissionDenied: true, connect.CodeInvalidArgument: true,
		connect.CodeFailedPrecondition: true, connect.CodeUnauthenticated: true,
	} {
		err := connect.NewError(code, errors.New("x"))
		if got := decided(err); got != want {
			t.Errorf("%v: %v", code, got)
		}
		if got := final(err); got != (want && code != connect.CodeNotFound) {
			t.Errorf("%v ends an enrolment: %v", code, got)
		}
	}
	if decided(errors.New("x")) {
		t.Error("an error that no controller made is its decision")
	}
}

// TestExplain: what goes wrong below the protocol is told as what can be done.
func TestExplain(t *testing.T) {
	unavailable := func(err error) error { return connect.NewError(connect.CodeUnavailable, fmt.Errorf("below: %w", err)) }
	for _, c := range []struct {
		err  error
		want string
	}{
		{unavailable(identity.ErrPin), identity.ErrPin.Error()},
		{unavailable(identity.ErrNotYet), "set the clock"},
		{unavailable(identity.ErrExpired), "set the clock"},
		{unavailable(&net.OpError{Op: "dial", Err: &net.DNSError{Name: "example.invalid", Err: "no such host"}}), "the name example.invalid cannot be resolved: no such host"},
		{unavailable(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), "cannot connect: connection refused; is the controller running"},
		{unavailable(&net.OpError{Op: "read", Err: syscall.ECONNRESET}), "below: read: connection reset"},
		{connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded), "no answer within 15 s"},
		{connect.NewError(connect.CodeNotFound, errors.New("its own words")), "its own words"},
		{errors.New("plain"), "plain"},
	} {
		wantError(t, explain(c.err), c.want)
	}
	if got := explain(unavailable(identity.ErrPin)); got != identity.ErrPin { //nolint:errorlint // it stands alone
		t.Errorf("a wrong pin is told as %v", got)
	}
	// The code's name is for programs.
	if got := explain(connect.NewError(connect.CodeNotFound, errors.New("words"))).Error(); got != "words" {
		t.Errorf("a controller's own words become %q", got)
	}
	if callTimeout != 15*time.Second {
		t.Error("the text says 15 s")
	}
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	dead := deadURL(t)
	with := func(urls ...string) *Admin {
		cred := *d.cred
		cred.Controllers = urls
		a, err := NewAdmin(&cred)
		must(t, err)
		return a
	}
	remove := func(ctx context.Context, a controlv1connect.AdminServiceClient) error {
		_, err := a.RemoveSegment(ctx, &controlv1.RemoveSegmentRequest{Name: "nowhere"})
		return err
	}
	list := func(ctx context.Context, a controlv1connect.AdminServiceClient) error {
		_, err := a.ListNodes(ctx, &controlv1.ListNodesRequest{})
		return err
	}
	must(t, with(dead, d.url).Do(t.Context(), list))
	if v := d.admin.Verifier(); v.Network.String() == "" || string(v.CA.Raw) != string(d.ctl.CA()) {
		t.Errorf("verifier is %+v", v)
	}
	// A decision is final, and told in the controller's words alone.
	err := with(d.url, dead).Do(t.Context(), remove)
	wantError(t, err, "nowhere")
	if strings.Contains(err.Error(), dead) || strings.Contains(err.Error(), connect.CodeNotFound.String()) {
		t.Errorf("error is %v", err)
	}
	wantError(t, with(dead, "https://127.0.0.1:1").Do(t.Context(), list), dead+": cannot connect", "https://127.0.0.1:1: cannot connect")
}

// TestNewAdmin: a credential that cannot work is refused before anybody is called.
func TestNewAdmin(t *testing.T) {
	now := time.Now()
	ca, err := identity.NewCA(identity.NewNetworkID(), now)
	must(t, err)
	other, err := identity.NewCA(identity.NewNetworkID(), now)
	must(t, err)
	keys := newKeys(t)
	cred := func(ca *identity.CA, at time.Time) *credential.Admin {
		c, err := ca.Issue(identity.Certificate{Name: identity.Name{Kind: identity.KindAdmin, ID: 1}, Sign: keys.SignPublic()}, time.Hour, at)
		must(t, err)
		return &credential.Admin{CA: ca.Certificate(), Certificate: c.DER, Key: keys.Sign}
	}
	if _, err := NewAdmin(cred(ca, now)); err != nil {
		t.Errorf("a good one: %v", err)
	}
	_, err = NewAdmin(cred(ca, now.Add(-2*time.Hour)))
	wantError(t, err, "the credential expired at "+now.Add(-time.Hour).UTC().Format("2006-01-02T15:04"), "--new-admin")
	mixed := cred(other, now)
	mixed.CA = ca.Certificate()
	_, err = NewAdmin(mixed)
	wantError(t, err, "the credential's certificate: ", identity.ErrIssuer.Error())
	if _, err := NewAdmin(&credential.Admin{}); err == nil {
		t.Error("an empty one was accepted")
	}
}

// TestForeignController: a node does not speak to a server that its own CA has not certified.
func TestForeignController(t *testing.T) {
	t.Parallel()
	ours, theirs := newDesk(t), newDesk(t)
	a := ours.join("a", theirs.url).run()
	eventually(t, "the stream is refused", func() bool { return strings.Contains(a.status(theirs.url).Error, identity.ErrIssuer.Error()) })
	if _, err := a.c.Renew(t.Context()); err == nil || !strings.Contains(err.Error(), identity.ErrIssuer.Error()) {
		t.Errorf("a call is refused with %v", err)
	}
	if a.c.Connected() || a.holds() != nil {
		t.Error("it was believed")
	}
}
