package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// A host that takes and gives only whole frames, and one that takes and gives what its kernel grants, understand each other:
// what one leaves undone is done for the other.
func TestWithoutOffload(t *testing.T) {
	r := newRig(t)
	start := func(name string, args ...string) *world.Node {
		s, err := r.Site(name, lab.PortPreserving)
		r.ok(err)
		n, err := s.Node(name)
		r.ok(err)
		r.ok(n.Join(r.ctx, "--label", "team=x"))
		r.ok(n.Start(r.ctx, append([]string{"--log-level", "debug"}, args...)...))
		return n
	}
	a, b := start("a", "--tap-offload", "off"), start("b", "--tap-queues", "2")
	_, err := r.Grant(r.ctx, "label:team=x", "segment:lan")
	r.ok(err)
	addr := r.addresses(a, b)
	r.pings(a.Host, addr[1], 10*time.Second)
	r.awaitPath(a, "b", "direct", 20*time.Second)
	r.offloads(a, b)

	r.transfer(a, b, addr[1])
	r.transfer(b, a, addr[0])
	if p := r.local(a).Stats; p.RxOctets > 1514*p.RxFrames {
		t.Errorf("the host without offloads gives super-frames: %+v", p)
	}
	for _, version := range []int{4, 6} {
		from, to := r.address(a, version), r.address(b, version)
		for _, size := range []int{64, 1000, 1472 - 10*(version-4)} {
			r.bursts(a, b, from, to, size, false)
			r.bursts(b, a, to, from, size, false)
			before := r.local(b)
			r.bursts(b, a, to, from, size, true)
			if n := r.local(b).Stats.RxFrames - before.Stats.RxFrames; slices.Contains(before.Offloads, "uso") && n >= burst {
				t.Errorf("what was sent in one call came as %d frames", n)
			}
		}
	}
}

// offloads checks what is told about the TAPs.
func (r *rig) offloads(a, b *world.Node) {
	r.Helper()
	if p := r.local(a); p.Offloads == nil || len(p.Offloads) != 0 || p.Queues != 1 {
		r.Errorf("tap.offload is off: %+v", p)
	}
	p := r.local(b)
	if p.Queues != 2 {
		r.Errorf("tap.queues is 2: %+v", p)
	}
	for _, n := range []*world.Node{a, b} {
		var s node.Status
		r.ok(n.Ask(r.ctx, &s, "status"))
		told := slices.ContainsFunc(s.Problems, func(p node.Problem) bool { return strings.Contains(p.Text, "does not offer TAPs") })
		if want := n == b && len(p.Offloads) < 3; told != want {
			r.Errorf("%s is told what its kernel lacks: %t, want %t: %+v", n.Name, told, want, s.Problems)
		}
	}
	out, err := b.Loom(r.ctx, "ports")
	r.ok(err)
	if !strings.Contains(out, "QUEUES") || !strings.Contains(out, strings.Join(p.Offloads, " ")) {
		r.Errorf("ports says\n%s", out)
	}
}

// address is a node's address on its TAP.
func (r *rig) address(n *world.Node, version int) netip.Addr {
	r.Helper()
	for _, s := range r.local(n).Addresses {
		p := netip.MustParsePrefix(s)
		if p.Addr().Is4() == (version == 4) && !p.Addr().IsLinkLocalUnicast() {
			return p.Addr()
		}
	}
	r.Fatalf("%s has no IPv%d address: %v", n.Name, version, r.local(n).Addresses)
	return netip.Addr{}
}

// transfer sends bytes by TCP, and compares all of them.
func (r *rig) transfer(from, to *world.Node, addr string) {
	r.Helper()
	data := make([]byte, 8<<20)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(data)
	ln, err := to.Host.Listen(r.ctx, "tcp4", addr+":9000")
	r.ok(err)
	defer ln.Close()
	conn, err := from.Host.Dial(r.ctx, "tcp4", addr+":9000")
	r.ok(err)
	defer conn.Close()
	in, err := ln.Accept()
	r.ok(err)
	defer in.Close()
	_ = in.SetDeadline(time.Now().Add(time.Minute))
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(data)
		sent <- errors.Join(err, conn.Close())
	}()
	got, err := io.ReadAll(in)
	r.ok(err)
	r.ok(<-sent)
	if !bytes.Equal(got, data) {
		r.Errorf("from %s to %s: %d of %d bytes arrived, or others: %x", from.Name, to.Name, len(got), len(data), sha256.Sum256(got))
	}
}

// bursts sends datagrams, in one call or in many, and expects them one by one and in order. A burst of which one is
// lost, as datagrams may be, is sent again.
func (r *rig) bursts(from, to *world.Node, src, dst netip.Addr, size int, segment bool) {
	r.Helper()
	listen := func(n *world.Node, a netip.Addr) *net.UDPConn {
		conn, err := n.Host.ListenPacket(r.ctx, "udp", netip.AddrPortFrom(a, 9001).String())
		r.ok(err)
		return conn.(*net.UDPConn)
	}
	out, in := listen(from, src), listen(to, dst)
	defer out.Close()
	defer in.Close()
	var why error
	for range 3 {
		r.ok(sendAll(out, netip.AddrPortFrom(dst, 9001), size, segment))
		if why = receiveAll(in, netip.AddrPortFrom(src, 9001), size); why == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
		_ = in.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		for buf := make([]byte, 2000); ; {
			if _, _, err := in.ReadFromUDPAddrPort(buf); err != nil {
				break
			}
		}
	}
	r.Errorf("from %s (%v) to %s, %d bytes each, in one call %t: %v", from.Name, src, to.Name, size, segment, why)
}

const burst = 32

func datagram(i, size int) []byte {
	b := bytes.Repeat([]byte{byte(i)}, size)
	binary.BigEndian.PutUint32(b, uint32(i))
	return b
}

func sendAll(conn *net.UDPConn, to netip.AddrPort, size int, segment bool) error {
	if !segment {
		for i := range burst {
			if _, err := conn.WriteToUDPAddrPort(datagram(i, size), to); err != nil {
				return err
			}
		}
		return nil
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = unix.SetsockoptInt(int(fd), syscall.IPPROTO_UDP, unix.UDP_SEGMENT, size) })
	if err = errors.Join(err, inner); err != nil {
		return err
	}
	var all []byte
	for i := range burst {
		all = append(all, datagram(i, size)...)
	}
	_, err = conn.WriteToUDPAddrPort(all, to)
	return err
}

func receiveAll(conn *net.UDPConn, from netip.AddrPort, size int) error {
	buf := make([]byte, 65536)
	for i := range burst {
		_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, source, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return fmt.Errorf("datagram %d: %w", i, err)
		}
		if source != from || !bytes.Equal(buf[:n], datagram(i, size)) {
			return fmt.Errorf("datagram %d: %d bytes from %v, beginning with %x", i, n, source, buf[:min(n, 8)])
		}
	}
	return nil
}
