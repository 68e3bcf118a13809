package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/internal/lab"
)

// host makes a machine of its own for the test.
func host(t *testing.T) (*lab.Lab, *lab.Host) {
	t.Helper()
	if err := lab.Supported(); err != nil {
		if os.Getenv("ETHERLOOM_E2E") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	l, err := lab.New("loombr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	h, err := l.AddHost("a")
	if err != nil {
		t.Fatal(err)
	}
	return l, h
}

var testMAC = ether.MAC{0x02, 0x00, 0x5e, 0x10, 0x00, 0x01}

// on runs a test's body in the host's namespace.
func on(t *testing.T, h *lab.Host, f func() error) {
	t.Helper()
	if err := h.Do(f); err != nil {
		t.Fatal(err)
	}
}

func newTAP(t *testing.T, h *lab.Host, queues int) *TAP {
	t.Helper()
	var tap *TAP
	on(t, h, func() (err error) {
		tap, err = NewTAP(TAPConfig{Name: "loom%d", MAC: testMAC, MTU: 1500, Queues: queues})
		if err == nil {
			err = errors.Join(tap.SetCarrier(true), tap.Up())
		}
		return err
	})
	t.Cleanup(tap.Close)
	return tap
}

func TestTAP(t *testing.T) {
	_, h := host(t)
	tap := newTAP(t, h, 3)
	if tap.Name() != "loom0" || len(tap.Queues()) != 3 {
		t.Errorf("TAP %s with %d queues", tap.Name(), len(tap.Queues()))
	}
	second := newTAP(t, h, 1)
	if second.Name() != "loom1" {
		t.Errorf("the second TAP is %s", second.Name())
	}
	on(t, h, func() error {
		link, err := netlink.LinkByName("loom0")
		if err != nil {
			return err
		}
		a := link.Attrs()
		if !bytes.Equal(a.HardwareAddr, testMAC[:]) || a.MTU != 1500 || a.OperState != netlink.OperUp {
			t.Errorf("link = %+v", a)
		}
		for path, want := range map[string]string{"ipv6/conf/loom0/accept_ra": "0", "ipv4/conf/loom0/arp_ignore": "1"} {
			got, err := os.ReadFile("/proc/sys/net/" + path)
			if err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("%s = %q, %v", path, got, err)
			}
		}
		return nil
	})
	for _, q := range tap.Queues() {
		_ = control(q.fd, func(fd int) error {
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Error("a child process would inherit the TAP")
			}
			return nil
		})
	}
	if d := tap.Drift(); len(d) != 0 {
		t.Errorf("drift of an untouched TAP: %q", d)
	}
	tap.Close()
	on(t, h, func() error {
		if _, err := netlink.LinkByName("loom0"); err == nil {
			t.Error("the TAP outlives Close")
		}
		return nil
	})
	if _, _, err := tap.Queues()[0].Read(make([]byte, MaxFrame)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read of a closed TAP: %v", err)
	}
}

// The host's own stack talks to us through the TAP, both ways.
func TestTAPCarriesFrames(t *testing.T) {
	_, h := host(t)
	tap := newTAP(t, h, 1)
	own := netip.MustParsePrefix("192.0.2.1/24")
	on(t, h, func() error { return tap.SetAddresses([]netip.Prefix{own}) })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := h.ListenPacket(ctx, "udp4", "192.0.2.1:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	// In: a frame that we write arrives at the socket.
	peer := ether.MAC{2, 0, 0, 0, 0, 9}
	frame := udpFrame(testMAC, peer, "192.0.2.9", "192.0.2.1", 9000, 7000, "from the overlay")
	if err := tap.Queues()[0].NewWriter().Write(frame, ether.Offload{}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	_ = conn.SetReadDeadline(time.Now().Add(3 * time.Second))
	n, from, err := conn.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "from the overlay" || from.String() != "192.0.2.9:9000" {
		t.Fatalf("the host received %q from %v, %v", buf[:n], from, err)
	}
	// Out: the answer needs ARP first, and we see the request.
	if _, err := conn.WriteTo([]byte("answer"), from); err != nil {
		t.Fatal(err)
	}
	read := make([]byte, MaxFrame)
	for {
		got, _, err := tap.Queues()[0].Read(read)
		if err != nil {
			t.Fatal(err)
		}
		f, err := ether.Parse(got)
		if err != nil {
			t.Fatal(err)
		}
		if arp, ok := ether.ParseARP(f.Payload); f.Type == ether.TypeARP && ok {
			if f.Src != testMAC || arp.SenderIP != [4]byte{192, 0, 2, 1} || arp.TargetIP != [4]byte{192, 0, 2, 9} {
				t.Errorf("ARP = %+v", arp)
			}
			return
		}
	}
}

func TestAddresses(t *testing.T) {
	_, h := host(t)
	tap := newTAP(t, h, 1)
	v4, v6 := netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("fd00:1::1/64")
	other := netip.MustParsePrefix("198.51.100.7/32")
	on(t, h, func() error {
		link, err := netlink.LinkByName("loom0")
		if err != nil {
			return err
		}
		return errors.Join(tap.SetAddresses([]netip.Prefix{v4, v6}), netlink.AddrAdd(link, toNetlink(other)))
	})
	has := func(want ...netip.Prefix) {
		t.Helper()
		got, err := tap.Addresses()
		got = slices.DeleteFunc(got, func(p netip.Prefix) bool { return p.Addr().IsLinkLocalUnicast() })
		if err != nil || len(got) != len(want) {
			t.Errorf("addresses %v, %v; want %v", got, err, want)
		}
		for _, w := range want {
			if !slices.Contains(got, w) {
				t.Errorf("addresses %v; want %v", got, want)
			}
		}
	}
	has(v4, v6, other)
	if d := strings.Join(tap.Drift(), "\n"); !strings.Contains(d, other.String()) {
		t.Errorf("drift does not name the foreign address: %q", d)
	}
	on(t, h, func() error { return tap.SetAddresses([]netip.Prefix{v6}) })
	has(v6, other) // ours is gone, the other's stays

	on(t, h, func() error {
		link, err := netlink.LinkByName("loom0")
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrDel(link, toNetlink(v6)), netlink.LinkSetMTU(link, 1400),
			netlink.LinkSetDown(link), netlink.LinkSetHardwareAddr(link, []byte{2, 9, 9, 9, 9, 9}))
	})
	d := strings.Join(tap.Drift(), "\n")
	for _, want := range []string{"fd00:1::1/64 was removed", "set down", "MAC is 02:09:09:09:09:09", "MTU is 1400"} {
		if !strings.Contains(d, want) {
			t.Errorf("drift does not say %q:\n%s", want, d)
		}
	}
	// What somebody else removed is not an error when we remove it, too.
	on(t, h, func() error { return tap.SetAddresses(nil) })
}

// Renamed, then moved to another namespace: the TAP is followed, and works there.
func TestFollow(t *testing.T) {
	l, h := host(t)
	tap := newTAP(t, h, 1)
	v4 := netip.MustParsePrefix("192.0.2.1/24")
	on(t, h, func() error { return tap.SetAddresses([]netip.Prefix{v4}) })
	if changed, err := tap.Follow(); changed || err != nil {
		t.Errorf("Follow without a change = %v, %v", changed, err)
	}
	on(t, h, func() error {
		link, err := netlink.LinkByName("loom0")
		if err != nil {
			return err
		}
		return netlink.LinkSetName(link, "office")
	})
	if changed, err := tap.Follow(); !changed || err != nil || tap.Name() != "office" || tap.Away() {
		t.Errorf("Follow after renaming = %v, %v; name %s", changed, err, tap.Name())
	}
	b, err := l.AddHost("b")
	if err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open("/run/netns/" + b.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	on(t, h, func() error {
		link, err := netlink.LinkByName("office")
		if err != nil {
			return err
		}
		return netlink.LinkSetNsFd(link, int(ns.Fd()))
	})
	on(t, h, func() error {
		if changed, err := tap.Follow(); !changed || err != nil || !tap.Away() {
			t.Errorf("Follow after moving = %v, %v; away %v", changed, err, tap.Away())
		}
		return nil
	})
	got, err := tap.Addresses()
	if err != nil || !slices.Contains(got, v4) {
		t.Errorf("in the new namespace the TAP has %v, %v", got, err)
	}
	on(t, b, func() error {
		link, err := netlink.LinkByName("office")
		if err != nil {
			return err
		}
		if link.Attrs().OperState != netlink.OperUp {
			t.Errorf("in the new namespace the TAP is %v", link.Attrs().OperState)
		}
		return nil
	})
	if d := strings.Join(tap.Drift(), "\n"); !strings.Contains(d, "another network namespace") {
		t.Errorf("drift = %q", d)
	}
}

func TestExistingDeviceIsNotAdopted(t *testing.T) {
	_, h := host(t)
	newTAP(t, h, 1)
	on(t, h, func() error {
		_, err := NewTAP(TAPConfig{Name: "loom0", MAC: testMAC, MTU: 1500})
		if err == nil || !strings.Contains(err.Error(), "exists already") {
			t.Errorf("NewTAP of a name in use: %v", err)
		}
		return nil
	})
}

func TestUnderlay(t *testing.T) {
	l, h := host(t)
	b, err := l.AddHost("b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Cable(lab.Plug{On: h, Name: "up0", Addrs: []string{"203.0.113.5/24", "2001:db8::5/64"}}, lab.Plug{On: b, Name: "x"}); err != nil {
		t.Fatal(err)
	}
	tap := newTAP(t, h, 1)
	on(t, h, func() error {
		if err := tap.SetAddresses([]netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}); err != nil {
			return err
		}
		for _, c := range []struct {
			only []string
			skip map[int]bool
			want string
		}{
			{nil, map[int]bool{tap.Index(): true}, "203.0.113.5 2001:db8::5"},
			{[]string{"up*"}, nil, "203.0.113.5 2001:db8::5"},
			{[]string{"eth*"}, nil, ""},
			{nil, nil, "192.0.2.1 203.0.113.5 2001:db8::5"},
		} {
			got, err := Underlay(c.only, c.skip)
			slices.SortFunc(got, netip.Addr.Compare)
			var list []string
			for _, a := range got {
				list = append(list, a.String())
			}
			if strings.Join(list, " ") != c.want || err != nil {
				t.Errorf("Underlay(%v) = %v, %v; want %s", c.only, list, err, c.want)
			}
		}
		return nil
	})
}

// On a router with hundreds of links the underlay is found without asking for the addresses of each.
func TestUnderlayOfManyLinks(t *testing.T) {
	_, h := host(t)
	const pairs = 150
	var batch strings.Builder
	for i := range pairs {
		fmt.Fprintf(&batch, "link add v%d type veth peer name w%d\nlink set v%d up\nlink set w%d up\naddr add 10.1.%d.1/24 dev v%d\n", i, i, i, i, i, i)
	}
	file := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := h.Run(t.Context(), "ip", "-batch", file); err != nil {
		t.Fatal(err, out)
	}
	on(t, h, func() error { // on a thread of its own
		var began, ended unix.Timespec
		err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &began)
		list, err2 := Underlay(nil, nil)
		err3 := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ended)
		if len(list) != pairs {
			t.Errorf("%d addresses are found, want %d", len(list), pairs)
		}
		if took := time.Duration(ended.Nano() - began.Nano()); took > 60*time.Millisecond { // a tenth of it, or four times as long
			t.Errorf("it takes %v of the processor's time", took)
		}
		return errors.Join(err, err2, err3)
	})
}

func TestOverlap(t *testing.T) {
	l, h := host(t)
	b, _ := l.AddHost("b")
	if _, err := l.Cable(lab.Plug{On: h, Name: "up0", Addrs: []string{"203.0.113.5/24"}}, lab.Plug{On: b, Name: "x", Addrs: []string{"203.0.113.1/24"}}); err != nil {
		t.Fatal(err)
	}
	if err := h.AddRoute("default", "203.0.113.1"); err != nil {
		t.Fatal(err)
	}
	on(t, h, func() error {
		for p, want := range map[string]string{
			"203.0.113.0/28": "203.0.113.0/24 on up0", "203.0.0.0/16": "203.0.113.0/24 on up0", "192.0.2.0/24": "", "fd00::/64": "",
		} {
			if got, err := new(Routes).Overlap(netip.MustParsePrefix(p), -1); got != want || err != nil {
				t.Errorf("Overlap(%s) = %q, %v; want %q", p, got, err, want)
			}
		}
		return nil
	})
}

func TestMonitor(t *testing.T) {
	l, h := host(t)
	b, _ := l.AddHost("b")
	cable, err := l.Cable(lab.Plug{On: h, Name: "up0"}, lab.Plug{On: b, Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	changes := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		done <- h.Do(func() error {
			close(ready)
			return Monitor(ctx, func() { changes <- struct{}{} })
		})
	}()
	<-ready
	expect := func(what string) {
		t.Helper()
		select {
		case <-changes:
		case <-time.After(3 * time.Second):
			t.Errorf("no notice after %s", what)
		}
	}
	expect("the start")
	// The host's thread is busy in Monitor; the other end of the cable causes the events.
	if err := cable.B.Down(); err != nil {
		t.Fatal(err)
	}
	expect("the carrier went")
	if err := cable.B.Up(); err != nil {
		t.Fatal(err)
	}
	expect("the carrier came back")
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Monitor: %v", err)
	}
}

// The host leaves checksums undone, and takes frames on which they are undone.
func TestChecksumsAreLeftUndone(t *testing.T) {
	_, h := host(t)
	tap := newTAP(t, h, 1)
	own := netip.MustParsePrefix("192.0.2.1/24")
	on(t, h, func() error { return tap.SetAddresses([]netip.Prefix{own}) })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	peer := ether.MAC{2, 0, 0, 0, 0, 9}
	if out, err := h.Run(ctx, "ip", "neigh", "replace", "192.0.2.9", "lladdr", peer.String(), "dev", tap.Name()); err != nil {
		t.Fatal(err, out)
	}
	conn, err := h.ListenPacket(ctx, "udp4", "192.0.2.1:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.WriteTo([]byte("to the overlay"), &net.UDPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 9000}); err != nil {
		t.Fatal(err)
	}
	read := make([]byte, MaxFrame)
	for {
		got, undone, err := tap.Queues()[0].Read(read)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasSuffix(got, []byte("to the overlay")) {
			continue
		}
		if want, ok := ether.Partial(got); !ok || undone != want {
			t.Errorf("undone is %+v, want %+v", undone, want)
		}
		break
	}
	if _, _, ok := tap.Queues()[0].TryRead(read); ok {
		t.Log("the host has sent something else, too")
	}

	frame := udpFrame(testMAC, peer, "192.0.2.9", "192.0.2.1", 9000, 7000, "from the overlay")
	undone, ok := ether.Partial(frame)
	if !ok {
		t.Fatal("no transport header")
	}
	sum := int(undone.Start + undone.Field)
	frame[sum] ^= 0x55 // wrong for anybody who looks
	w := tap.Queues()[0].NewWriter()
	buf := make([]byte, 100)
	for _, c := range []struct {
		undone  ether.Offload
		arrives bool
	}{{ether.Offload{}, false}, {undone, true}} {
		if err := w.Write(frame, c.undone); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if n, _, err := conn.ReadFrom(buf); (err == nil) != c.arrives || c.arrives && string(buf[:n]) != "from the overlay" {
			t.Errorf("%+v: %q, %v", c.undone, buf[:n], err)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _ = w.Write(frame, ether.Offload{}) }); n != 0 {
		t.Errorf("%v allocations for a frame to the host", n)
	}
}
