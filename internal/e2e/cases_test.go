package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// The conformance cases over real gateways (docs/conformance.md). Several share a network; each is a subtest of the case's number.

// unlimited lets whoever tests send as fast as it likes.
func unlimited() []string {
	return []string{"--limits-broadcast", "0", "--limits-multicast", "0", "--limits-control", "0", "--limits-joins", "0"}
}

// cases is a network of two sites around which cases are tested.
type cases struct{ *bridged }

func newCases(t *testing.T, run ...string) *cases {
	t.Helper()
	c := &cases{newBridged(t, 1500)}
	for _, n := range []*world.Node{c.office, c.plant} {
		c.again(n, append(unlimited(), run...)...)
	}
	return c
}

// again starts a node with other settings.
func (r *rig) again(n *world.Node, run ...string) {
	r.Helper()
	r.ok(n.Stop())
	r.ok(n.Start(r.ctx, run...))
}

// run runs a case.
func (c *cases) run(name string, f func(c *cases)) {
	c.Run(name, func(t *testing.T) {
		b := *c.bridged
		b.rig = &rig{t, c.World, c.ctx}
		f(&cases{&b})
	})
}

// bare lays a cable from a machine of its own straight to a NIC of a gateway: no switch is between, so that every frame comes as it is.
func (c *cases) bare(n *world.Node, nic string) *lab.Host {
	c.Helper()
	h, err := c.Lab.AddHost(n.Name + "-" + nic)
	c.ok(err)
	c.ok(h.Sysctl("net.ipv6.conf.default.disable_ipv6", "1"))
	cable, err := c.Lab.Cable(lab.Plug{On: h, Name: "eth0"}, lab.Plug{On: n.Host, Name: nic})
	c.ok(err)
	c.ok(cable.A.SetOffload(lab.NoOffload))
	return h
}

// joined attaches a NIC's VLAN as attach does, makes those behind it members, and waits until their port is up.
func (c *cases) joined(n *world.Node, port, segment, nic string, vlan uint16, more ...string) {
	c.Helper()
	c.attach(n.Name+"/"+port, segment, nic, vlan, more...)
	_, err := c.Grant(c.ctx, "attachment:"+n.Name+"/"+port, "segment:"+segment)
	c.ok(err)
	c.awaitPort(n, port)
}

// awaitPort waits until a gateway's port carries frames.
func (c *cases) awaitPort(n *world.Node, port string) {
	c.Helper()
	c.await(n.Name+"/"+port+" carries frames", 10*time.Second, func() bool {
		for _, p := range c.ports(n) {
			if p.Port == port && p.State == "on" {
				return true
			}
		}
		return false
	})
}

// warm waits until frames of a place come to another one.
func (c *cases) warm(from *lab.Host, dev string, head []byte, to *lab.Capture) {
	c.Helper()
	mark := newMark()
	c.await("frames of "+from.Name()+" arrive", 10*time.Second, func() bool {
		c.ok(from.SendFrames(dev, append(bytes.Clone(head), mark...)))
		time.Sleep(50 * time.Millisecond)
		found, err := to.Contains(mark)
		return err == nil && found
	})
}

// set sets attributes of a port.
func (c *cases) set(n *world.Node, port string, attributes ...string) {
	c.Helper()
	var detail node.PortDetail
	c.ok(n.Ask(c.ctx, &detail, append([]string{"port", "set", port}, attributes...)...))
}

// place is where frames of a case may come.
type place struct {
	name string
	*lab.Capture
}

func (c *cases) listen(h *lab.Host, dev string) place {
	c.Helper()
	return place{h.Name(), c.arrivals(h, dev)}
}

// markLen is how long the end of a sample is, by which it is known.
const markLen = 16

func newMark() []byte {
	b := append(make([]byte, 0, markLen), "CASE"...)
	b = binary.BigEndian.AppendUint64(b, rand.Uint64())
	return binary.BigEndian.AppendUint32(b, rand.Uint32())
}

// sample is a frame of a case, and what comes of it.
type sample struct {
	name string
	data []byte // it ends with a mark
	// How it comes to each place; nil: not at all.
	comes map[string][]byte
}

// sampleOf makes a sample of a head, up to the EtherType, and what follows. It comes to some places with that head, to others with
// one of their own.
func sampleOf(name string, head, body []byte, heads map[string][]byte) sample {
	tail := append(bytes.Clone(body), newMark()...)
	if pad := 60 - len(head) - len(tail); pad > 0 {
		tail = append(append(bytes.Clone(body), make([]byte, pad)...), tail[len(body):]...)
	}
	s := sample{name: name, data: append(bytes.Clone(head), tail...), comes: map[string][]byte{}}
	for at, h := range heads {
		s.comes[at] = append(bytes.Clone(h), tail...)
	}
	return s
}

// everywhere is the same head at several places.
func everywhere(head []byte, places ...place) map[string][]byte {
	heads := map[string][]byte{}
	for _, p := range places {
		heads[p.name] = head
	}
	return heads
}

// behave sends samples and checks that each comes exactly once where it shall, byte for byte, and in no form anywhere else.
func (c *cases) behave(from *lab.Host, dev string, samples []sample, places ...place) {
	c.Helper()
	for _, s := range samples {
		c.ok(from.SendFrames(dev, s.data))
		time.Sleep(200 * time.Microsecond)
	}
	time.Sleep(quiet)
	for _, p := range places {
		came := map[string][][]byte{}
		c.ok(p.Each(func(frame []byte) bool {
			if len(frame) >= markLen {
				mark := string(frame[len(frame)-markLen:])
				came[mark] = append(came[mark], bytes.Clone(frame))
			}
			return true
		}))
		for _, s := range samples {
			if err := s.judge(p.name, came[string(s.data[len(s.data)-markLen:])]); err != nil {
				c.Errorf("from %s: %v", from.Name(), err)
			}
		}
	}
}

func (s *sample) judge(at string, came [][]byte) error {
	want := s.comes[at]
	switch {
	case want == nil && len(came) > 0:
		return fmt.Errorf("%s comes to %s, %d times: %x", s.name, at, len(came), came[0])
	case want != nil && len(came) != 1:
		return fmt.Errorf("%s comes to %s %d times, want once", s.name, at, len(came))
	case want != nil && !bytes.Equal(came[0], want):
		return fmt.Errorf("%s comes to %s as\n%x, want\n%x", s.name, at, came[0], want)
	}
	return nil
}

// macOf is the address of a host's interface.
func (r *rig) macOf(h *lab.Host, dev string) net.HardwareAddr {
	r.Helper()
	m, err := net.ParseMAC(strings.TrimSpace(r.sh(h, "cat /sys/class/net/"+dev+"/address")))
	r.ok(err)
	return m
}

// unheard is a MAC that nobody has.
func unheard(n byte) net.HardwareAddr { return net.HardwareAddr{0x02, 0, 0, 0x4d, 0, n} }

// entries are what a node's forwarding database has of a MAC, one for each segment in which it is known.
func (r *rig) entries(n *world.Node, mac net.HardwareAddr) (found []node.FDBEntry) {
	r.Helper()
	for _, e := range r.fdb(n) {
		if e.MAC == mac.String() {
			found = append(found, e)
		}
	}
	return found
}

func (r *rig) fdb(n *world.Node) []node.FDBEntry {
	r.Helper()
	var list struct {
		FDB []node.FDBEntry `json:"fdb"`
	}
	r.ok(n.Ask(r.ctx, &list, "fdb"))
	return list.FDB
}
