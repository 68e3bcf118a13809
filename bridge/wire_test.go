package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/internal/lab"
)

// site is a gateway whose NIC lan0 leads to another machine.
type site struct {
	lab     *lab.Lab
	gate    *lab.Host
	other   *lab.Host
	cable   *lab.Cable
	journal string
}

func newSite(t *testing.T) *site {
	t.Helper()
	l, gate := host(t)
	other, err := l.AddHost("b")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{lab: l, gate: gate, other: other, journal: filepath.Join(t.TempDir(), "lan0.json")}
	s.plug(t)
	return s
}

func (s *site) plug(t *testing.T) {
	t.Helper()
	var err error
	if s.cable, err = s.lab.Cable(lab.Plug{On: s.gate, Name: "lan0"}, lab.Plug{On: s.other, Name: "x"}); err != nil {
		t.Fatal(err)
	}
}

func (s *site) config() WireConfig { return WireConfig{NIC: "lan0", Journal: s.journal, Queues: 2} }

func (s *site) wire(t *testing.T) *Wire {
	t.Helper()
	var w *Wire
	on(t, s.gate, func() (err error) {
		w, err = NewWire(s.config())
		return err
	})
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// state is all of a NIC that a wire could change, in the words of iproute2.
func (s *site) state(t *testing.T, nic string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out []string
	for _, args := range [][]string{
		{"ip", "-d", "link", "show", nic},
		{"tc", "qdisc", "show", "dev", nic},
		{"tc", "filter", "show", "dev", nic, "ingress"},
		{"ethtool", "-k", nic},
	} {
		text, err := s.gate.Run(ctx, args[0], args[1:]...)
		if err != nil {
			t.Fatal(err, text)
		}
		out = append(out, text)
	}
	return strings.Join(out, "\n")
}

func (s *site) run(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := s.gate.Run(ctx, args[0], args[1:]...); err != nil {
		t.Fatal(args, err, out)
	}
}

// long is a frame of so many bytes.
func long(t *testing.T, digits string, n int) []byte {
	t.Helper()
	frame := ethernet(t, digits)
	return append(frame, bytes.Repeat([]byte{0x5a}, n-len(frame))...)
}

// superFrameTCP is a TCP super-frame with a tag or none, of frames with 1448 bytes of payload.
func superFrameTCP(t *testing.T, tag string, payload int) ([]byte, ether.Offload) {
	t.Helper()
	frame := udpFrame(peerMAC, testMAC, "192.0.2.9", "192.0.2.1", 9000, 7000, strings.Repeat("x", payload+24-0))
	frame[23] = 6                            // TCP, whose header is 24 bytes longer than UDP's
	frame[34+12], frame[34+13] = 0x80, 0x10  // 32 bytes, ACK
	copy(frame[34+20:], []byte{1, 1, 8, 10}) // timestamps
	ip := frame[14:34]                       // its checksum is no longer right
	ip[10], ip[11] = 0, 0                    //
	sum := ^checksum(ip)                     //
	ip[10], ip[11] = byte(sum>>8), byte(sum) //
	frame[34+16], frame[34+17] = 0x12, 0x34  // that of the pseudo-header is not looked at on the way
	o := ether.Offload{Checksum: true, Start: 34, Field: 16, Size: 1448}
	if tag == "" {
		return frame, o
	}
	head := ethernet(t, tag)[12:]
	return append(append(append([]byte{}, frame[:12]...), head...), frame[12:]...), shifted(o, len(head))
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// kinds are frames that a cable carries, and a bridge does not all.
func kinds(t *testing.T) map[string]seen {
	t.Helper()
	all := map[string]seen{
		"untagged":          {long(t, "abcd 01", 60), ether.Offload{}},
		"of a length":       {long(t, "0020 aaaa03", 60), ether.Offload{}},
		"of a header alone": {ethernet(t, "abcd"), ether.Offload{}},
		"tagged 10":         {long(t, "8100 000a abcd", 64), ether.Offload{}},
		"priority":          {long(t, "8100 6000 abcd", 64), ether.Offload{}},
		"tagged 4095":       {long(t, "8100 0fff abcd", 64), ether.Offload{}},
		"service 10":        {long(t, "88a8 000a abcd", 64), ether.Offload{}},
		"QinQ":              {long(t, "88a8 700a 8100 0007 abcd", 68), ether.Offload{}},
		"QinQ of customers": {long(t, "8100 000a 8100 0007 abcd", 68), ether.Offload{}},
		"three tags":        {long(t, "88a8 000a 88a8 0008 8100 0007 abcd", 68), ether.Offload{}},
		"full":              {long(t, "abcd", 1514), ether.Offload{}},
		"full and tagged":   {long(t, "8100 000a abcd", 1518), ether.Offload{}},
	}
	for i := range 16 {
		frame := long(t, "abcd", 60)
		copy(frame, []byte{0x01, 0x80, 0xc2, 0, 0, byte(i)})
		all[fmt.Sprintf("to 01:80:c2:00:00:%02x", i)] = seen{frame, ether.Offload{}}
	}
	stranger := long(t, "abcd", 60)
	copy(stranger, []byte{2, 0, 0, 0, 0, 0x77})
	all["to a stranger"] = seen{stranger, ether.Offload{}}

	partial := udpFrame(peerMAC, testMAC, "192.0.2.9", "192.0.2.1", 9000, 7000, "a datagram that needs no padding")
	all["checksum undone"] = seen{partial, ether.Offload{Checksum: true, Start: 34, Field: 6}}
	tagged := append(append(append([]byte{}, partial[:12]...), 0x81, 0, 0, 10), partial[12:]...)
	all["checksum undone, tagged"] = seen{tagged, ether.Offload{Checksum: true, Start: 38, Field: 6}}
	for name, tag := range map[string]string{"": "", ", tagged": "8100 600a", ", service": "88a8 000a"} {
		frame, o := superFrameTCP(t, tag, 30000)
		all["super-frame"+name] = seen{frame, o}
	}
	tcp4, o := superFrameTCP(t, "88a8 000a 8100 600a", 30000)
	all["super-frame, QinQ"] = seen{tcp4, o}
	return all
}

// What comes in at the NIC comes out of the queues, and what is written to them leaves by the NIC: every kind of frame, byte for byte.
func TestWirePassesEveryFrame(t *testing.T) {
	s := newSite(t)
	w := s.wire(t)
	far, in, out := newFar(t, s.cable.B), read(w), w.Queues()[0].NewWriter()
	if w.Offloads() != every || len(w.Queues()) != 2 || !w.Up() || w.Name() != "wire0" {
		t.Errorf("offloads %+v, %d queues, up %v, named %s", w.Offloads(), len(w.Queues()), w.Up(), w.Name())
	}
	for name, k := range kinds(t) {
		far.send(t, k.frame, k.undone)
		if err := in.sees(k); err != nil {
			t.Errorf("%s, from the NIC: %v", name, err)
		}
		inner, tag := untaggedFor(k.frame), ether.Tag{}
		if n := tagsOf(k.frame); n == 4 {
			tag, _ = ether.OuterTag(k.frame)
		} else if n > 4 { // the outer tag is put on, the inner ones are payload
			tag, _ = ether.OuterTag(k.frame)
			inner = append(append([]byte{}, k.frame[:12]...), k.frame[16:]...)
		}
		if err := out.WriteTagged(inner, tag, shifted(k.undone, len(inner)-len(k.frame))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := far.sees(t, k); err != nil {
			t.Errorf("%s, to the NIC: %v", name, err)
		}
	}
}

// A frame's own priority tag gives way to the tag that it is written with, and so does the place of its checksum.
func TestWriteTagged(t *testing.T) {
	s := newSite(t)
	w := s.wire(t)
	far, out := newFar(t, s.cable.B), w.Queues()[0].NewWriter()
	plain := udpFrame(peerMAC, testMAC, "192.0.2.9", "192.0.2.1", 9000, 7000, "a datagram")
	with := func(tag ...byte) []byte {
		return append(append(append([]byte{}, plain[:12]...), tag...), plain[12:]...)
	}
	at := func(start uint16) ether.Offload { return ether.Offload{Checksum: true, Start: start, Field: 6} }
	ten, none, priority := ether.MakeTag(ether.TypeVLAN, 10), ether.Tag{}, ether.MakeTag(ether.TypeVLAN, 0x6000)
	for name, c := range map[string]struct {
		frame []byte
		tag   ether.Tag
		o     ether.Offload
		want  seen
	}{
		"as it is":                    {plain, none, at(34), seen{plain, at(34)}},
		"with a tag":                  {plain, ten, at(34), seen{with(0x81, 0, 0, 10), at(38)}},
		"with a priority tag":         {plain, priority, at(34), seen{with(0x81, 0, 0x60, 0), at(38)}},
		"a tag for the priority tag":  {with(0x81, 0, 0x60, 0), ten, at(38), seen{with(0x81, 0, 0, 10), at(38)}},
		"none for the priority tag":   {with(0x81, 0, 0x60, 0), none, at(38), seen{plain, at(34)}},
		"nothing undone":              {plain, ten, ether.Offload{}, seen{with(0x81, 0, 0, 10), ether.Offload{}}},
		"a tag before the frame's":    {with(0x81, 0, 0, 7), ten, ether.Offload{}, seen{with(0x81, 0, 0, 10, 0x81, 0, 0, 7), ether.Offload{}}},
		"the frame's own tag is kept": {with(0x81, 0, 0, 7), none, ether.Offload{}, seen{with(0x81, 0, 0, 7), ether.Offload{}}},
	} {
		before := bytes.Clone(c.frame)
		if err := out.WriteTagged(c.frame, c.tag, c.o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := far.sees(t, c.want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(c.frame, before) {
			t.Errorf("%s: the frame was changed", name)
		}
	}
	if err := out.WriteTagged([]byte{1, 2, 3}, ten, ether.Offload{}); !errors.Is(err, ether.ErrShort) {
		t.Errorf("three bytes: %v", err)
	}
	tagged := with(0x81, 0, 0x60, 0)
	if n := testing.AllocsPerRun(100, func() { _ = out.WriteTagged(tagged, ten, at(38)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	// Whoever writes afterwards has the whole frame again.
	if err := out.Write(plain, at(34)); err != nil {
		t.Error(err)
	}
	if err := far.sees(t, seen{plain, at(34)}); err != nil {
		t.Error(err)
	}
}

// The host answers nothing of what the NIC receives, though it would without a wire; what it sends there itself leaves.
func TestWireIsNotTheHosts(t *testing.T) {
	s := newSite(t)
	if _, err := s.lab.Cable(lab.Plug{On: s.gate, Name: "up0", Addrs: []string{"192.0.2.1/24"}}, lab.Plug{On: s.other, Name: "y"}); err != nil {
		t.Fatal(err)
	}
	far := newFar(t, s.cable.B)
	who := seen{ethernet(t, "0806 0001 0800 06 04 0001 020000000001 c0000209 000000000000 c0000201"), ether.Offload{}}
	answered := func() bool {
		far.send(t, who.frame, ether.Offload{})
		for end := time.Now().Add(time.Second); time.Now().Before(end); {
			if got, ok := far.receive(t); ok && bytes.HasPrefix(got.frame, []byte{2, 0, 0, 0, 0, 1}) && got.frame[13] == 6 {
				return true
			}
		}
		return false
	}
	s.run(t, "ip", "route", "add", "192.0.2.9/32", "dev", "up0") // so that it is asked on the wrong side
	s.run(t, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.lan0.rp_filter=0", "net.ipv4.conf.lan0.arp_filter=0")
	if !answered() {
		t.Fatal("without a wire the host does not answer either, so that this proves nothing")
	}
	w := s.wire(t)
	in := read(w)
	if answered() {
		t.Error("the host answers frames of a NIC that a wire has taken")
	}
	if err := in.sees(who); err != nil {
		t.Error(err)
	}
	own := newFar(t, s.cable.A)
	hello := long(t, "abcd 02", 60)
	own.send(t, hello, ether.Offload{})
	if err := far.sees(t, seen{hello, ether.Offload{}}); err != nil {
		t.Errorf("what the host sends on the NIC: %v", err)
	}
	for path, want := range map[string]string{"ipv6/conf/wire0/disable_ipv6": "1", "ipv4/conf/wire0/arp_ignore": "1"} {
		on(t, s.gate, func() error {
			got, err := os.ReadFile("/proc/sys/net/" + path)
			if err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("%s = %q, %v", path, got, err)
			}
			return nil
		})
	}
	addrs, err := w.tap.Addresses()
	if err != nil || len(addrs) > 0 {
		t.Errorf("the TAP has addresses %v, %v", addrs, err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if !answered() {
		t.Error("the host does not have its NIC back after Close")
	}
}

// The TAP lets super-frames be as long as the kernel lets them be.
func TestWireKeepsTheKernelsSuperFrames(t *testing.T) {
	s := newSite(t)
	s.wire(t)
	on(t, s.gate, func() error {
		nic, err := netlink.LinkByName("lan0")
		if err != nil {
			return err
		}
		tap, err := netlink.LinkByName("wire0")
		if err != nil {
			return err
		}
		if tap.Attrs().GSOMaxSize != nic.Attrs().GSOMaxSize || tap.Attrs().GSOMaxSize < 65536 {
			t.Errorf("super-frames of %d bytes; the NIC's have %d", tap.Attrs().GSOMaxSize, nic.Attrs().GSOMaxSize)
		}
		return nil
	})
}

// An offload that joins frames for good is off while the NIC is a wire's, and is on again afterwards. A veth has no LRO; another flag
// stands for it.
func TestWireSwitchesOffloadsOff(t *testing.T) {
	s := newSite(t)
	const flagTXVLAN = 1 << 7
	before := s.state(t, "lan0")
	if !strings.Contains(before, "tx-vlan-offload: on") {
		t.Fatal(before)
	}
	on(t, s.gate, func() error {
		w, err := newWire(s.config(), flagTXVLAN|flagLRO)
		if err != nil {
			return err
		}
		e := ethtoolFlags{w.sock, "lan0"}
		if flags, err := e.on(flagTXVLAN); flags != 0 || err != nil {
			t.Errorf("while it is taken: %#x, %v", flags, err)
		}
		if _, err := (ethtoolFlags{w.sock, "none0"}).on(flagLRO); err == nil {
			t.Error("a device that does not exist has flags")
		}
		if err := (ethtoolFlags{w.sock, "none0"}).set(flagLRO, false); err == nil {
			t.Error("a device that does not exist takes flags")
		}
		return w.Close()
	})
	if after := s.state(t, "lan0"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	// What has none is none the worse.
	on(t, s.gate, func() error {
		w, err := NewWire(s.config())
		if err != nil {
			return err
		}
		if w.held.Flags != 0 {
			t.Errorf("a veth has flags %#x", w.held.Flags)
		}
		return w.Close()
	})
}
