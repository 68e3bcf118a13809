package preflight

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pion/stun"
	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/transport/relay"
)

// datagrams makes the checks that need UDP.
func (f *flight) datagrams(ctx context.Context) {
	names := []string{"udp", "nat", "mtu"}
	if len(f.addrs) == 0 {
		f.skip("the name has no address", names...)
		return
	}
	var first error
	for _, a := range f.addrs {
		p, err := newProbe(ctx, a, f.cfg.UDP)
		if err == nil {
			var seen netip.AddrPort
			if seen, err = p.ask(f.cfg.UDP, 0); err == nil {
				f.results = append(f.results, Result{
					Check: "udp", Verdict: OK, Found: fmt.Sprintf("%v answers, and sees us as %v", p.server(f.cfg.UDP), seen),
				})
				f.say("nat", func() Result { return p.nat(f.cfg.UDP, seen) })
				f.say("mtu", func() Result { return p.mtu(f.cfg.UDP) })
				p.close()
				return
			}
			p.close()
		}
		if first == nil {
			first = err
		}
	}
	f.results = append(f.results, Result{
		Check: "udp", Verdict: Failed, Found: fmt.Sprintf("UDP port %d: %v", f.cfg.UDP, first),
		Advice: "a firewall on the way must let UDP out; without it there is no path to any peer. " +
			"If the relay is elsewhere or on another port, say --udp",
	})
	f.skip("no UDP", names[1:]...)
}

// probe is one socket that asks the STUN ports of a relay.
type probe struct {
	conn *net.UDPConn
	addr netip.Addr
}

func newProbe(ctx context.Context, addr netip.Addr, port uint16) (*probe, error) {
	// The local address that a connected socket gets is the one from which the relay is reached.
	d, err := new(net.Dialer).DialContext(ctx, "udp", netip.AddrPortFrom(addr, port).String())
	if err != nil {
		return nil, err
	}
	local := d.LocalAddr().(*net.UDPAddr).AddrPort() //nolint:forcetypeassert // that of a UDP socket
	_ = d.Close()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local.Addr().Unmap(), 0)))
	if err != nil {
		return nil, err
	}
	return &probe{conn, addr}, nil
}

func (p *probe) close() { _ = p.conn.Close() }

func (p *probe) server(port uint16) netip.AddrPort { return netip.AddrPortFrom(p.addr, port) }

var errNoAnswer = errors.New("no answer")

// ask sends a binding request (RFC 8489) of at least size bytes a few times, and returns how the server sees us.
func (p *probe) ask(port uint16, size int) (netip.AddrPort, error) {
	req, err := stun.Build(stun.TransactionID, stun.BindingRequest)
	if err != nil {
		return netip.AddrPort{}, err
	}
	out := relay.Pad(req.Raw)
	out = append(out, make([]byte, max(0, size-len(out)))...)
	buf := make([]byte, 1500)
	for wait := 250 * time.Millisecond; wait <= 2*time.Second; wait *= 2 {
		if _, err := p.conn.WriteToUDPAddrPort(out, p.server(port)); err != nil {
			return netip.AddrPort{}, err
		}
		_ = p.conn.SetReadDeadline(time.Now().Add(wait))
		for {
			n, from, err := p.conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				break
			}
			m := &stun.Message{Raw: buf[:n]}
			var seen stun.XORMappedAddress
			if netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != p.server(port) || m.Decode() != nil ||
				m.TransactionID != req.TransactionID || seen.GetFrom(m) != nil {
				continue
			}
			ap := (&net.UDPAddr{IP: seen.IP, Port: seen.Port}).AddrPort()
			return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
		}
	}
	return netip.AddrPort{}, errNoAnswer
}

// nat compares what two ports of the relay see (RFC 5780 section 4.3, with one address).
func (p *probe) nat(port uint16, seen netip.AddrPort) Result {
	local := p.conn.LocalAddr().(*net.UDPAddr).AddrPort() //nolint:forcetypeassert // that of a UDP socket
	second, err := p.ask(port+1, 0)
	switch {
	case err != nil:
		return Result{
			Verdict: Warning, Found: fmt.Sprintf("UDP port %d does not answer, so that the NAT's kind is not known", port+1),
			Advice: fmt.Sprintf("let UDP port %d through to the relay", port+1),
		}
	case seen == local:
		return Result{Verdict: OK, Found: "no NAT"}
	case second != seen:
		return Result{
			Verdict: Warning, Found: fmt.Sprintf("symmetric: another destination sees %v", second),
			Advice: "direct paths are unlikely, peers are reached through the relay; a NAT that keeps its mapping (RFC 4787 REQ-1) would do better",
		}
	}
	return Result{Verdict: OK, Found: "the same mapping towards two destinations, so that direct paths are likely"}
}

// full is a datagram that fills a packet of 1500 bytes over IPv6, and nearly so over IPv4; in bytes.
const full = 1500 - 40 - 8

// mtu sends a datagram of the size that ordinary links carry, unfragmented.
func (p *probe) mtu(port uint16) Result {
	raw, err := p.conn.SyscallConn()
	if err != nil {
		return Result{Verdict: Warning, Found: err.Error()}
	}
	_ = raw.Control(func(fd uintptr) { // one of the two does not fit the socket's family
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
	})
	if _, err := p.ask(port, full); err != nil {
		return Result{
			Verdict: Warning, Found: fmt.Sprintf("a datagram of %d bytes does not arrive in one piece: %v", full, err),
			Advice: "the way has an MTU below 1500; nodes find out what passes, and cut what does not, which costs some speed",
		}
	}
	return Result{Verdict: OK, Found: fmt.Sprintf("a datagram of %d bytes arrives in one piece", full)}
}
