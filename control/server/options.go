package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/identity"
)

// Options say how a controller runs. Zero values mean the defaults that are named. Every duration may be as short as
// one second.
type Options struct {
	DataDir   string
	Listen    string   // default ":443"
	Advertise []string // https://HOST:PORT under which nodes reach this controller; default: this host's own address
	Network   string   // name of the network, default "default"

	// The network's settings. Zero keeps what is set, and at the first run means the defaults; another value is set
	// for all controllers of the network.
	Zone                string        // default "etherloom.internal"
	CertificateLifetime time.Duration // default 24 h
	Grace               time.Duration // default 72 h
	LinkIdle            time.Duration // default 5 min
	Pool                netip.Prefix  // IPv4 prefixes of segments are chosen from it; default 10.64.0.0/10

	NoDeclare bool // gateways cannot attach VLANs by themselves, only administrators can

	PostureMaxAge time.Duration // how long a node that is not heard still counts as it was; default 5 min
	PostureGrace  time.Duration // after a start, for nodes to come back before they count as not heard; default 30 s

	AdminLifetime time.Duration // of administrators' certificates, default 90 days
	NewAdmin      bool          // write a new admin.json, for when the last administrator is lost

	// An external etcd cluster in place of the embedded one.
	EtcdEndpoints   []string // https://HOST:PORT, or unix:///PATH
	EtcdCA          string   // file, PEM
	EtcdCertificate string   // file, PEM
	EtcdKey         string   // file, PEM
	StoreQuota      int64    // bytes of the embedded one, default 2 GiB

	Alive    time.Duration // between two signs of life on a node's stream, default 5 s
	Confirm  time.Duration // between two confirmations that the store is reachable, default 500 ms
	Patience time.Duration // with a handshake, a request's headers and body, a stream's first message; default 10 s

	Limits Limits
	Log    *slog.Logger
	Now    func() time.Time // default time.Now
}

// Limits bound what callers may cost.
type Limits struct {
	Connections          int     // at once, default 20000
	ConnectionsPerSource int     // at once from one IPv4 address or IPv6 /64, default 2000
	Calls                float64 // per second and source without a valid certificate, default 10
	CallBurst            int     // default 50
	Changes              float64 // per second that one node may cause in the store, default 0.1
	ChangeBurst          int     // default 20
	Signals              float64 // per second and node, default 50
	SignalBurst          int     // default 200
	Body                 int64   // bytes of a request, default 64 KiB
}

const (
	defaultLifetime = 24 * time.Hour
	defaultGrace    = 72 * time.Hour
	defaultIdle     = 5 * time.Minute
	shortest        = time.Second
)

// orElse sets what is zero.
func orElse[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

// complete checks the options and fills in the defaults of those that are not kept in the store.
func (o Options) complete() (Options, error) {
	if o.DataDir == "" {
		return o, fmt.Errorf("no data directory: name one with --data-dir")
	}
	if err := o.check(); err != nil {
		return o, err
	}
	orElse(&o.Listen, ":443")
	orElse(&o.Network, "default")
	orElse(&o.AdminLifetime, 90*24*time.Hour)
	orElse(&o.PostureMaxAge, 5*time.Minute)
	orElse(&o.PostureGrace, 30*time.Second)
	orElse(&o.Alive, 5*time.Second)
	orElse(&o.Patience, 10*time.Second)
	orElse(&o.Confirm, 500*time.Millisecond)
	o.Limits = o.Limits.complete()
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

func (o Options) check() error {
	for name, d := range map[string]time.Duration{
		"certificate lifetime": o.CertificateLifetime, "grace": o.Grace, "link idle time": o.LinkIdle,
		"administrator lifetime": o.AdminLifetime, "alive interval": o.Alive, "patience": o.Patience,
		"maximum age of posture": o.PostureMaxAge, "grace of posture": o.PostureGrace,
	} {
		if d != 0 && d < shortest {
			return fmt.Errorf("%s is %v: the shortest is %v", name, d, shortest)
		}
	}
	for _, u := range o.Advertise {
		if err := identity.CheckControllerURL(u); err != nil {
			return err
		}
	}
	if o.Network != "" {
		if err := identity.CheckHostName(o.Network); err != nil {
			return fmt.Errorf("network: %w", err)
		}
	}
	if o.Pool.IsValid() && (!o.Pool.Addr().Is4() || o.Pool != o.Pool.Masked() || o.Pool.Bits() > 24) {
		return fmt.Errorf("pool %s is not an IPv4 prefix of at most /24", o.Pool)
	}
	return checkZone(o.Zone)
}

// checkZone accepts a DNS name of at least one label, lower case, without a dot at the end.
func checkZone(zone string) error {
	if zone == "" {
		return nil
	}
	for label := range strings.SplitSeq(zone, ".") {
		if identity.CheckHostName(label) != nil || len(zone) > 200 {
			return fmt.Errorf("zone %q is not a DNS name such as etherloom.internal", zone)
		}
	}
	return nil
}

func (l Limits) complete() Limits {
	orElse(&l.Connections, 20000)
	orElse(&l.ConnectionsPerSource, 2000)
	orElse(&l.Calls, 10)
	orElse(&l.CallBurst, 50)
	orElse(&l.Changes, 0.1)
	orElse(&l.ChangeBurst, 20)
	orElse(&l.Signals, 50)
	orElse(&l.SignalBurst, 200)
	orElse(&l.Body, 64<<10)
	return l
}

// settings applies the options to the network's settings, which may be nil, and reports whether they differ.
func (o Options) settings(old *model.Settings) (*model.Settings, bool) {
	s := model.Settings{
		Name: o.Network, Zone: "etherloom.internal", CertificateLifetime: model.Duration(defaultLifetime),
		Grace: model.Duration(defaultGrace), LinkIdle: model.Duration(defaultIdle), Pool: model.DefaultPool(), Epoch: 1,
	}
	if old != nil {
		s = *old
	}
	before := s
	override(&s.Zone, o.Zone)
	override(&s.CertificateLifetime, model.Duration(o.CertificateLifetime))
	override(&s.Grace, model.Duration(o.Grace))
	override(&s.LinkIdle, model.Duration(o.LinkIdle))
	override(&s.Pool, o.Pool)
	return &s, old == nil || s != before
}

// override sets what the options name.
func override[T comparable](p *T, value T) {
	var zero T
	if value != zero {
		*p = value
	}
}

// guessURL names the host by the address from which it would reach the world. No packet is sent.
func guessURL(listening net.Addr) (string, error) {
	host := ""
	_, port, err := net.SplitHostPort(listening.String())
	if err != nil {
		port = "443"
	}
	if ap, err := netip.ParseAddrPort(listening.String()); err == nil && !ap.Addr().IsUnspecified() {
		host = ap.Addr().String()
	} else if conn, err := net.Dial("udp", "192.0.2.1:9"); err == nil { // RFC 5737 section 3: nobody's address
		if local, ok := conn.LocalAddr().(*net.UDPAddr); ok {
			host = local.IP.String()
		}
		_ = conn.Close() // nothing was sent
	}
	if host == "" {
		return "", errors.New("this host has no default route, so it cannot be guessed by which address nodes reach it: " +
			"say --advertise https://HOST:PORT")
	}
	u := url.URL{Scheme: "https", Host: net.JoinHostPort(host, port)}
	return u.String(), nil
}
