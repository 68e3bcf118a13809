package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// aggregated is a VLAN with two gateways that carry it at once, a machine behind the site's link aggregation, and a node elsewhere that may
// begin flows with the machine, but not the machine with it.
type aggregated struct {
	*rig
	sw       *lab.VLANSwitch
	gateways []*world.Node
	nics     []*lab.Link
	far      *world.Node
	machine  *lab.Host
	addr, at string // the far node's address; the machine's

	atFar, atMachine *lab.Capture
	in, out          []*lab.Capture // at each gateway's NIC: from the VLAN; at the switch's port: to the VLAN
}

const (
	echoPort = 7000
	pushPort = 7001
)

// aggregation is what the site's switch has.
type aggregation string

const (
	none   aggregation = "none"
	static aggregation = "static"
	byLACP aggregation = "LACP"
	apart  aggregation = "LACP, one for each gateway"
)

// newAggregated builds it, with a link aggregation or with a switch that has none.
func newAggregated(t *testing.T, has aggregation) *aggregated {
	t.Helper()
	a := &aggregated{rig: newRigFor(t, 10*time.Minute)}
	a.sw = a.vlanSwitch("site")
	for i, name := range []string{"gw1", "gw2"} {
		n := a.site(name, lab.PortPreserving, "--role", "gateway")
		a.nics = append(a.nics, a.trunk(a.sw, n.Host, "lan", 10))
		a.gateways = append(a.gateways, n)
		args := []string{"attachment", "add", name + "/lan", "--nic", "lan", "--vlan", "10"}
		if i == 0 {
			args = append(args, "--segment", "lan", "--redundancy", "all-active")
			if has == byLACP || has == apart {
				args = append(args, "--lacp", "on")
			}
		} else {
			args = append(args, "--with", "gw1/lan")
		}
		_, err := a.Admin(a.ctx, args...)
		a.ok(err)
	}
	var err error
	a.machine, err = a.Lab.AddHost("server")
	a.ok(err)
	cable, err := a.sw.Access(a.ctx, lab.Plug{On: a.machine, Name: "eth0"}, 10)
	a.ok(err)
	switch has {
	case static:
		a.ok(a.sw.Aggregate(a.ctx, cable, 10, a.nics...))
	case byLACP:
		a.ok(a.sw.Bond(a.ctx, "lag", 10, a.nics...))
	case apart: // of two cables each, for Open vSwitch does not aggregate one
		for i, n := range a.gateways {
			spare := a.trunk(a.sw, n.Host, "spare", 10)
			a.ok(a.sw.Bond(a.ctx, fmt.Sprint("lag", i), 10, a.nics[i], spare))
		}
	case none:
	}
	a.far = a.site("far", lab.PortPreserving)
	_, err = a.Grant(a.ctx, "node:far", "segment:lan", "--allow", fmt.Sprint("udp:", echoPort), "--allow", fmt.Sprint("tcp:", pushPort), "--allow", "icmp",
		"--allow", fmt.Sprintf("ethertype:0x%04x", lab.Experimental))
	a.ok(err)
	_, err = a.Grant(a.ctx, "attachment:gw1/lan", "segment:lan", "--allow", fmt.Sprintf("ethertype:0x%04x", lab.Experimental))
	a.ok(err)
	a.addr = a.addresses(a.far)[0]
	at := netip.MustParseAddr(a.addr).As4()
	at[3] = 200
	a.at = netip.AddrFrom4(at).String()
	a.ok(cable.AddAddr(a.at + "/20"))
	a.atFar, a.atMachine = a.arrivals(a.far.Host, "loom0"), a.arrivals(a.machine, "eth0")
	return a
}

// state is what a gateway says of its port; nil if it does not answer.
func (a *aggregated) state(i int) *node.PortForwarder {
	var p node.PortDetail
	if a.gateways[i].Ask(a.ctx, &p, "port", "show", "lan") != nil {
		return nil
	}
	return p.Forwarder
}

// both waits until both gateways carry the VLAN, and know it of each other.
func (a *aggregated) both(within time.Duration) {
	a.Helper()
	a.await("both gateways carry the VLAN", within, func() bool {
		for i := range a.gateways {
			if f := a.state(i); f == nil || !f.Together || !slices.Equal(f.Carriers, []string{"gw1", "gw2"}) {
				return false
			}
		}
		return true
	})
}

// observe captures at the gateways' ports.
func (a *aggregated) observe() {
	a.Helper()
	for _, nic := range a.nics {
		in, err := nic.Host().CaptureArrivals(nic.Name())
		a.ok(err)
		out, err := a.sw.Host().CaptureArrivals(nic.Peer().Name())
		a.ok(err)
		a.in, a.out = append(a.in, in), append(a.out, out)
	}
}

// flowsAt lists the far node's ports of UDP flows of which a capture has seen frames since a time.
func (a *aggregated) flowsAt(c *lab.Capture, since time.Time) map[uint16]bool {
	a.Helper()
	out := map[uint16]bool{}
	a.ok(c.EachAt(func(frame []byte, at time.Time) bool {
		const head = 14 + 4 + 20 // Ethernet, tag, IPv4
		if at.After(since) && len(frame) >= head+8 && frame[16] == 8 && frame[17] == 0 && frame[18+9] == 17 {
			from, to := binary.BigEndian.Uint16(frame[head:]), binary.BigEndian.Uint16(frame[head+2:])
			if to == echoPort {
				out[from] = true
			} else if from == echoPort {
				out[to] = true
			}
		}
		return true
	}))
	return out
}

// exchange is a UDP flow of which each datagram is answered.
type exchange struct {
	port uint16

	mu       sync.Mutex
	answered []time.Time
	sent     int
}

// exchanges begins flows from the far node to the machine, and goes on until the context ends.
func (a *aggregated) exchanges(ctx context.Context, count int, every time.Duration) (list []*exchange) {
	a.Helper()
	server, err := a.machine.ListenPacket(a.ctx, "udp4", fmt.Sprint("0.0.0.0:", echoPort))
	a.ok(err)
	a.Cleanup(func() { _ = server.Close() })
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(b[:n], from)
		}
	}()
	for i := range count {
		conn, err := a.far.Host.Dial(a.ctx, "udp4", fmt.Sprint(a.at, ":", echoPort))
		a.ok(err)
		x := &exchange{port: uint16(conn.LocalAddr().(*net.UDPAddr).Port)}
		list = append(list, x)
		go x.send(ctx, conn, every, every*time.Duration(i)/time.Duration(count))
		go x.receive(conn)
	}
	return list
}

func (x *exchange) send(ctx context.Context, conn net.Conn, every, first time.Duration) {
	defer conn.Close()
	time.Sleep(first)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		_, _ = conn.Write([]byte("one datagram of a flow, which is answered"))
		x.mu.Lock()
		x.sent++
		x.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (x *exchange) receive(conn net.Conn) {
	b := make([]byte, 2048)
	for {
		if _, err := conn.Read(b); err != nil {
			return
		}
		x.mu.Lock()
		x.answered = append(x.answered, time.Now())
		x.mu.Unlock()
	}
}

// silence is the longest time without an answer that ended after a moment, up to now.
func (x *exchange) silence(since time.Time) (longest time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	last := since
	for _, at := range append(slices.Clone(x.answered), time.Now()) {
		if at.After(since) {
			longest = max(longest, at.Sub(last))
		}
		last = later(last, at)
	}
	return longest
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// worst is the longest silence of several flows, and of how many it was longer than a second.
func worst(list []*exchange, since time.Time) (longest time.Duration, late int) {
	for _, x := range list {
		d := x.silence(since)
		longest = max(longest, d)
		if d > time.Second {
			late++
		}
	}
	return longest, late
}

// push is a TCP connection from the far node over which the machine sends all the time, and the far node nothing.
func (a *aggregated) pushes(ctx context.Context, count int) (list []*exchange) {
	a.Helper()
	ln, err := a.machine.Listen(a.ctx, "tcp4", fmt.Sprint("0.0.0.0:", pushPort))
	a.ok(err)
	a.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for ctx.Err() == nil {
					if _, err := conn.Write(make([]byte, 500)); err != nil {
						return
					}
					time.Sleep(50 * time.Millisecond)
				}
			}()
		}
	}()
	for range count {
		conn, err := a.far.Host.Dial(a.ctx, "tcp4", fmt.Sprint(a.at, ":", pushPort))
		a.ok(err)
		x := &exchange{}
		list = append(list, x)
		a.Cleanup(func() { _ = conn.Close() })
		go x.receive(conn)
	}
	return list
}

// All-active where the switch has no aggregation: the gateways find out, say so, and one of them carries the VLAN, each frame once.
func TestNoAggregation(t *testing.T) {
	a := newAggregated(t, none)
	for i, n := range a.gateways {
		a.await(n.Name+" says that there is no aggregation", 20*time.Second, func() bool {
			var s node.Status
			return n.Ask(a.ctx, &s, "status") == nil && slices.ContainsFunc(s.Problems, func(p node.Problem) bool {
				return strings.Contains(p.Text, "no link aggregation") && strings.Contains(p.Text, "--redundancy single-active")
			}) && !a.state(i).Together
		})
	}
	a.await("one gateway forwards", 20*time.Second, func() bool {
		n := 0
		for i := range a.gateways {
			if f := a.state(i); f != nil && f.Phase == "forwards" {
				n++
			}
		}
		return n == 1
	})
	a.broadcasts("without aggregation", 300)
}

// broadcasts sends trains for all both ways: each frame comes once at the other end, and none comes back.
func (a *aggregated) broadcasts(what string, count int) {
	a.Helper()
	a.Log(what)
	up := lab.Ethernet(lab.Broadcast(), a.macOn(a.machine, "eth0"), lab.Experimental)
	down := lab.Ethernet(lab.Broadcast(), a.macOn(a.far.Host, "loom0"), lab.Experimental)
	for _, way := range []struct {
		from     *lab.Host
		dev      string
		head     []byte
		to, back *lab.Capture
	}{{a.machine, "eth0", up, a.atFar, a.atMachine}, {a.far.Host, "loom0", down, a.atMachine, a.atFar}} {
		// A gateway that is not given the processor for the time of its lease lets it go; then some are missing, but none comes twice.
		a.await("a train arrives whole", time.Minute, func() bool {
			train := lab.NewTrain(way.head, count, 2*time.Millisecond)
			_, err := way.from.SendTrain(a.ctx, way.dev, train)
			a.ok(err)
			got, err := way.to.AwaitTrain(a.ctx, train, way.head, quiet)
			a.ok(err)
			echoes, err := way.back.Train(train, way.head)
			a.ok(err)
			if got.Extra != 0 || got.Changed != 0 || echoes.Whole != 0 {
				a.Fatalf("%s: of %d frames %d came, with %d further copies and %d changed, and %d came back", what, count, got.Whole, got.Extra, got.Changed, echoes.Whole)
			}
			return got.Whole == count
		})
	}
}
