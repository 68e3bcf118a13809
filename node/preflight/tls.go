package preflight

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/etherloom/etherloom/identity"
)

// tls asks who answers. Certificates are judged here and not by crypto/tls, so that what is wrong can be named, and so
// that a wrong clock is not taken for a wrong certificate.
func (f *flight) tls(ctx context.Context) Result {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: timeout}, Config: &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, ServerName: f.host, NextProtos: []string{"h2", "http/1.1"}, //nolint:gosec // judge does it
	}}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", f.tcpAddr)
	if err != nil {
		return Result{
			Verdict: Failed, Found: err.Error(),
			Advice: "something that is not a controller answers, or something on the way does not let TLS 1.3 through",
		}
	}
	state := conn.(*tls.Conn).ConnectionState() //nolint:forcetypeassert // what tls.Dialer returns
	_ = conn.Close()
	if err := f.judge(state.PeerCertificates); err != nil {
		subject := "no certificate"
		if len(state.PeerCertificates) > 0 {
			subject = "a certificate for " + state.PeerCertificates[0].Subject.String() + " by " + state.PeerCertificates[0].Issuer.String()
		}
		return Result{
			Verdict: Failed, Found: fmt.Sprintf("%s: %v", subject, err),
			Advice: "something on the way opens TLS (exempt the controller from it), or this is another server",
		}
	}
	if state.NegotiatedProtocol != "h2" {
		return Result{Verdict: Failed, Found: "HTTP/2 was not agreed on", Advice: "a proxy on the way must pass TLS through as it is"}
	}
	f.chain = state.PeerCertificates
	found := "a controller answers"
	if f.cfg.Pin != nil {
		found += ", of the network that the token is for"
	}
	return Result{Verdict: OK, Found: found}
}

var errStranger = errors.New("not a controller's")

// judge holds a chain against the token's pin, or, without one, against the form that a controller's has.
func (f *flight) judge(chain []*x509.Certificate) error {
	if len(chain) < 2 {
		return errStranger
	}
	if f.cfg.Pin != nil {
		if !slices.ContainsFunc(chain[1:], func(c *x509.Certificate) bool { return identity.CheckPin(c.Raw, *f.cfg.Pin) == nil }) {
			return identity.ErrPin
		}
	}
	v, err := identity.NewVerifier(chain[1].Raw)
	if err != nil {
		return fmt.Errorf("%w: %w", errStranger, err)
	}
	// At a time when it is valid: how our clock stands is another question.
	if _, err := v.Verify([][]byte{chain[0].Raw}, identity.KindController, chain[0].NotBefore.Add(time.Second)); err != nil {
		return fmt.Errorf("%w: %w", errStranger, err)
	}
	return nil
}

// How far clocks may be apart: a node's certificate is backdated by a little, and grants end by the clock.
const (
	skewNoted = 30 * time.Second
	skewMost  = 5 * time.Minute
)

// clock compares our time with the Date that the controller's answer has (RFC 9110 section 6.6.1), in whole seconds.
func (f *flight) clock(ctx context.Context) Result {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, //nolint:gosec // only the certificate that was judged passes
			VerifyConnection: func(s tls.ConnectionState) error { return f.judge(s.PeerCertificates) },
		},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, f.tcpAddr)
		},
		ForceAttemptHTTP2: true,
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.cfg.URL, http.NoBody)
	if err != nil {
		return Result{Verdict: Failed, Found: err.Error()}
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return Result{Verdict: Failed, Found: err.Error(), Advice: "a proxy on the way must pass TLS through as it is"}
	}
	_ = resp.Body.Close()
	theirs, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return Result{Verdict: Warning, Found: "the controller does not tell its time"}
	}
	return judgeClock(time.Since(theirs))
}

func judgeClock(ahead time.Duration) Result {
	ahead = ahead.Round(time.Second)
	r := Result{Verdict: OK, Found: fmt.Sprintf("%v from the controller's", ahead.Abs())}
	switch {
	case ahead > 0:
		r.Found = fmt.Sprintf("%v ahead of the controller's", ahead)
	case ahead < 0:
		r.Found = fmt.Sprintf("%v behind the controller's", -ahead)
	}
	const advice = "set both clocks by NTP: certificates and grants end by them"
	switch {
	case ahead.Abs() > skewMost:
		r.Verdict, r.Advice = Failed, advice
	case ahead.Abs() > skewNoted:
		r.Verdict, r.Advice = Warning, advice
	}
	return r
}
