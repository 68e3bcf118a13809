package hostdns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// newBus starts a message bus of the test's own and returns its address.
func newBus(t *testing.T, h host) string {
	t.Helper()
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("dbus-daemon is not installed (Debian: apt-get install dbus-daemon)")
	}
	address := "unix:path=" + h.path("run/bus")
	h.put("bus.conf", `<busconfig><type>session</type><listen>`+address+`</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy>
</busconfig>`, 0o644)
	cmd := exec.Command(daemon, "--config-file="+h.path("bus.conf"), "--nofork", "--nopidfile")
	h.must(cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for range 500 {
		if c, err := net.Dial("unix", h.path("run/bus")); err == nil {
			c.Close()
			return address
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("dbus-daemon does not listen")
	return ""
}

// fake is a systemd-resolved that writes down what is called.
type fake struct {
	mu    sync.Mutex
	calls []string
	fail  map[string]string // method -> name of the error
}

func (f *fake) note(method, format string, args ...any) *dbus.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, method+fmt.Sprintf(format, args...))
	if name := f.fail[method]; name != "" {
		return dbus.NewError(name, []any{"said the test"})
	}
	return nil
}

func (f *fake) refuse(method, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail[method] = name
}

func (f *fake) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.calls
	f.calls = nil
	return out
}

// methods are those of org.freedesktop.resolve1(5) that are used here, with their types.
func (f *fake) methods() map[string]any {
	return map[string]any{
		"SetLinkDNS": func(link int32, s []linkServer) *dbus.Error {
			return f.note("SetLinkDNS", " %d %v", link, s)
		},
		"SetLinkDNSEx": func(link int32, s []linkServerPort) *dbus.Error {
			return f.note("SetLinkDNSEx", " %d %v", link, s)
		},
		"SetLinkDomains": func(link int32, d []linkDomain) *dbus.Error {
			return f.note("SetLinkDomains", " %d %v", link, d)
		},
		"SetLinkDefaultRoute": func(link int32, on bool) *dbus.Error {
			return f.note("SetLinkDefaultRoute", " %d %v", link, on)
		},
		"SetLinkDNSSEC": func(link int32, mode string) *dbus.Error {
			return f.note("SetLinkDNSSEC", " %d %s", link, mode)
		},
		"SetLinkDNSOverTLS": func(link int32, mode string) *dbus.Error {
			return f.note("SetLinkDNSOverTLS", " %d %s", link, mode)
		},
		"RevertLink": func(link int32) *dbus.Error { return f.note("RevertLink", " %d", link) },
	}
}

// newFake puts a systemd-resolved without some methods on a bus.
func newFake(t *testing.T, address string, without ...string) *fake {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	f := &fake{fail: map[string]string{}}
	methods := f.methods()
	for _, m := range without {
		delete(methods, m)
	}
	if err := conn.ExportMethodTable(methods, resolvedPath, resolvedName+".Manager"); err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.RequestName(resolvedName, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply, err)
	}
	return f
}

var afterSet = []string{
	"SetLinkDefaultRoute 7 false",
	"SetLinkDNSSEC 7 no",
	"SetLinkDNSOverTLS 7 no",
	"SetLinkDomains 7 [{etherloom.internal true} {77.10.in-addr.arpa true}]",
	fmt.Sprintf("SetLinkDNS 7 [{%d [10 77 0 1]}]", unix.AF_INET),
}

func busHost(t *testing.T) (host, Config) {
	h := newHost(t, "file")
	cfg := h.config()
	cfg.BusAddress = newBus(t, h)
	return h, cfg
}

func (f *fake) check(t *testing.T, want ...string) {
	t.Helper()
	if got := f.take(); !slices.Equal(got, want) {
		t.Errorf("calls\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestResolved(t *testing.T) {
	h, cfg := busHost(t)
	f := newFake(t, cfg.BusAddress)
	r := New(cfg)
	h.must(r.Set(t.Context(), testTarget()))
	f.check(t, afterSet...)
	if s := r.State(); s.Mode != ModeResolved || s.Server != testTarget().Server || s.Changed {
		t.Errorf("%+v", s)
	}

	// Another address on the same link replaces what is set; another link first gives back the old one.
	moved := testTarget()
	moved.Server = netip.MustParseAddrPort("[fd00:77::1]:53")
	moved.Search = "etherloom.internal"
	h.must(r.Set(t.Context(), moved))
	addr := moved.Server.Addr().As16()
	f.check(t, append(slices.Clone(afterSet[:3]),
		"SetLinkDomains 7 [{etherloom.internal false} {77.10.in-addr.arpa true}]",
		fmt.Sprintf("SetLinkDNS 7 [{%d %v}]", unix.AF_INET6, addr))...)
	moved.Link = 8
	moved.Server = netip.MustParseAddrPort("10.77.0.1:5353")
	moved.Search = "other.example"
	h.must(r.Set(t.Context(), moved))
	f.check(t, "RevertLink 7", "SetLinkDefaultRoute 8 false", "SetLinkDNSSEC 8 no", "SetLinkDNSOverTLS 8 no",
		"SetLinkDomains 8 [{etherloom.internal true} {77.10.in-addr.arpa true} {other.example false}]",
		fmt.Sprintf("SetLinkDNSEx 8 [{%d [10 77 0 1] 5353 }]", unix.AF_INET))

	if got, err := r.Restore(t.Context()); got != Restored || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	f.check(t, "RevertLink 8")
	if got, err := r.Restore(t.Context()); got != Nothing || err != nil {
		t.Errorf("second Restore: %q, %v", got, err)
	}
	f.check(t)
	h.checkOriginal() // the file was never touched
}

// Programs that read resolv.conf must come to resolved, or they do not see the network's names.
func TestResolvedBypass(t *testing.T) {
	h, cfg := busHost(t)
	newFake(t, cfg.BusAddress)
	r := New(cfg)
	h.must(r.Set(t.Context(), testTarget()))
	if r.State().Note == "" {
		t.Error("nothing to note of a resolv.conf that leads past systemd-resolved")
	}
	h.put("etc/resolv.conf", "nameserver 127.0.0.53\n", 0o644)
	h.must(r.Set(t.Context(), testTarget()))
	if got := r.State().Note; got != "" {
		t.Errorf("note %q", got)
	}
}

// Versions before 240 have neither the default route nor DNS over TLS as a setting of the link.
func TestResolvedOld(t *testing.T) {
	h, cfg := busHost(t)
	f := newFake(t, cfg.BusAddress, "SetLinkDefaultRoute", "SetLinkDNSOverTLS")
	h.must(New(cfg).Set(t.Context(), testTarget()))
	f.check(t, afterSet[1], afterSet[3], afterSet[4])
}

// If resolved refuses, its link is reverted, and resolv.conf, which is its own, is not touched instead.
func TestResolvedRefuses(t *testing.T) {
	for _, method := range []string{"SetLinkDefaultRoute", "SetLinkDomains", "SetLinkDNS"} {
		t.Run(method, func(t *testing.T) {
			h, cfg := busHost(t)
			f := newFake(t, cfg.BusAddress)
			f.refuse(method, "org.freedesktop.resolve1.LinkBusy")
			r := New(cfg)
			err := r.Set(t.Context(), testTarget())
			if err == nil || !strings.Contains(err.Error(), method) || r.State().Mode != ModeNone {
				t.Errorf("%v, %+v", err, r.State())
			}
			if calls := f.take(); calls[len(calls)-1] != "RevertLink 7" {
				t.Errorf("calls %q", calls)
			}
			h.checkOriginal()
		})
	}
}

// What dies with the link or with resolved need not be taken back.
func TestResolvedGone(t *testing.T) {
	h, cfg := busHost(t)
	f := newFake(t, cfg.BusAddress)
	r := New(cfg)
	h.must(r.Set(t.Context(), testTarget()))
	f.refuse("RevertLink", "org.freedesktop.resolve1.NoSuchLink")
	if got, err := r.Restore(t.Context()); got != Restored || err != nil {
		t.Errorf("no such link: %q, %v", got, err)
	}
	h.must(r.Set(t.Context(), testTarget()))
	f.refuse("RevertLink", "org.freedesktop.DBus.Error.AccessDenied")
	if _, err := r.Restore(t.Context()); err == nil {
		t.Error("access denied: no error")
	}
}

// Without a bus, and on one where nobody is systemd-resolved, the file is used.
func TestNoResolved(t *testing.T) {
	h, cfg := busHost(t)
	r := New(cfg)
	h.must(r.Set(t.Context(), testTarget()))
	if r.State().Mode != ModeFile {
		t.Errorf("%+v", r.State())
	}
	// systemd-resolved was installed meanwhile: the file is given back.
	f := newFake(t, cfg.BusAddress)
	h.must(r.Set(t.Context(), testTarget()))
	if r.State().Mode != ModeResolved || len(f.take()) != len(afterSet) {
		t.Errorf("%+v", r.State())
	}
	h.checkOriginal()
}

// A bus that is there but says nothing is an error, and no reason to write the file.
func TestSilentBus(t *testing.T) {
	h := newHost(t, "file")
	l, err := net.Listen("unix", h.path("run/bus"))
	h.must(err)
	defer l.Close()
	cfg := h.config()
	cfg.BusAddress = "unix:path=" + h.path("run/bus")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := New(cfg).Set(ctx, testTarget()); err == nil {
		t.Error("no error")
	}
	h.checkOriginal()
}

func TestUpstreams(t *testing.T) {
	list := func(addrs ...string) []netip.AddrPort {
		var out []netip.AddrPort
		for _, a := range addrs {
			out = append(out, netip.AddrPortFrom(netip.MustParseAddr(a), 53))
		}
		return out
	}
	h, cfg := busHost(t)
	r := New(cfg)
	check := func(what string, want ...string) {
		t.Helper()
		if got := r.Upstreams(); !reflect.DeepEqual(got, list(want...)) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	check("before Set", "192.0.2.53", "2001:db8::53")
	h.must(r.Set(t.Context(), testTarget()))
	check("with our file", "192.0.2.53", "2001:db8::53")
	h.put("etc/resolv.conf", "nameserver 198.51.100.1\nnameserver 10.77.0.1\nnameserver fe80::1%eth0\n", 0o644)
	check("with somebody else's file", "198.51.100.1", "fe80::1%eth0")
	h.must(os.Remove(h.path("etc/resolv.conf")))
	check("without a file")

	newFake(t, cfg.BusAddress)
	h.must(r.Set(t.Context(), testTarget()))
	h.put("etc/resolv.conf", "nameserver 127.0.0.53\n", 0o644)
	check("resolved without upstreams", "127.0.0.53")
	h.put("run/uplink.conf", "nameserver 192.0.2.1\nnameserver 10.77.0.1\n", 0o644)
	check("resolved", "192.0.2.1")
}
