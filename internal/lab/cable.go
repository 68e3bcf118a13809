package lab

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
)

// Plug says where one end of a cable goes.
type Plug struct {
	On    *Host
	Name  string   // of the interface, at most 15 bytes; empty on a bridge: p1, p2, …
	Addrs []string // addresses with prefix length, 10.1.0.2/24
	MTU   int      // 0: 1500
	MAC   string   // empty: the kernel chooses one
}

// settlePatience is how long a cable may take until it can be used.
const settlePatience = 5 * time.Second

// Cable joins two hosts. A and B are its ends.
type Cable struct {
	A, B *Link

	delay *delayLine // of a ShapedCable
}

// Cable connects two hosts, or a host and a bridge, by a veth pair. Both ends are up when it returns.
func (l *Lab) Cable(a, b Plug) (*Cable, error) {
	c := newCable(&a, &b)
	hw, err := hardware(a, b)
	if err != nil {
		return nil, err
	}
	err = b.On.ns.withNet(func(fd int) error {
		return a.On.thread.call(func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.MTU, attrs.HardwareAddr = a.Name, a.MTU, hw[0]
			veth := netlink.NewVeth(attrs)
			veth.PeerName, veth.PeerMTU, veth.PeerHardwareAddr = b.Name, uint32(b.MTU), hw[1]
			veth.PeerNamespace = netlink.NsFd(fd)
			return netlink.LinkAdd(veth)
		})
	})
	if err != nil {
		return nil, fmt.Errorf("lay a cable from %s to %s: %w", c.A, c.B, err)
	}
	return c.finish(a, b)
}

// newCable fills in what the plugs leave open.
func newCable(a, b *Plug) *Cable {
	for _, p := range []*Plug{a, b} {
		if p.Name == "" && p.On.bridge {
			p.Name = fmt.Sprintf("p%d", p.On.next())
		}
		if p.MTU == 0 {
			p.MTU = 1500
		}
	}
	c := &Cable{A: &Link{host: a.On, name: a.Name}, B: &Link{host: b.On, name: b.Name}}
	c.A.peer, c.B.peer = c.B, c.A
	c.A.cable, c.B.cable = c, c
	return c
}

func hardware(plugs ...Plug) ([]net.HardwareAddr, error) {
	out := make([]net.HardwareAddr, len(plugs))
	for i, p := range plugs {
		if p.MAC == "" {
			continue
		}
		mac, err := net.ParseMAC(p.MAC)
		if err != nil {
			return nil, err
		}
		out[i] = mac
	}
	return out, nil
}

// finish configures both ends of a cable whose interfaces exist, or removes it.
func (c *Cable) finish(a, b Plug) (*Cable, error) {
	err := errors.Join(c.A.configure(a), c.B.configure(b))
	if err == nil {
		err = c.settle()
	}
	if err != nil {
		return nil, errors.Join(err, c.Remove())
	}
	return c, nil
}

// settle waits until both ends can be used, if both are up. Before the kernels have noticed the carrier, a bridge does
// not forward and IPv6 does not send. An address is tentative, although detection is off, until a work queue has
// joined its solicited-node group; what asks for it before waits a second for the next solicitation.
func (c *Cable) settle() error {
	for deadline := time.Now().Add(settlePatience); ; time.Sleep(time.Millisecond) {
		readyA, upA, errA := c.A.isReady()
		readyB, upB, errB := c.B.isReady()
		if err := errors.Join(errA, errB); err != nil || !upA || !upB || readyA && readyB {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the cable from %s to %s does not come up", c.A, c.B)
		}
	}
}

// Remove takes the cable away: both interfaces vanish, with their addresses and routes.
func (c *Cable) Remove() error {
	if c.delay != nil {
		c.delay.stop() // the TAPs go with the files that hold them
		return nil
	}
	return c.A.do(func(link netlink.Link) error { return netlink.LinkDel(link) })
}

// Join lays a cable from the host to a bridge and returns the host's end of it.
func (h *Host) Join(bridge *Host, name string, addrs ...string) (*Link, error) {
	c, err := h.lab.Cable(Plug{On: h, Name: name, Addrs: addrs}, Plug{On: bridge})
	if err != nil {
		return nil, err
	}
	return c.A, nil
}
