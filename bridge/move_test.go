package bridge

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/etherloom/etherloom/ether"
)

// furnish gives lan0 all that a host can have there, and the other end what that leads to.
func (s *site) furnish(t *testing.T) {
	t.Helper()
	for _, line := range []string{
		"sysctl -qw net.ipv4.conf.lan0.rp_filter=1 net.ipv6.conf.lan0.accept_ra=2 net.ipv4.conf.lan0.arp_filter=1",
		"ip link set lan0 up",
		"ip addr add 192.0.2.2/24 brd + dev lan0",
		"ip addr add 192.0.2.3/24 dev lan0 label lan0:web",
		"ip addr add 198.51.100.2/25 dev lan0 scope site metric 50",
		"ip addr add 203.0.113.2 peer 203.0.113.1/32 dev lan0",
		"ip addr add 198.51.100.130/25 dev lan0 noprefixroute",
		"ip -6 addr add 2001:db8::2/64 dev lan0 nodad",
		"ip -6 addr add 2001:db8::3/64 dev lan0 noprefixroute nodad",
		"ip -6 addr add fd00::2/64 dev lan0",
		"ip route add default via 192.0.2.1 dev lan0 proto static",
		"ip route add default via 192.0.2.9 dev lan0 metric 300 mtu 1400",
		"ip route add 203.0.113.128/25 via 192.0.2.1 dev lan0 src 192.0.2.3 onlink",
		"ip route add 198.51.100.128/25 dev lan0 scope link table 7",
		"ip route add 10.9.0.0/16 proto dhcp nexthop via 192.0.2.1 dev lan0 nexthop via 192.0.2.9 dev lan0 weight 3",
		"ip -6 route add default via 2001:db8::1 dev lan0 metric 100",
		"ip -6 route add default via fe80::9 dev lan0 metric 2048",
		"ip -6 route add 2001:db8:7::/48 nexthop via 2001:db8::1 dev lan0 nexthop via 2001:db8::9 dev lan0",
		"ip neigh add 192.0.2.77 lladdr 02:00:5e:00:53:77 dev lan0",
	} {
		s.run(t, strings.Fields(line)...)
	}
	s.far(t, "ip link set x up", "ip addr add 192.0.2.1/24 dev x", "ip -6 addr add 2001:db8::1/64 dev x nodad")
	s.settled(t)
}

func (s *site) far(t *testing.T, lines ...string) {
	t.Helper()
	for _, line := range lines {
		args := strings.Fields(line)
		if out, err := s.other.Run(t.Context(), args[0], args[1:]...); err != nil {
			t.Fatal(line, err, out)
		}
	}
}

// settled waits until no address of the gateway's is still being asked for.
func (s *site) settled(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); strings.Contains(s.say(t, "ip addr"), "tentative"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("addresses stay tentative")
		}
	}
}

func (s *site) say(t *testing.T, line string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	args := strings.Fields(line)
	out, err := s.gate.Run(ctx, args[0], args[1:]...)
	if err != nil {
		t.Fatal(line, err, out)
	}
	return out
}

// hosts is all that the host has, in the words of iproute2.
func (s *site) hosts(t *testing.T) string {
	t.Helper()
	var out []string
	for _, line := range []string{"ip -d addr", "ip -d route show table all", "ip -6 -d route show table all", "ip neigh show nud permanent"} {
		out = append(out, s.say(t, line))
	}
	return strings.Join(out, "\n")
}

// unchanged compares it, line by line, with what it was. The kernel adds the local routes of IPv6 addresses a while after these.
func (s *site) unchanged(t *testing.T, before string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); s.hosts(t) != before && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	now, was := strings.Split(s.hosts(t), "\n"), strings.Split(before, "\n")
	for i := range max(len(now), len(was)) {
		if i >= len(now) || i >= len(was) || now[i] != was[i] {
			t.Errorf("from line %d on it was\n%s\nand is\n%s", i, strings.Join(was[min(i, len(was)):], "\n"), strings.Join(now[min(i, len(now)):], "\n"))
			break
		}
	}
	if _, err := os.Stat(s.journal); err == nil {
		t.Error("a journal is left")
	}
}

func (s *site) moving() WireConfig {
	cfg := s.config()
	cfg.Move = true
	return cfg
}

func (s *site) moved(t *testing.T) *Wire {
	t.Helper()
	var w *Wire
	on(t, s.gate, func() (err error) {
		w, err = NewWire(s.moving())
		return err
	})
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// All that the host has on a NIC is on a bridge, and on the NIC again when the wire is closed: addresses and routes are, byte for byte, what
// they were. Frames of the network come out of the queues meanwhile, and those that are written go there.
func TestMoveHost(t *testing.T) {
	s := newSite(t)
	s.furnish(t)
	before := s.hosts(t)
	w := s.moved(t)
	if bridge, gap := w.Moved(); bridge != "br-lan0" || gap <= 0 || gap > time.Second {
		t.Errorf("moved to %q in %v", bridge, gap)
	} else {
		t.Logf("the host had no way out for %v", gap)
	}
	there := s.say(t, "ip -d addr show br-lan0")
	for _, want := range []string{
		"192.0.2.2/24 brd 192.0.2.255 scope global br-lan0", "192.0.2.3/24 scope global secondary lan0:web", "198.51.100.2/25 metric 50 scope site br-lan0",
		"203.0.113.2 peer 203.0.113.1/32", "noprefixroute", "2001:db8::3/64", "fd00::2/64 scope global \n", "link/ether " + s.mac(t, "lan0"),
	} {
		if !strings.Contains(there, want) {
			t.Errorf("the bridge has not %q:\n%s", want, there)
		}
	}
	if strings.Contains(there, "tentative") {
		t.Errorf("addresses of the bridge are of no use yet:\n%s", there)
	}
	if left := s.say(t, "ip -o addr show lan0"); strings.Contains(left, "global") || strings.Contains(left, "site") {
		t.Errorf("the NIC still has\n%s", left)
	}
	routes := s.say(t, "ip route show table all") + s.say(t, "ip -6 route show table all")
	for _, want := range []string{
		"default via 192.0.2.1 dev br-lan0 proto static", "default via 192.0.2.9 dev br-lan0 metric 300 mtu 1400", "203.0.113.128/25 via 192.0.2.1 dev br-lan0 src 192.0.2.3 onlink",
		"198.51.100.128/25 dev br-lan0 table 7", "nexthop via 192.0.2.9 dev br-lan0 weight 3", "default via 2001:db8::1 dev br-lan0 metric 100", "default via fe80::9 dev br-lan0 metric 2048",
		"nexthop via 2001:db8::9 dev br-lan0",
	} {
		if !strings.Contains(routes, want) {
			t.Errorf("there is no %q:\n%s", want, routes)
		}
	}
	for line := range strings.Lines(routes) {
		if strings.Contains(line, "dev lan0") && !strings.Contains(line, "fe80::") && !strings.Contains(line, "ff00::/8") {
			t.Errorf("left is %s", line)
		}
	}
	if got := s.say(t, "sysctl -n net.ipv4.conf.br-lan0.rp_filter net.ipv6.conf.br-lan0.accept_ra net.ipv4.conf.br-lan0.arp_filter net.ipv6.conf.br-lan0.addr_gen_mode"); got != "1\n2\n1\n0\n" {
		t.Errorf("the bridge is set to %q", got)
	}
	if got := s.say(t, "ip neigh show nud permanent dev br-lan0"); !strings.Contains(got, "192.0.2.77 lladdr 02:00:5e:00:53:77") {
		t.Errorf("the bridge's neighbours are %q", got)
	}
	s.far(t, "ping -c 1 -W 2 192.0.2.2", "ping -c 1 -W 2 192.0.2.3", "ping -c 1 -W 2 2001:db8::2")
	s.run(t, "ping", "-c", "1", "-W", "2", "2001:db8::1")

	in, out, far := read(w), w.Queues()[0].NewWriter(), newFar(t, s.cable.B)
	group, lldp := long(t, "8100 000a abcd 01", 64), long(t, "88cc 02", 60)
	copy(group, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	copy(lldp, []byte{0x01, 0x80, 0xc2, 0, 0, 0x0e})
	for name, frame := range map[string][]byte{"of a VLAN": group, "to a reserved address": lldp} {
		far.send(t, frame, ether.Offload{})
		if err := in.sees(seen{frame, ether.Offload{}}); err != nil {
			t.Errorf("%s, from the NIC: %v", name, err)
		}
		back := append([]byte{}, frame...)
		back[11] = 0x99 // the bridge knows on which side the first one is
		if err := out.Write(back, ether.Offload{}); err != nil {
			t.Error(err)
		}
		if err := far.sees(t, seen{back, ether.Offload{}}); err != nil {
			t.Errorf("%s, to the NIC: %v", name, err)
		}
	}
	if changed, err := w.Follow(); changed || err != nil || !w.Up() {
		t.Errorf("Follow without a change: %v, %v; up %v", changed, err, w.Up())
	}
	on(t, s.gate, func() error {
		if problems := w.Problems(); len(problems) > 0 && !strings.Contains(problems[0], "br_netfilter") {
			t.Errorf("problems: %q", problems)
		}
		return nil
	})
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	s.unchanged(t, before)
	s.far(t, "ping -c 1 -W 2 192.0.2.2", "ping -c 1 -W 2 2001:db8::2")
}

func (s *site) mac(t *testing.T, nic string) string {
	t.Helper()
	return strings.Fields(strings.SplitAfter(s.say(t, "ip -o link show "+nic), "link/ether ")[1])[0]
}

// A connection of the host's goes on while it is moved, and while it is moved back.
func TestMoveKeepsConnections(t *testing.T) {
	s := newSite(t)
	s.furnish(t)
	var l net.Listener
	on(t, s.gate, func() (err error) {
		l, err = net.Listen("tcp", "192.0.2.2:7000")
		return err
	})
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 64)
		for n, err := c.Read(buf); err == nil; n, err = c.Read(buf) {
			_, _ = c.Write(buf[:n])
		}
	}()
	var c net.Conn
	on(t, s.other, func() (err error) {
		c, err = net.Dial("tcp", "192.0.2.2:7000")
		return err
	})
	defer c.Close()
	echo := func(when string) time.Duration {
		t.Helper()
		began := time.Now()
		_ = c.SetDeadline(began.Add(5 * time.Second))
		_, err := fmt.Fprint(c, when)
		if _, err2 := c.Read(make([]byte, 64)); err != nil || err2 != nil {
			t.Fatalf("%s: %v, %v", when, err, err2)
		}
		return time.Since(began)
	}
	stop, most := make(chan struct{}), make(chan time.Duration)
	go func() { // all the time
		var worst time.Duration
		for {
			select {
			case <-stop:
				most <- worst
				return
			default:
				worst = max(worst, echo("meanwhile"))
			}
		}
	}()
	w := s.moved(t)
	time.Sleep(100 * time.Millisecond)
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	close(stop)
	worst := <-most
	t.Logf("the longest answer took %v", worst)
	if worst > 2*time.Second {
		t.Errorf("an answer took %v", worst)
	}
	echo("afterwards")
}

// However far a daemon came that was killed, the next one gives the NIC back as it was: its journal says what that is.
func TestMoveIsRestored(t *testing.T) {
	// What is undone of a whole move stands for where it stopped, for each step is one of these.
	for name, undo := range map[string][]string{
		"before anything":        {"ip link del br-lan0"},
		"with the bridge alone":  {"ip addr flush dev br-lan0", "ip link set lan0 nomaster"},
		"with a part of it":      {"ip addr del 203.0.113.2 peer 203.0.113.1/32 dev br-lan0", "ip -6 addr del fd00::2/64 dev br-lan0"},
		"as a port of nothing":   {"ip link set lan0 nomaster"},
		"all but the last entry": nil,
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.furnish(t)
			before := s.hosts(t)
			w := s.moved(t)
			s.killed(t, w, false)
			for _, line := range undo {
				s.run(t, strings.Fields(line)...)
			}
			if s.hosts(t) == before {
				t.Fatal("nothing is to be restored, so that this proves nothing")
			}
			on(t, s.gate, func() error { return RestoreNIC(s.journal) })
			s.unchanged(t, before)
		})
	}
}

// killed leaves all as a daemon does that is killed: the TAP alone goes.
func (s *site) killed(t *testing.T, w *Wire, done bool) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held.Host.Done = done
	if err := w.held.write(s.journal); err != nil {
		t.Fatal(err)
	}
	w.closed = true
	w.tap.Close()
}

// What others have changed on the bridge is the host's, and goes back with it: also after a crash.
func TestMoveGoesOnWithWhatOthersChange(t *testing.T) {
	for _, killed := range []bool{false, true} {
		s := newSite(t)
		s.furnish(t)
		w := s.moved(t)
		for _, line := range []string{
			"ip addr del 198.51.100.2/25 dev br-lan0", "ip addr add 192.0.2.50/24 dev br-lan0 valid_lft 1000 preferred_lft 900",
			"ip route add 10.77.0.0/16 via 192.0.2.1 dev br-lan0", "ip route del default via 192.0.2.9 dev br-lan0 metric 300",
		} {
			s.run(t, strings.Fields(line)...)
		}
		if killed {
			s.killed(t, w, true)
			on(t, s.gate, func() error { return RestoreNIC(s.journal) })
		} else if err := w.Close(); err != nil {
			t.Error(err)
		}
		has := s.say(t, "ip addr show lan0") + s.say(t, "ip route")
		for text, want := range map[string]bool{
			"198.51.100.2/25": false, "192.0.2.50/24 scope global secondary dynamic lan0": true, "dynamic lan0\n       valid_lft ": true, "10.77.0.0/16 via 192.0.2.1 dev lan0": true, "metric 300": false,
		} {
			if strings.Contains(has, text) != want {
				t.Errorf("killed %v: %q there: %v\n%s", killed, text, !want, has)
			}
		}
	}
}

// What cannot be moved is refused, and nothing is changed.
func TestMoveRefuses(t *testing.T) {
	for want, lines := range map[string][]string{
		"is down, so that":                          {"ip link set lan0 down", "ip addr add 192.0.2.2/24 dev lan0"},
		"is named by the routing rule 99":           {"ip addr add 192.0.2.2/24 dev lan0", "ip rule add pref 99 iif lan0 table 7"},
		"is named by the routing rule 98":           {"ip addr add 192.0.2.2/24 dev lan0", "ip -6 rule add pref 98 oif lan0 table 7"},
		"there is a bridge br-lan0 already":         {"ip addr add 192.0.2.2/24 dev lan0", "ip link add br-lan0 type bridge"},
		"has the route default by a nexthop object": {"ip addr add 192.0.2.2/24 dev lan0", "ip nexthop add id 7 via 192.0.2.1 dev lan0", "ip route add default nhid 7"},
		"carries mv0 (macvlan)":                     {"ip addr add 192.0.2.2/24 dev lan0", "ip link add mv0 link lan0 type macvlan"},
		"is a part of the bridge br7":               {"ip addr add 192.0.2.2/24 dev lan0", "ip link add br7 type bridge", "ip link set lan0 master br7"},
	} {
		t.Run(want, func(t *testing.T) {
			s := newSite(t)
			for _, line := range lines {
				s.run(t, strings.Fields(line)...)
			}
			s.settled(t)
			before := s.hosts(t)
			on(t, s.gate, func() error {
				if w, err := NewWire(s.moving()); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v; want %q", err, want)
					if err == nil {
						_ = w.Close()
					}
				}
				return nil
			})
			s.unchanged(t, before)
		})
	}
}

// A NIC without an address is taken as by a wire; when it is given one, as after a boot, that is moved. Without Move it is reported.
func TestMoveLater(t *testing.T) {
	s := newSite(t)
	w := s.moved(t)
	if bridge, _ := w.Moved(); bridge != "" || !w.Filters() {
		t.Errorf("moved to %q, filters %v", bridge, w.Filters())
	}
	s.run(t, "ip", "addr", "add", "192.0.2.2/24", "dev", "lan0")
	follow := func() error { _, err := w.Follow(); return err }
	on(t, s.gate, follow)
	if bridge, _ := w.Moved(); bridge != "br-lan0" {
		t.Errorf("moved to %q", bridge)
	}
	s.far(t, "ip addr add 192.0.2.1/24 dev x", "ping -c 1 -W 2 192.0.2.2")

	// Somebody meddles: it is as before after Follow.
	s.run(t, "ip", "link", "set", "lan0", "nomaster")
	s.run(t, "ip", "link", "set", "wire0", "nomaster")
	on(t, s.gate, follow)
	s.far(t, "ping -c 1 -W 2 192.0.2.2")
	s.run(t, "ip", "link", "del", "br-lan0")
	on(t, s.gate, follow)
	s.far(t, "ping -c 1 -W 5 192.0.2.2")
	if bridge, _ := w.Moved(); bridge != "br-lan0" || !strings.Contains(s.say(t, "ip addr show br-lan0"), "192.0.2.2/24") {
		t.Errorf("moved to %q", bridge)
	}
	s.run(t, "ip", "addr", "add", "192.0.2.7/24", "dev", "lan0")
	on(t, s.gate, func() error {
		if text := strings.Join(w.Problems(), "\n"); !strings.Contains(text, "somebody has given lan0 an address again") {
			t.Errorf("problems: %q", text)
		}
		return nil
	})
	if err := s.cable.Remove(); err != nil {
		t.Fatal(err)
	}
	on(t, s.gate, func() error {
		if _, err := w.Follow(); err == nil {
			t.Error("nobody says that the NIC is gone")
		}
		if _, err := netlink.LinkByName("br-lan0"); err == nil {
			t.Error("the bridge of a NIC that is gone is left")
		}
		return nil
	})
}

// A lifetime goes on while the daemon is away, and an address whose life is over does not come back.
func TestMoveAgesAddresses(t *testing.T) {
	s := newSite(t)
	s.run(t, "ip", "addr", "add", "192.0.2.2/24", "dev", "lan0", "valid_lft", "1000", "preferred_lft", "900")
	s.run(t, "ip", "addr", "add", "198.51.100.2/24", "dev", "lan0", "valid_lft", "100", "preferred_lft", "90")
	s.run(t, "ip", "route", "add", "10.9.0.0/16", "via", "192.0.2.1", "dev", "lan0")
	w := s.moved(t)
	w.held.Host.Read = w.held.Host.Read.Add(-400 * time.Second)
	s.killed(t, w, false)
	s.run(t, "ip", "link", "del", "br-lan0")
	on(t, s.gate, func() error { return RestoreNIC(s.journal) })
	got := s.say(t, "ip addr show lan0")
	if !strings.Contains(got, "valid_lft 59") && !strings.Contains(got, "valid_lft 600sec preferred_lft 500sec") || strings.Contains(got, "198.51.100.2") {
		t.Error(got)
	}
	if got := s.say(t, "ip route"); !strings.Contains(got, "10.9.0.0/16 via 192.0.2.1 dev lan0") {
		t.Error(got)
	}
}

func TestBridgeName(t *testing.T) {
	for nic, want := range map[string]string{"eth0": "br-eth0", "enp0s31f6": "br-enp0s31f6", "enx001122334455": "br-001122334455"} {
		if got := bridgeName(nic); got != want {
			t.Errorf("%s: %s, want %s", nic, got, want)
		}
	}
}

// A message that is cut short, or lies about its lengths, is read as far as it goes.
func FuzzMessage(f *testing.F) {
	f.Add([]byte("\x02\x18\x80\x00\x02\x00\x00\x00\x08\x00\x01\x00\xc0\x00\x02\x02\x09\x00\x03\x00lan0\x00"), true)
	f.Add([]byte("\x02\x00\x00\x00\xfe\x03\x00\x01\x00\x00\x00\x00\x08\x00\x04\x00\x02\x00\x00\x00\x0c\x00\x09\x00\x08\x00\x00\x00\x02\x00\x00\x00"), false)
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "lan0", Index: 2}}
	other := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "br-lan0", Index: 3}}
	f.Fuzz(func(t *testing.T, b []byte, address bool) {
		m := message(b)
		if address && len(m) >= addressHead {
			there, _ := m.at(link, other, time.Minute, 0)
			again, _ := there.at(other, other, 0, 0)
			if there.address() != m.address() || len(there) > len(m)+12 || again.address() != m.address() {
				t.Errorf("%x became %x, then %x", m, there, again)
			}
		}
		if !address && len(m) >= routeHead && m.leads(2) {
			if there := m.by(2, 3); !there.leads(3) || there.destination() != m.destination() {
				t.Errorf("%x became %x", m, there)
			}
		}
	})
}

// What the host has is on the NIC again though that has got another MAC.
func TestMoveBackToOtherMAC(t *testing.T) {
	s := newSite(t)
	s.furnish(t)
	w := s.moved(t)
	s.run(t, "ip", "link", "set", "lan0", "address", "02:00:5e:00:53:99")
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if has := s.say(t, "ip addr show lan0") + s.say(t, "ip route"); !strings.Contains(has, "192.0.2.2/24") || !strings.Contains(has, "default via 192.0.2.1 dev lan0") {
		t.Errorf("the host has\n%s", has)
	}
}

// A daemon that is killed while it gives back what the host has leaves some of it nowhere. The next one knows of it.
func TestKilledWhileGivingBack(t *testing.T) {
	s := newSite(t)
	s.furnish(t)
	w := s.moved(t)
	s.run(t, "ip", "-6", "route", "add", "2001:db8:99::/48", "via", "2001:db8::1", "dev", "br-lan0") // since then
	on(t, s.gate, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		link, err := w.h.LinkByName("lan0")
		if err != nil {
			return err
		}
		bridge, err := ourBridge(w.h, "br-lan0", w.held.MAC)
		if err != nil {
			return err
		}
		if err := w.raw.takeDown(w.held, link, bridge, s.journal); err != nil {
			return err
		}
		if err := w.raw.leave(w.h, w.held.Host.Routes, link, bridge); err != nil {
			return err
		}
		w.closed = true
		w.tap.Close()
		return nil
	})
	has := func(route string) bool { return strings.Contains(s.say(t, "ip -6 route"), route) }
	if has("default via 2001:db8::1") || has("2001:db8:99::/48") {
		t.Fatal("nothing is nowhere, so that this proves nothing")
	}
	on(t, s.gate, func() error { return RestoreNIC(s.journal) })
	for _, route := range []string{"default via 2001:db8::1 dev lan0", "2001:db8:99::/48 via 2001:db8::1 dev lan0", "2001:db8:7::/48"} {
		if !has(route) {
			t.Errorf("route %s is gone:\n%s", route, s.say(t, "ip -6 route"))
		}
	}
}
