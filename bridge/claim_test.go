package bridge

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// A NIC that the host needs is refused, with what to do; and left as it was.
func TestWireRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		prepare [][]string
		nic     string
		want    string
	}{
		"one that does not exist": {nil, "lan7", "there is no network device lan7: `ip link` lists"},
		"loopback":                {nil, "lo", "lo is the loopback device"},
		"an IPv4 address":         {[][]string{{"ip", "addr", "add", "192.0.2.1/24", "dev", "lan0"}}, "lan0", "has the address 192.0.2.1/24, so that"},
		"an IPv4 address of a link": {
			[][]string{{"ip", "addr", "add", "169.254.1.1/16", "dev", "lan0"}}, "lan0", "`ip addr del 169.254.1.1/16 dev lan0`",
		},
		"an IPv6 address": {[][]string{{"ip", "addr", "add", "2001:db8::1/64", "dev", "lan0"}}, "lan0", "has the address 2001:db8::1/64"},
		"the default route": {
			[][]string{{"ip", "route", "add", "default", "dev", "lan0"}}, "lan0", "has the route default, by which this machine sends",
		},
		"the default route of IPv6": {
			[][]string{{"ip", "-6", "route", "add", "default", "dev", "lan0"}}, "lan0", "has the route default",
		},
		"a route of another table": {
			[][]string{{"ip", "route", "add", "198.51.100.0/24", "dev", "lan0", "table", "77"}}, "lan0", "has the route 198.51.100.0/24",
		},
		"one of several ways": {
			[][]string{
				{"ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1"},
				{"ip", "link", "set", "up0", "up"},
				{"ip", "route", "add", "198.51.100.0/24", "nexthop", "dev", "up0", "nexthop", "dev", "lan0"},
			}, "lan0", "`ip route del 198.51.100.0/24 dev lan0`",
		},
		"a port of a bridge": {
			[][]string{{"ip", "link", "add", "br7", "type", "bridge"}, {"ip", "link", "set", "lan0", "master", "br7"}},
			"lan0", "lan0 is a part of the bridge br7: take it out with `ip link set lan0 nomaster`",
		},
		"a bridge": {[][]string{{"ip", "link", "add", "br7", "type", "bridge"}}, "br7", "is a bridge: give one end of a veth pair"},
		"one with a device on it": {
			[][]string{{"ip", "link", "add", "mv0", "link", "lan0", "type", "macvlan"}}, "lan0", "carries mv0 (macvlan), which would receive nothing",
		},
		"one without Ethernet": {[][]string{{"ip", "tuntap", "add", "tun7", "mode", "tun"}}, "tun7", "carries no Ethernet frames (it is of type none)"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			for _, args := range c.prepare {
				s.run(t, args...)
			}
			before := s.state(t, "lan0")
			cfg := s.config()
			cfg.NIC = c.nic
			on(t, s.gate, func() error {
				if w, err := NewWire(cfg); err == nil {
					t.Error("it is taken")
					return w.Close()
				} else if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "Link not found") {
					t.Errorf("%v; want %q", err, c.want)
				}
				if _, err := netlink.LinkByName("wire0"); err == nil {
					t.Error("a TAP is left")
				}
				return nil
			})
			if _, err := os.Stat(s.journal); err == nil {
				t.Error("a journal is left")
			}
			if after := s.state(t, "lan0"); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// What every device has is no reason: its IPv6 link-local address, and the routes that come with it. Nor is what others are
// called there, or the other end of a veth pair.
func TestWireTakes(t *testing.T) {
	s := newSite(t)
	s.run(t, "ip", "link", "add", "here", "type", "veth", "peer", "name", "there")
	s.run(t, "ip", "link", "set", "here", "up")
	s.run(t, "ip", "link", "set", "there", "up")
	s.run(t, "ip", "tuntap", "add", "vm0", "mode", "tap") // of a virtual machine
	for _, nic := range []string{"lan0", "here", "vm0"} {
		cfg := s.config()
		cfg.NIC = nic
		on(t, s.gate, func() error {
			w, err := NewWire(cfg)
			if err != nil {
				return err
			}
			return w.Close()
		})
	}
}

// A TAP of our own, or a NIC that is taken already, is not taken.
func TestWireRefusesItsOwn(t *testing.T) {
	s := newSite(t)
	tap := newTAP(t, s.gate, 1)
	w := s.wire(t)
	for nic, want := range map[string]string{
		tap.Name(): "is a TAP of this process", w.Name(): "is a TAP of this process", "lan0": "lan0 is joined to wire0 already",
	} {
		cfg := s.config()
		cfg.NIC, cfg.Journal = nic, filepath.Join(t.TempDir(), "other.json")
		on(t, s.gate, func() error {
			if _, err := NewWire(cfg); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v; want %q", nic, err, want)
			}
			return nil
		})
	}
	if _, err := ownTAPs(t.TempDir()); err == nil {
		t.Error("the TAPs of a process that does not exist")
	}
}

func TestProblems(t *testing.T) {
	s := newSite(t)
	w := s.wire(t)
	problems := func() string {
		var list []string
		on(t, s.gate, func() error {
			list = w.Problems()
			return nil
		})
		return strings.Join(list, "\n")
	}
	if got := problems(); got != "" {
		t.Errorf("of an untouched wire: %s", got)
	}
	s.run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "lan0")
	s.run(t, "tc", "filter", "add", "dev", "lan0", "ingress", "protocol", "ip", "pref", "7", "u32", "match", "ip", "dst", "192.0.2.1", "flowid", "1:1")
	for _, want := range []string{"has the address 192.0.2.1/24", "somebody else has filters on lan0"} {
		if got := problems(); !strings.Contains(got, want) {
			t.Errorf("%s; want %q", got, want)
		}
	}
	if err := s.cable.Remove(); err != nil {
		t.Fatal(err)
	}
	if got := problems(); !strings.Contains(got, "there is no network device lan0") {
		t.Error(got)
	}
	_ = w.Close()
	if got := problems(); got != "" {
		t.Errorf("of a closed wire: %s", got)
	}
}

// put writes a file below a directory that stands for the root.
func put(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDaemons(t *testing.T) {
	const nm, networkd = "run/NetworkManager/devices/7", "run/systemd/netif/links/7"
	for name, c := range map[string]struct{ file, text, want string }{
		"none":                         {"x", "", ""},
		"NetworkManager":               {nm, "[device]\nmanaged=true\nperm-hw-addr=02:00:00:00:00:01\n", "`nmcli device set lan0 managed no`"},
		"NetworkManager leaves it":     {nm, "[device]\nmanaged=false\n", ""},
		"NetworkManager, another":      {"run/NetworkManager/devices/8", "[device]\nmanaged=true\n", ""},
		"networkd":                     {networkd, "# This is private data.\nADMIN_STATE=configured\nOPER_STATE=routable\n", "Unmanaged=yes"},
		"networkd, still at it":        {networkd, "ADMIN_STATE=configuring\n", "Unmanaged=yes"},
		"networkd leaves it":           {networkd, "ADMIN_STATE=unmanaged\n", ""},
		"networkd has not looked":      {networkd, "ADMIN_STATE=pending\n", ""},
		"networkd waits for udev":      {networkd, "ADMIN_STATE=initialized\n", ""},
		"networkd, gone":               {networkd, "ADMIN_STATE=linger\n", ""},
		"networkd, of another device":  {"run/systemd/netif/links/70", "ADMIN_STATE=configured\n", ""},
		"networkd says something else": {networkd, "OPER_STATE=configured\n", ""},
	} {
		root := t.TempDir()
		put(t, root, c.file, c.text)
		got := daemons(root, 7, "lan0")
		if c.want == "" && len(got) != 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)) {
			t.Errorf("%s: %q; want %q", name, got, c.want)
		}
	}
}

// The bridge at whose veth pair a wire ends may have its frames filtered by the host's firewall.
func TestBridgeFilters(t *testing.T) {
	s := newSite(t)
	s.run(t, "ip", "link", "add", "br7", "type", "bridge")
	s.run(t, "ip", "link", "add", "loom-a", "type", "veth", "peer", "name", "loom-b")
	s.run(t, "ip", "link", "add", "free-a", "type", "veth", "peer", "name", "free-b")
	s.run(t, "ip", "link", "set", "loom-b", "master", "br7")
	root, off := t.TempDir(), t.TempDir()
	put(t, root, "proc/sys/net/bridge/bridge-nf-call-iptables", "1\n")
	put(t, root, "proc/sys/net/bridge/bridge-nf-call-ip6tables", "1\n")
	put(t, root, "proc/sys/net/bridge/bridge-nf-call-arptables", "0\n")
	put(t, off, "proc/sys/net/bridge/bridge-nf-call-iptables", "0\n")
	const want = "what passes br7 to the host's firewall, which may drop it: " +
		"`sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0`"
	on(t, s.gate, func() error {
		h, sock, err := sockets()
		if err != nil {
			return err
		}
		defer h.Close()
		defer os.NewFile(uintptr(sock), "").Close()
		for nic, c := range map[string]map[string]string{
			"loom-a": {root: want, off: "", t.TempDir(): ""}, "free-a": {root: ""}, "br7": {root: ""}, "lan0": {root: ""},
		} {
			link, err := h.LinkByName(nic)
			if err != nil {
				return err
			}
			for root, want := range c {
				got := bridgeFilters(h, link, root)
				if want == "" && len(got) != 0 || want != "" && !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, want) }) {
					t.Errorf("%s: %q; want %q", nic, got, want)
				}
			}
		}
		return nil
	})
}
