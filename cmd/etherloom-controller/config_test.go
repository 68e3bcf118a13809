package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/etherloom/etherloom/control/credential"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/internal/settings"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
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

// run runs the program with arguments that make it end at once.
func run(t testing.TB, args ...string) error {
	t.Helper()
	cmd := root()
	cmd.SetArgs(args)
	cmd.SetOut(new(bytes.Buffer))
	cmd.SetErr(new(bytes.Buffer))
	return cmd.ExecuteContext(t.Context())
}

// TestOptions: every setting of the file reaches the controller.
func TestOptions(t *testing.T) {
	const file = `
data_dir: /data
listen: 192.0.2.1:8443
advertise: ["https://a:1"]
zone: z.internal
pool: 10.0.0.0/8
certificate_lifetime: 2h
grace: 3h
link_idle: 4m
new_admin: true
gateways_declare: false
etcd: {endpoints: ["https://e:2379"], ca: ca.pem, certificate: cert.pem, key: key.pem}
`
	path := filepath.Join(t.TempDir(), "c.yaml")
	must(t, os.WriteFile(path, []byte(file), 0o600))
	cfg := defaults()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	settings.Flags(flags, &cfg)
	must(t, settings.Load(flags, path, &cfg))
	o, err := cfg.options(slog.New(slog.DiscardHandler))
	must(t, err)
	if o.DataDir != "/data" || o.Listen != "192.0.2.1:8443" || !slices.Equal(o.Advertise, []string{"https://a:1"}) || o.Zone != "z.internal" ||
		o.Pool != netip.MustParsePrefix("10.0.0.0/8") || o.CertificateLifetime != 2*time.Hour || o.Grace != 3*time.Hour || o.LinkIdle != 4*time.Minute ||
		!o.NewAdmin || !o.NoDeclare || !slices.Equal(o.EtcdEndpoints, []string{"https://e:2379"}) || o.EtcdCA != "ca.pem" || o.EtcdCertificate != "cert.pem" ||
		o.EtcdKey != "key.pem" || o.Log == nil {
		t.Errorf("options are %+v", o)
	}
	// What is not set is left to the store, which may hold another value.
	cfg = defaults()
	o, err = cfg.options(nil)
	if err != nil || o.DataDir != "/var/lib/etherloom-controller" || o.Listen != ":443" || o.Zone != "" || o.Pool.IsValid() || o.CertificateLifetime != 0 ||
		o.Grace != 0 || o.LinkIdle != 0 || o.NewAdmin || o.NoDeclare || !cfg.Relay || cfg.UDP != ":3478" {
		t.Errorf("defaults are %+v, %v", o, err)
	}
}

// TestMistakes: what is wrong with the configuration is told before anything is made.
func TestMistakes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	file := filepath.Join(t.TempDir(), "c.yaml")
	must(t, os.WriteFile(file, []byte("data_dir: /x\nlisen: :1\n"), 0o600))
	for _, c := range []struct{ args, want string }{
		{"--config " + file, `line 2: there is no setting "lisen"`},
		{"--config /does/not/exist", "/does/not/exist"},
		{"--data-dir " + dir + " --pool 10.0.0.0", `pool: "10.0.0.0" is not a prefix`},
		{"--data-dir " + dir + " --pool 10.0.0.1/8", "pool 10.0.0.1/8"},
		{"--data-dir " + dir + " --advertise http://x", "https://HOST:PORT"},
		{"--data-dir " + dir + " --grace soon", "soon"},
		{"--data-dir " + dir + " surplus", "surplus"},
		{"relay", "etherloom relay add"},
	} {
		wantError(t, run(t, strings.Fields(c.args)...), c.want)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the data directory was made")
	}
}

func TestRelayHosts(t *testing.T) {
	cfg := defaults()
	if got := cfg.relayHosts([]string{"https://192.0.2.1:443", "https://[2001:db8::1]:8443", "https://c.example"}); !slices.Equal(got, []string{"192.0.2.1", "2001:db8::1", "c.example"}) {
		t.Errorf("hosts of the URLs are %v", got)
	}
	cfg.RelayHost = []string{"r.example"}
	if got := cfg.relayHosts([]string{"https://192.0.2.1:443"}); !slices.Equal(got, []string{"r.example"}) {
		t.Errorf("hosts that were named are %v", got)
	}
}

func TestSplitUDP(t *testing.T) {
	for s, want := range map[string]struct {
		host string
		port uint16
	}{":3478": {"", 3478}, "192.0.2.1:1": {"192.0.2.1", 1}, "[2001:db8::1]:65534": {"2001:db8::1", 65534}} {
		if host, port, err := splitUDP(s); err != nil || host != want.host || port != want.port {
			t.Errorf("%s: %s, %d, %v", s, host, port, err)
		}
	}
	// The port after it is taken, too, so the last one will not do.
	for _, s := range []string{"", "3478", ":", ":0", ":65535", ":65536", ":-1", ":stun", "::1:3478"} {
		_, _, err := splitUDP(s)
		wantError(t, err, "udp: ", "1 to 65534")
	}
}

// TestRelayRefuses: what is wrong with a relay's credential or its ports is told in one line.
func TestRelayRefuses(t *testing.T) {
	taken, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer taken.Close()
	port := uint16(taken.LocalAddr().(*net.UDPAddr).Port)
	free, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	other := uint16(free.LocalAddr().(*net.UDPAddr).Port)
	must(t, free.Close())
	dir := t.TempDir()
	write := func(name string, data []byte, perm os.FileMode) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, data, perm))
		return path
	}
	cred := func(name string, port, probe uint16) string {
		c := credential.Relay{Network: identity.NewNetworkID(), Name: "r", Port: port, ProbePort: probe}
		data, err := c.Marshal()
		must(t, err)
		return write(name, data, 0o600)
	}
	good := cred("good", other, port)
	data, err := os.ReadFile(good)
	must(t, err)
	inUse := "is in use by another process"
	for _, c := range []struct {
		name, file, host string
		want             []string
	}{
		{"missing", filepath.Join(dir, "missing"), "", []string{"missing"}},
		{"public", write("public", data, 0o644), "", []string{"public", "can be read by others"}},
		{"damaged", write("damaged", []byte("{"), 0o600), "", []string{"damaged: ", "copy it again"}},
		{"a name for a host", good, "localhost", []string{`host: "localhost" is not an IP address`}},
		{"port taken", cred("taken", port, other), "127.0.0.1", []string{inUse, "ss -lunp"}},
		{"probe port taken", good, "127.0.0.1", []string{inUse, "ss -lunp"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			wantError(t, runRelay(ctx, c.file, c.host, slog.New(slog.DiscardHandler)), c.want...)
		})
	}
	// The refusals have given back what they took.
	again, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(other)})
	if err != nil {
		t.Fatalf("a port is still taken: %v", err)
	}
	must(t, again.Close())
}

// TestRelayMark: a relay that runs with another credential or address is another one.
func TestRelayMark(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range [][2]string{{"a", ""}, {"b", ""}, {"a", "192.0.2.1"}, {"", "a"}} {
		seen[relayMark([]byte(c[0]), c[1])] = true
	}
	if len(seen) != 4 {
		t.Errorf("marks are %v", seen)
	}
	if !seen[relayMark([]byte("a"), "")] {
		t.Error("a relay's mark changes by itself")
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		set  func(*config)
		want string
	}{
		{func(*config) {}, ""},
		{func(c *config) { c.UDP = "192.0.2.1:3478" }, ""},
		{func(c *config) { c.UDP = "relay.example.com:3478" }, `"relay.example.com" is not an IP address`},
		{func(c *config) { c.UDP = "3478" }, "[ADDRESS]:PORT"},
		{func(c *config) { c.UDP, c.Relay = "3478", false }, ""},
		{func(c *config) { c.Log.Level = "loud" }, `log.level: "loud"`},
		{func(c *config) { c.Log.Format = "xml" }, `log.format: "xml"`},
	} {
		cfg := defaults()
		c.set(&cfg)
		if err := cfg.check(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v; want %q", err, c.want)
		}
	}
}
