package lab

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"
)

// UDPAnswer is a datagram that came back for a probe.
type UDPAnswer struct {
	From    netip.AddrPort
	Payload []byte
}

// ProbeUDP sends the payload from the host to each of the ports of an address, twice, half of wait apart, and returns
// what came back until wait after the first round, one answer per sender. ICMP errors are no answers.
func (h *Host) ProbeUDP(ctx context.Context, addr string, ports []uint16, payload []byte, wait time.Duration) (
	[]UDPAnswer, error,
) {
	to, err := netip.ParseAddr(addr)
	if err != nil {
		return nil, err
	}
	packets, err := h.ListenPacket(ctx, "udp", net.JoinHostPort(unspecified(to).String(), "0"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = packets.Close() }()
	conn, ok := packets.(*net.UDPConn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	a := answers{conn: conn, seen: map[netip.AddrPort]bool{}}
	for range 2 { // packets to a neighbour that is not yet resolved are lost: so again
		for i, port := range ports {
			if _, err := conn.WriteToUDPAddrPort(payload, netip.AddrPortFrom(to, port)); err != nil {
				return a.got, err
			}
			if i%64 == 63 {
				if err := a.receive(ctx, time.Now().Add(time.Microsecond)); err != nil {
					return a.got, err
				}
			}
		}
		if err := a.receive(ctx, time.Now().Add(wait/2)); err != nil {
			return a.got, err
		}
	}
	return a.got, nil
}

// answers collects what a socket receives.
type answers struct {
	conn *net.UDPConn
	seen map[netip.AddrPort]bool
	got  []UDPAnswer
}

func (a *answers) receive(ctx context.Context, until time.Time) error {
	defer context.AfterFunc(ctx, func() { _ = a.conn.SetReadDeadline(time.Unix(1, 0)) })()
	if err := a.conn.SetReadDeadline(until); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	for {
		n, from, err := a.conn.ReadFromUDPAddrPort(buf)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if !a.seen[from] {
			a.seen[from] = true
			a.got = append(a.got, UDPAnswer{From: from, Payload: append([]byte(nil), buf[:n]...)})
		}
	}
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
