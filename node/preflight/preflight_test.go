package preflight

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/transport/relay"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// controller answers over TLS as a controller of a fresh network does.
func controller(t *testing.T, handler http.HandlerFunc) (url string, pin [32]byte) {
	t.Helper()
	now := time.Now()
	ca, err := identity.NewCA(identity.NewNetworkID(), now)
	must(t, err)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	leaf, err := ca.Issue(identity.Certificate{
		Name: identity.Name{Kind: identity.KindController, ID: 1}, Sign: key.Public().(ed25519.PublicKey),
	}, time.Hour, now)
	must(t, err)
	cert := identity.TLSCertificate(leaf.DER, key, ca.Certificate())
	s := httptest.NewUnstartedServer(handler)
	s.TLS = identity.ServerTLS(func() *tls.Certificate { return cert })
	s.TLS.Certificates, s.EnableHTTP2 = []tls.Certificate{*cert}, true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL, ca.Pin()
}

// relayOn runs a relay on two adjacent ports and returns the first.
func relayOn(t *testing.T) uint16 {
	t.Helper()
	for range 50 {
		a, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		must(t, err)
		port := a.LocalAddr().(*net.UDPAddr).Port
		b, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port + 1})
		if err != nil {
			_ = a.Close()
			continue
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		s := relay.New(relay.Config{Authenticate: func(string, time.Time) (uint16, string, error) {
			return 0, "", errors.New("nobody")
		}}, a, b)
		go func() { done <- s.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-done })
		return uint16(port)
	}
	t.Fatal("no two ports are free")
	return 0
}

func flightOf(t *testing.T, cfg Config) map[string]Result {
	t.Helper()
	list, err := Run(t.Context(), cfg)
	must(t, err)
	m := make(map[string]Result)
	for _, r := range list {
		m[r.Check] = r
		if r.Verdict == Failed && r.Check != "machine" && (r.Advice == "" || r.Found == "") {
			t.Errorf("%+v does not say what was found or what to do", r)
		}
	}
	if len(m) != 8 || len(list) != 8 {
		t.Fatalf("checks: %+v", list)
	}
	return m
}

func check(t *testing.T, m map[string]Result, name string, want Verdict, words string) {
	t.Helper()
	if r := m[name]; r.Verdict != want || !strings.Contains(r.Found, words) {
		t.Errorf("%s: %+v; want %s, %q", name, r, want, words)
	}
}

func TestAllIsWell(t *testing.T) {
	url, pin := controller(t, http.NotFound)
	m := flightOf(t, Config{URL: url, Pin: &pin, UDP: relayOn(t)})
	for name, words := range map[string]string{
		"dns": "127.0.0.1", "tcp": "answers in", "tls": "the network that the token is for", "clock": "the controller's",
		"udp": "sees us as 127.0.0.1", "nat": "no NAT", "mtu": "1452 bytes arrives in one piece",
	} {
		check(t, m, name, OK, words)
	}
	m = flightOf(t, Config{URL: url, UDP: relayOn(t)})
	check(t, m, "tls", OK, "a controller answers")
}

func TestWhatIsWrong(t *testing.T) {
	url, _ := controller(t, http.NotFound)
	port := relayOn(t)

	other := [32]byte{1}
	m := flightOf(t, Config{URL: url, Pin: &other, UDP: port})
	check(t, m, "tls", Failed, identity.ErrPin.Error())
	check(t, m, "clock", Skipped, "no controller")
	check(t, m, "udp", OK, "answers")

	foreign := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(foreign.Close)
	m = flightOf(t, Config{URL: foreign.URL, UDP: port})
	check(t, m, "tls", Failed, "not a controller's")

	m = flightOf(t, Config{URL: "https://no-such-host.invalid", UDP: port})
	check(t, m, "dns", Failed, "no-such-host.invalid")
	check(t, m, "tcp", Skipped, "no address")
	check(t, m, "mtu", Skipped, "no address")

	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	_ = l.Close()
	m = flightOf(t, Config{URL: "https://" + l.Addr().String(), UDP: port + 1}) // the second port has no neighbour
	check(t, m, "tcp", Failed, "refused")
	check(t, m, "tls", Skipped, "no TCP")
	check(t, m, "nat", Warning, "does not answer")

	silent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer silent.Close()
	m = flightOf(t, Config{URL: url, UDP: uint16(silent.LocalAddr().(*net.UDPAddr).Port)})
	check(t, m, "udp", Failed, "no answer")
	check(t, m, "mtu", Skipped, "no UDP")

	for _, bad := range []string{"", "http://controller.example.com", "controller.example.com", "https://"} {
		if _, err := Run(t.Context(), Config{URL: bad}); err == nil || !strings.Contains(err.Error(), "https://HOST") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestClock(t *testing.T) {
	url, pin := controller(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
	})
	check(t, flightOf(t, Config{URL: url, Pin: &pin, UDP: relayOn(t)}), "clock", Failed, "behind the controller's")
	for ahead, want := range map[time.Duration]Verdict{
		0: OK, 30 * time.Second: OK, -30 * time.Second: OK, 31 * time.Second: Warning, -5 * time.Minute: Warning,
		5*time.Minute + time.Second: Failed, -6 * time.Minute: Failed,
	} {
		if r := judgeClock(ahead); r.Verdict != want || (want == OK) != (r.Advice == "") {
			t.Errorf("%v ahead: %+v, want %s", ahead, r, want)
		}
	}
}
