package bridge

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/etherloom/etherloom/ether"
)

// port makes a bridge of which the NIC is a port, and joins it.
func (s *site) port(t *testing.T) *Wire {
	t.Helper()
	s.bridge(t, "lan0")
	var w *Wire
	on(t, s.gate, func() (err error) {
		w, err = NewWire(WireConfig{Bridge: "br7"})
		return err
	})
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func (s *site) bridge(t *testing.T, nic string) {
	t.Helper()
	s.run(t, "ip", "link", "add", "br7", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
	s.run(t, "ip", "link", "set", nic, "master", "br7")
	s.run(t, "ip", "link", "set", "br7", "up")
}

// A port of a bridge has what the bridge gives it: what the wire cannot be without, and not what is for bridges.
func TestPortPassesFrames(t *testing.T) {
	s := newSite(t)
	s.bridge(t, "lan0")
	before := s.state(t, "br7")
	s.run(t, "ip", "link", "del", "br7")
	w := s.port(t)
	far, in, out := newFar(t, s.cable.B), read(w), w.Queues()[0].NewWriter()
	if !w.Up() {
		t.Error("it is not up")
	}
	for name, k := range kinds(t) {
		if strings.HasPrefix(name, "to 01:80:c2") {
			continue
		}
		far.send(t, k.frame, k.undone)
		if err := in.sees(k); err != nil {
			t.Errorf("%s, from the bridge: %v", name, err)
		}
		// It has learned on which side the sender is: the answer comes from another.
		k.frame[11] = 0x99
		if err := out.Write(k.frame, k.undone); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		k.frame[11]--
	}
	answer := long(t, "abcd 07", 60)
	answer[11] = 0x98
	_ = out.Write(answer, ether.Offload{})
	if err := far.sees(t, seen{answer, ether.Offload{}}); err != nil {
		t.Errorf("to the bridge: %v", err)
	}
	lines := func(state string) string { // what says who the bridge is
		for line := range strings.Lines(state) {
			if strings.Contains(line, "link/ether") {
				return strings.Fields(line)[1]
			}
		}
		return ""
	}
	if joined := s.state(t, "br7"); lines(joined) != lines(before) || lines(before) == "" {
		t.Errorf("the bridge's address was %s and is %s", lines(before), lines(joined))
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	on(t, s.gate, func() error {
		if _, err := netlink.LinkByName("wire0"); err == nil {
			t.Error("the port is still there")
		}
		_, err := netlink.LinkByName("br7")
		return err
	})
}

// A bridge that goes and comes back is joined again, and so is one that has lost the port; its MTU is not made less.
func TestPortFollowsTheBridge(t *testing.T) {
	s := newSite(t)
	w := s.port(t)
	in := read(w)
	passes := func(why string) {
		t.Helper()
		far, frame := newFar(t, s.cable.B), long(t, "8100 000a abcd", 64)
		far.send(t, frame, ether.Offload{})
		if err := in.sees(seen{frame, ether.Offload{}}); err != nil {
			t.Error(why, err)
		}
	}
	passes("at first")
	if changed, err := w.Follow(); changed || err != nil {
		t.Errorf("Follow without a change: %v, %v", changed, err)
	}
	s.run(t, "ip", "link", "set", "wire0", "nomaster")
	if _, err := w.Follow(); err != nil {
		t.Error(err)
	}
	passes("after it was no port")
	s.run(t, "ip", "link", "del", "br7")
	if changed, err := w.Follow(); !changed || err == nil || w.Up() {
		t.Errorf("Follow without a bridge: %v, %v; up %v", changed, err, w.Up())
	}
	on(t, s.gate, func() error {
		if got := strings.Join(w.Problems(), "\n"); !strings.Contains(got, "there is no network device br7") {
			t.Errorf("problems: %s", got)
		}
		return nil
	})
	s.bridge(t, "lan0")
	if changed, err := w.Follow(); !changed || err != nil || !w.Up() {
		t.Errorf("Follow after it came back: %v, %v; up %v", changed, err, w.Up())
	}
	passes("after it came back")
	mtu := func(of string) (mtu int) {
		on(t, s.gate, func() error {
			link, err := netlink.LinkByName(of)
			if err == nil {
				mtu = link.Attrs().MTU
			}
			return err
		})
		return mtu
	}
	for _, c := range []struct{ nic, want int }{{1400, 1400}, {1500, 1500}} {
		s.run(t, "ip", "link", "set", "lan0", "mtu", fmt.Sprint(c.nic))
		if _, err := w.Follow(); err != nil || mtu("br7") != c.want {
			t.Errorf("with a NIC of %d the bridge has %d, %v", c.nic, mtu("br7"), err)
		}
	}
	s.run(t, "ip", "link", "set", "br7", "mtu", "1400") // by hand: it stays so
	s.run(t, "ip", "link", "set", "lan0", "mtu", "9000")
	s.run(t, "ip", "link", "set", "br7", "mtu", "9000")
	if changed, err := w.Follow(); err != nil || !changed || mtu("wire0") != 9000 {
		t.Errorf("%v, %v: the port has %d", changed, err, mtu("wire0"))
	}
	s.run(t, "ip", "link", "set", "br7", "down")
	if changed, err := w.Follow(); err != nil || !changed || w.Up() {
		t.Errorf("%v, %v: up is %v of a bridge that is down", changed, err, w.Up())
	}
}

func TestPortRefuses(t *testing.T) {
	s := newSite(t)
	on(t, s.gate, func() error {
		for _, c := range []struct {
			cfg  WireConfig
			want string
		}{
			{WireConfig{Bridge: "br7"}, "there is no network device br7"},
			{WireConfig{Bridge: "lan0"}, "lan0 is no bridge (it is of type veth): give it as the NIC"},
			{WireConfig{Bridge: "br7", NIC: "lan0", Journal: s.journal}, "a NIC or a bridge, one of them"},
			{WireConfig{Journal: s.journal}, "a NIC or a bridge, one of them"},
		} {
			if w, err := NewWire(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v: %v; want %q", c.cfg, err, c.want)
				if err == nil {
					_ = w.Close()
				}
			}
		}
		return nil
	})
}

func TestTaggedVLANs(t *testing.T) {
	for pvid, want := range map[uint16]string{
		0: "[[1 4094]]", 1: "[[2 4094]]", 2: "[[1 1] [3 4094]]", 10: "[[1 9] [11 4094]]", 4094: "[[1 4093]]",
	} {
		if got := fmt.Sprint(tagged(&pvid)); got != want {
			t.Errorf("default %d: %s, want %s", pvid, got, want)
		}
	}
	if got := fmt.Sprint(tagged(nil)); got != "[[1 4094]]" {
		t.Error(got)
	}
}

// On a bridge that filters by VLAN the port is a trunk. Not every kernel has such bridges.
func TestPortIsATrunk(t *testing.T) {
	s := newSite(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := s.gate.Run(ctx, "ip", "link", "add", "br7", "type", "bridge", "vlan_filtering", "1", "forward_delay", "0", "mcast_snooping", "0"); err != nil {
		t.Skip("this kernel's bridges know no VLANs: ", out)
	}
	s.run(t, "ip", "link", "set", "lan0", "master", "br7")
	s.run(t, "ip", "link", "set", "br7", "up")
	s.run(t, "bridge", "vlan", "add", "vid", "10", "dev", "lan0")
	var w *Wire
	on(t, s.gate, func() (err error) {
		w, err = NewWire(WireConfig{Bridge: "br7"})
		return err
	})
	defer w.Close()
	far, in, out := newFar(t, s.cable.B), read(w), w.Queues()[0].NewWriter()
	var errs []error
	for _, digits := range []string{"8100 600a abcd", "abcd 01"} {
		frame := long(t, digits, 64)
		far.send(t, frame, ether.Offload{})
		errs = append(errs, in.sees(seen{frame, ether.Offload{}}))
		frame[11] = 0x99
		errs = append(errs, out.Write(frame, ether.Offload{}), far.sees(t, seen{frame, ether.Offload{}}))
	}
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	far.send(t, long(t, "8100 000b abcd", 64), ether.Offload{}) // which lan0 is not in
	if err := in.sees(seen{long(t, "8100 000b abcd", 64), ether.Offload{}}); err == nil {
		t.Error("a VLAN that the other port does not have comes through")
	}
}
