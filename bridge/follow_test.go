package bridge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/internal/lab"
)

// The TAP's MTU is the NIC's, also when that changes, and frames of that size pass.
func TestWireFollowsTheMTU(t *testing.T) {
	s := newSite(t)
	w := s.wire(t)
	far, in, out := newFar(t, s.cable.B), read(w), w.Queues()[0].NewWriter()
	if changed, err := w.Follow(); changed || err != nil {
		t.Errorf("Follow without a change: %v, %v", changed, err)
	}
	if err := errors.Join(s.cable.A.SetMTU(9000), s.cable.B.SetMTU(9000)); err != nil {
		t.Fatal(err)
	}
	if changed, err := w.Follow(); !changed || err != nil {
		t.Errorf("Follow after the MTU: %v, %v", changed, err)
	}
	for _, frame := range [][]byte{long(t, "abcd", 9014), long(t, "8100 000a abcd", 9018)} {
		far.send(t, frame, ether.Offload{})
		if err := in.sees(seen{frame, ether.Offload{}}); err != nil {
			t.Error(err)
		}
		_ = out.Write(frame, ether.Offload{})
		if err := far.sees(t, seen{frame, ether.Offload{}}); err != nil {
			t.Error(err)
		}
	}
	on(t, s.gate, func() error {
		tap, err := netlink.LinkByName("wire0")
		if err == nil && tap.Attrs().MTU != 9000 {
			t.Errorf("MTU %d", tap.Attrs().MTU)
		}
		return err
	})
}

// A carrier that goes and comes back is told.
func TestWireFollowsTheCarrier(t *testing.T) {
	s := newSite(t)
	w := s.wire(t)
	for _, up := range []bool{false, true} {
		change := s.cable.B.Down
		if up {
			change = s.cable.B.Up
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if _, err := w.Follow(); err != nil || w.Up() != up {
				return fmt.Errorf("up is %v, %w", w.Up(), err)
			}
			return nil
		})
	}
}

// Of a bond whose parts take turns it is known which of them sends. Not every kernel has bonds; a guest has (TestInGuest).
func TestWireFollowsTheBond(t *testing.T) {
	s := newSite(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := s.gate.Run(ctx, "ip", "link", "add", "bond7", "type", "bond", "mode", "active-backup", "miimon", "100"); err != nil {
		t.Skip("this kernel has no bonds: ", out)
	}
	s.run(t, "ip", "link", "add", "lan1", "type", "veth", "peer", "name", "far1")
	for _, nic := range []string{"lan0", "lan1"} {
		s.run(t, "ip", "link", "set", nic, "down")
		s.run(t, "ip", "link", "set", nic, "master", "bond7")
	}
	s.run(t, "ip", "link", "set", "far1", "up")
	s.run(t, "ip", "link", "set", "bond7", "up")
	cfg := s.config()
	cfg.NIC = "bond7"
	var w *Wire
	on(t, s.gate, func() (err error) {
		w, err = NewWire(cfg)
		return err
	})
	defer w.Close()
	for _, step := range []struct{ down, up, sends string }{{"lan1", "lan0", "lan0"}, {"lan0", "lan1", "lan1"}} {
		s.run(t, "ip", "link", "set", step.up, "up")
		s.run(t, "ip", "link", "set", step.down, "down")
		await(t, func() bool {
			_, err := w.Follow()
			return err == nil && w.Active() == netlinkOf(t, s, step.sends).Index
		})
	}
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Error(err)
}

// A NIC that goes and comes back, as one on USB does, is taken again; another that has been given its name, too.
func TestWireFollowsTheNIC(t *testing.T) {
	s := newSite(t)
	w := s.wire(t)
	in, out := read(w), w.Queues()[0].NewWriter()
	passes := func() {
		t.Helper()
		far, frame := newFar(t, s.cable.B), long(t, "8100 000a abcd", 64)
		far.send(t, frame, ether.Offload{})
		if err := in.sees(seen{frame, ether.Offload{}}); err != nil {
			t.Error(err)
		}
		_ = out.Write(frame, ether.Offload{})
		if err := far.sees(t, seen{frame, ether.Offload{}}); err != nil {
			t.Error(err)
		}
	}
	passes()
	if err := s.cable.Remove(); err != nil {
		t.Fatal(err)
	}
	if changed, err := w.Follow(); !changed || err == nil || !strings.Contains(err.Error(), "no network device lan0") || w.Up() {
		t.Errorf("Follow without a NIC: %v, %v; up %v", changed, err, w.Up())
	}
	if _, err := os.Stat(s.journal); err == nil {
		t.Error("the journal speaks of a NIC that is gone")
	}
	s.plug(t)
	if changed, err := w.Follow(); !changed || err != nil || !w.Up() {
		t.Errorf("Follow after it came back: %v, %v; up %v", changed, err, w.Up())
	}
	passes()
	// Somebody renames it, and it is not lan0 any more.
	s.run(t, "ip", "link", "set", "lan0", "down")
	s.run(t, "ip", "link", "set", "lan0", "name", "old0")
	if changed, err := w.Follow(); !changed || err == nil {
		t.Errorf("Follow after it was renamed: %v, %v", changed, err)
	}
	if state := s.state(t, "old0"); strings.Contains(state, "clsact") || strings.Contains(state, "promiscuity 1") {
		t.Errorf("what was lan0 is still taken:\n%s", state)
	}
	s.plug2(t, "lan0")
	// A NIC that the host needs meanwhile is not taken.
	s.run(t, "ip", "addr", "add", "198.51.100.1/24", "dev", "lan0")
	if _, err := w.Follow(); err == nil || !strings.Contains(err.Error(), "has the address 198.51.100.1/24") {
		t.Errorf("Follow onto a NIC with an address: %v", err)
	}
	s.run(t, "ip", "addr", "del", "198.51.100.1/24", "dev", "lan0")
	if _, err := w.Follow(); err != nil {
		t.Error(err)
	}
	passes()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := w.Follow(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Follow after Close: %v", err)
	}
}

// plug2 lays another cable, whose other end has another name.
func (s *site) plug2(t *testing.T, nic string) {
	t.Helper()
	var err error
	if s.cable, err = s.lab.Cable(lab.Plug{On: s.gate, Name: nic}, lab.Plug{On: s.other, Name: "z"}); err != nil {
		t.Fatal(err)
	}
}

// What somebody else has removed and a wire cannot be without is put back.
func TestWireIsKept(t *testing.T) {
	s := newSite(t)
	before := s.state(t, "lan0")
	s.run(t, "tc", "qdisc", "add", "dev", "lan0", "clsact")
	w := s.wire(t)
	in, far := read(w), newFar(t, s.cable.B)
	frame := long(t, "abcd", 60)
	for _, removal := range [][]string{
		{"tc", "filter", "del", "dev", "lan0", "ingress"}, {"tc", "qdisc", "del", "dev", "lan0", "clsact"}, {"tc", "filter", "del", "dev", "wire0", "ingress"},
	} {
		s.run(t, removal...)
		if _, err := w.Follow(); err != nil {
			t.Error(removal, err)
		}
		far.send(t, frame, ether.Offload{})
		if err := in.sees(seen{frame, ether.Offload{}}); err != nil {
			t.Error(removal, err)
		}
		_ = w.Queues()[0].NewWriter().Write(frame, ether.Offload{})
		if err := far.sees(t, seen{frame, ether.Offload{}}); err != nil {
			t.Error(removal, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if after := s.state(t, "lan0"); after != before { // the clsact of before is gone, and ours with it
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}
