package bridge

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/internal/lab"
)

func newSink(t *testing.T, h *lab.Host, cfg SinkConfig) *Sink {
	t.Helper()
	var s *Sink
	on(t, h, func() (err error) {
		s, err = NewSink(cfg)
		return err
	})
	t.Cleanup(s.Close)
	return s
}

// copyTo writes a frame as a mirror does: tagged ones by their outer tag, as an attachment sends them.
func copyTo(w *Writer, k seen) error {
	if n := tagsOf(k.frame); n > 0 {
		tag, _ := ether.OuterTag(k.frame)
		inner := append(append([]byte{}, k.frame[:12]...), k.frame[16:]...)
		return w.WriteTagged(inner, tag, shifted(k.undone, -4))
	}
	return w.Write(k.frame, k.undone)
}

// Whatever is copied to a TAP is seen there by packet sockets, byte for byte, and by nobody else: the host takes nothing of it for what
// it has received.
func TestSinkTAP(t *testing.T) {
	_, h := host(t)
	s := newSink(t, h, SinkConfig{Name: "span0", Make: true, MTU: 1500})
	all, arrivals, w := newFarOn(t, h, "span0", 0), newFarOn(t, h, "span0", 1), s.NewWriter()
	for name, k := range kinds(t) {
		if err := copyTo(w, k); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := all.sees(t, k); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := w.Write(k.frame, k.undone); err != nil { // as it came in
			t.Errorf("%s, whole: %v", name, err)
		}
		if err := all.sees(t, k); err != nil {
			t.Errorf("%s, whole: %v", name, err)
		}
	}
	if got, ok := arrivals.receive(t); ok {
		t.Errorf("the host has received %s", describe(got))
	}
	frame := long(t, "abcd", 60)
	if n := testing.AllocsPerRun(1000, func() { _ = w.Write(frame, ether.Offload{}) }); n != 0 {
		t.Errorf("%v allocations for each copy", n)
	}
	for range 100_000 { // nothing waits, though nobody reads
		if err := w.Write(frame, ether.Offload{}); err != nil {
			t.Fatal(err)
		}
	}
	on(t, h, func() error {
		if _, err := NewSink(SinkConfig{Name: "span0", Make: true, MTU: 1500}); err == nil || !strings.Contains(err.Error(), "exists already") {
			t.Errorf("a second one of that name: %v", err)
		}
		s.Close()
		if err := w.Write(frame, ether.Offload{}); err == nil {
			t.Error("a frame was copied to what is closed")
		}
		if _, err := netlink.LinkByName("span0"); !errors.As(err, &netlink.LinkNotFoundError{}) {
			t.Errorf("it is still there: %v", err)
		}
		return nil
	})
}

// What is copied to a NIC leaves by it, and what it cannot send is lost at once. One that the host needs is refused, and given up when
// the host comes to need it; one that goes and comes back is found.
func TestSinkNIC(t *testing.T) {
	s := newSite(t)
	sink := newSink(t, s.gate, SinkConfig{Name: "lan0"})
	far, w := newFar(t, s.cable.B), sink.NewWriter()
	frame := seen{long(t, "8100 000a abcd", 64), ether.Offload{}}
	check := func(what string, want error) {
		t.Helper()
		changed, err := sink.Follow()
		if (err == nil) != (want == nil) || err != nil && !strings.Contains(err.Error(), want.Error()) {
			t.Errorf("%s: %t, %v; want %v", what, changed, err, want)
		}
		if err := copyTo(w, frame); (err == nil) != (want == nil) {
			t.Errorf("%s: a copy: %v", what, err)
		}
		if want == nil {
			if err := far.sees(t, frame); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	check("as it is", nil)
	for name, k := range kinds(t) {
		if err := copyTo(w, k); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := far.sees(t, k); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := w.Write(long(t, "abcd", 2000), ether.Offload{}); err == nil {
		t.Error("a frame longer than the MTU was sent")
	}
	own := newFar(t, s.cable.A)
	far.send(t, long(t, "abcd 03", 60), ether.Offload{})
	if _, ok := own.receive(t); !ok { // the host's own still
		t.Error("the host does not receive from the NIC any more")
	}

	s.run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "lan0")
	check("with an address", errors.New("has the address"))
	on(t, s.gate, func() error {
		if _, err := NewSink(SinkConfig{Name: "lan0"}); err == nil || !strings.Contains(err.Error(), "has the address 192.0.2.1/24") || strings.Contains(err.Error(), "--move-host") {
			t.Errorf("a NIC with an address: %v", err)
		}
		if _, err := NewSink(SinkConfig{Name: "lan9"}); err == nil || !strings.Contains(err.Error(), "no network device lan9") {
			t.Errorf("a NIC that is not there: %v", err)
		}
		return nil
	})
	s.run(t, "ip", "addr", "del", "192.0.2.1/24", "dev", "lan0")
	check("without", nil)
	s.run(t, "ip", "link", "add", "br0", "type", "bridge")
	s.run(t, "ip", "link", "set", "lan0", "master", "br0")
	check("as a port of a bridge", errors.New("is a part of the bridge br0"))
	s.run(t, "ip", "link", "set", "lan0", "nomaster")
	s.run(t, "ip", "link", "set", "lan0", "down")
	check("down", errors.New("ip link set lan0 up"))
	s.run(t, "ip", "link", "set", "lan0", "up")
	if err := s.cable.Remove(); err != nil {
		t.Fatal(err)
	}
	check("unplugged", errors.New("no network device lan0"))
	s.plug(t)
	far = newFar(t, s.cable.B)
	check("plugged in again", nil)
}

// What a wire has taken is no place for copies: they would be frames of its VLANs.
func TestSinkIsNoWire(t *testing.T) {
	s := newSite(t)
	w := s.wire(t)
	on(t, s.gate, func() error {
		for _, name := range []string{"lan0", w.Name(), "lo"} {
			if _, err := NewSink(SinkConfig{Name: name}); err == nil {
				t.Errorf("%s is a place for copies", name)
			}
		}
		return nil
	})
	if !bytes.Contains([]byte(s.state(t, "lan0")), []byte("mirred")) {
		t.Error("the wire is cut")
	}
}
