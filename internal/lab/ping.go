package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// Echo says how to ping.
type Echo struct {
	Count        int             // requests; 0: 1
	Interval     time.Duration   // between requests; 0: 100 ms
	Wait         time.Duration   // for replies after the last request; 0: 1 s
	Size         int             // bytes of payload, at least 8; the packet has 28 more, or 48 with IPv6
	DontFragment bool            // neither here nor on the way; a request longer than the link's MTU counts as lost
	Stop         <-chan struct{} // when it is closed, one more request is the last; nil: all are sent
}

// Replies is what came of a ping.
type Replies struct {
	Sent     int
	Received int             // requests answered
	Extra    int             // answers beyond the first to the same request
	First    time.Duration   // from the first request to the first reply
	RTT      []time.Duration // of each first answer, in order of arrival
}

// Ping sends ICMP echo requests from the host to an IPv4 or IPv6 address, and returns when all are answered or the
// wait is over. No reply is not an error.
func (h *Host) Ping(ctx context.Context, addr string, e Echo) (Replies, error) {
	to, err := netip.ParseAddr(addr)
	if err != nil {
		return Replies{}, err
	}
	e.Count, e.Size = max(e.Count, 1), max(e.Size, 8)
	if e.Interval == 0 {
		e.Interval = 100 * time.Millisecond
	}
	if e.Wait == 0 {
		e.Wait = time.Second
	}
	var conn net.PacketConn
	err = h.Do(func() (err error) {
		conn, err = listenEcho(to, e.DontFragment)
		return err
	})
	if err != nil {
		return Replies{}, fmt.Errorf("ping from %s: %w", h.name, err)
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	p := pinger{Echo: e, conn: conn, to: to, id: rand.Uint32(), sent: make([]time.Time, e.Count), got: make([]bool, e.Count)}
	if err := p.run(); ctx.Err() == nil && err != nil {
		return p.replies, fmt.Errorf("ping from %s: %w", h.name, err)
	}
	return p.replies, ctx.Err()
}

// WaitPing pings an address ten times a second until it answers, and returns how long that took. It is an error if
// the context ends first.
func (h *Host) WaitPing(ctx context.Context, addr string) (time.Duration, error) {
	start := time.Now()
	for {
		r, err := h.Ping(ctx, addr, Echo{Wait: 100 * time.Millisecond})
		switch {
		case err == nil && r.Received > 0:
			return time.Since(start), nil
		case ctx.Err() != nil:
			return 0, fmt.Errorf("%s does not answer %s: %w", addr, h.name, ctx.Err())
		case err != nil && !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH):
			return 0, err
		}
	}
}

// listenEcho opens a raw socket in the calling thread's network.
func listenEcho(to netip.Addr, dontFragment bool) (net.PacketConn, error) {
	network, level, option := "ip4:icmp", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER
	if to.Is6() {
		network, level, option = "ip6:ipv6-icmp", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
	}
	mode := unix.IP_PMTUDISC_DONT
	if dontFragment {
		mode = unix.IP_PMTUDISC_PROBE // DF set, and what routers said before is not believed (ip(7))
	}
	packets, err := net.ListenPacket(network, unspecified(to).String())
	if err != nil {
		return nil, err
	}
	conn, ok := packets.(*net.IPConn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) { setErr = unix.SetsockoptInt(int(fd), level, option, mode) })
	if err := errors.Join(err, setErr); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// pinger is one ping under way. A request's payload begins with its id and its number.
type pinger struct {
	Echo
	conn    net.PacketConn
	to      netip.Addr
	id      uint32
	sent    []time.Time
	got     []bool
	replies Replies
}

func (p *pinger) run() error {
	for n := range p.Count {
		p.sent[n] = time.Now()
		p.replies.Sent++
		_, err := p.conn.WriteTo(p.request(n), &net.IPAddr{IP: p.to.AsSlice()})
		if err != nil && !errors.Is(err, unix.EMSGSIZE) {
			return err
		}
		wait, last := p.Interval, n == p.Count-1 || p.stopped()
		if last {
			wait = p.Wait
		}
		if err := p.receive(p.sent[n].Add(wait), last); err != nil || last {
			return err
		}
	}
	return nil
}

func (p *pinger) stopped() bool {
	select {
	case <-p.Stop:
		return true
	default:
		return false
	}
}

func (p *pinger) request(n int) []byte {
	payload := make([]byte, p.Size)
	binary.BigEndian.PutUint32(payload, p.id)
	binary.BigEndian.PutUint32(payload[4:], uint32(n))
	m := icmp.Message{
		Type: ipv4.ICMPTypeEcho,
		Body: &icmp.Echo{ID: int(p.id & 0xffff), Seq: n & 0xffff, Data: payload},
	}
	if p.to.Is6() {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	b, err := m.Marshal(nil) // ICMPv6: the kernel fills in the checksum (RFC 3542 section 3.1)
	if err != nil {
		panic(err) // an echo request always marshals
	}
	return b
}

// receive takes replies until a time, or, of the last request, until all have come.
func (p *pinger) receive(until time.Time, last bool) error {
	if err := p.conn.SetReadDeadline(until); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	for !last || p.replies.Received < p.replies.Sent {
		n, from, err := p.conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		p.take(buf[:n], from)
	}
	return nil
}

// take counts a packet if it is a reply to one of the requests.
func (p *pinger) take(b []byte, from net.Addr) {
	now := time.Now()
	protocol, want := unix.IPPROTO_ICMP, icmp.Type(ipv4.ICMPTypeEchoReply)
	if p.to.Is6() {
		protocol, want = unix.IPPROTO_ICMPV6, ipv6.ICMPTypeEchoReply
	}
	m, err := icmp.ParseMessage(protocol, b)
	if err != nil || m.Type != want {
		return
	}
	echo, ok := m.Body.(*icmp.Echo)
	sender, isIP := from.(*net.IPAddr)
	if !ok || !isIP || len(echo.Data) != p.Size || binary.BigEndian.Uint32(echo.Data) != p.id {
		return
	}
	n := int(binary.BigEndian.Uint32(echo.Data[4:]))
	if n >= p.replies.Sent || !sender.IP.Equal(p.to.AsSlice()) {
		return
	}
	if p.got[n] {
		p.replies.Extra++
		return
	}
	p.got[n] = true
	p.replies.Received++
	if p.replies.Received == 1 {
		p.replies.First = now.Sub(p.sent[0])
	}
	p.replies.RTT = append(p.replies.RTT, now.Sub(p.sent[n]))
}
