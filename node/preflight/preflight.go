// Package preflight looks for what would stop a machine from joining, before it joins: from the machine itself to the
// controller and the relay beside it, in the order in which each needs the one before.
//
//	machine   root and /dev/net/tun
//	dns       the controller's name has addresses
//	tcp       one of them takes a connection
//	tls       the controller itself answers: nothing on the way opens TLS
//	clock     the controller's time and ours are near enough for certificates
//	udp       the relay's STUN answers
//	nat       two ports of the relay see the same mapping; otherwise direct paths are unlikely
//	mtu       a datagram of full size passes unfragmented
//
// It sends a handful of packets, and changes nothing on either side.
package preflight

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/etherloom/etherloom/bridge"
)

// Verdict is what a check found.
type Verdict string

// The verdicts. Only Failed would stop a join; Warning tells what will work less well than it could.
const (
	OK      Verdict = "ok"
	Warning Verdict = "warning"
	Failed  Verdict = "failed"
	Skipped Verdict = "skipped" // because of what failed before
)

// Result is one check.
type Result struct {
	Check   string  `json:"check"`
	Verdict Verdict `json:"verdict"`
	Found   string  `json:"found"`
	Advice  string  `json:"advice,omitempty"` // what to do, unless all is well
}

// Config says what to look at.
type Config struct {
	URL string    // the controller's, https://HOST[:PORT]
	Pin *[32]byte // of the CA, as a token has it; nil if there is no token
	UDP uint16    // the relay's port for STUN and TURN; the next one is its second for STUN
}

// timeout bounds each check.
const timeout = 5 * time.Second

// Run makes every check. The error is for a URL that is none; what checks find is in the results.
func Run(ctx context.Context, cfg Config) ([]Result, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("%q is not the address of a controller: want https://HOST or https://HOST:PORT", cfg.URL)
	}
	f := &flight{cfg: cfg, host: u.Hostname(), port: u.Port()}
	if f.port == "" {
		f.port = "443"
	}
	f.say("machine", machine)
	if f.say("dns", func() Result { return f.dns(ctx) }) {
		f.say("tcp", func() Result { return f.tcp(ctx) })
	} else {
		f.skip("the name has no address", "tcp")
	}
	if f.tcpAddr != "" {
		f.say("tls", func() Result { return f.tls(ctx) })
	} else {
		f.skip("no TCP connection", "tls")
	}
	if f.chain != nil {
		f.say("clock", func() Result { return f.clock(ctx) })
	} else {
		f.skip("no controller answers", "clock")
	}
	f.datagrams(ctx)
	return f.results, nil
}

// flight is a Run under way.
type flight struct {
	cfg        Config
	host, port string
	addrs      []netip.Addr
	tcpAddr    string              // that answered
	chain      []*x509.Certificate // of the controller that answered
	results    []Result
}

// say makes a check and notes what it found; it reports whether the next one has what it needs.
func (f *flight) say(name string, check func() Result) bool {
	r := check()
	r.Check = name
	f.results = append(f.results, r)
	return r.Verdict != Failed
}

func (f *flight) skip(why string, names ...string) {
	for _, name := range names {
		f.results = append(f.results, Result{Check: name, Verdict: Skipped, Found: why})
	}
}

func machine() Result {
	if err := bridge.CanMakeTAPs(); err != nil {
		return Result{Verdict: Failed, Found: err.Error()}
	}
	return Result{Verdict: OK, Found: "may make network devices"}
}

func (f *flight) dns(ctx context.Context) Result {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", f.host)
	if err != nil {
		return Result{
			Verdict: Failed, Found: err.Error(),
			Advice: "check the name, and what /etc/resolv.conf says; or let the controller advertise an address",
		}
	}
	for _, a := range addrs {
		f.addrs = append(f.addrs, a.Unmap())
	}
	return Result{Verdict: OK, Found: fmt.Sprintf("%s is %v", f.host, f.addrs)}
}

func (f *flight) tcp(ctx context.Context) Result {
	var last error
	for _, a := range f.addrs {
		began := time.Now()
		d := net.Dialer{Timeout: timeout}
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(a.String(), f.port))
		if err != nil {
			last = err
			continue
		}
		took := time.Since(began)
		_ = conn.Close()
		f.tcpAddr = net.JoinHostPort(a.String(), f.port)
		return Result{Verdict: OK, Found: fmt.Sprintf("%s answers in %v", f.tcpAddr, took.Round(10*time.Microsecond))}
	}
	return Result{
		Verdict: Failed, Found: last.Error(),
		Advice: "a firewall on the way must let TCP " + f.port + " out, and the controller must run",
	}
}
