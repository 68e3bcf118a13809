package transport

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/stun"
)

// iceMux lets every ICE agent share our own sockets. It implements pion's ice.UDPMux.
//
// A check from outside names the agent by the user fragment in its USERNAME. An answer names nobody, so the mux
// remembers which agent sent the request with its transaction id. Anything else is dropped without an answer.
type iceMux struct {
	unknown func(fragment string) // a check for an agent that does not exist

	mu      sync.Mutex
	sockets []*socketLoop
	conns   map[muxKey]*muxConn
	pending map[transaction]pendingCheck
}

var _ ice.UDPMux = (*iceMux)(nil)

type muxKey struct {
	fragment string
	socket   *socketLoop
}

type transaction [stun.TransactionIDSize]byte

type pendingCheck struct {
	done func(m *stun.Message, from netip.AddrPort)
	at   time.Time
}

const (
	checkLife   = 10 * time.Second // how long an answer is waited for
	maxPending  = 4096
	muxConnSize = 64 // datagrams that wait for an agent
)

func newICEMux(unknown func(string)) *iceMux {
	return &iceMux{unknown: unknown, conns: make(map[muxKey]*muxConn), pending: make(map[transaction]pendingCheck)}
}

func (m *iceMux) add(s *socketLoop) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sockets = append(m.sockets, s)
}

func (m *iceMux) remove(s *socketLoop) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.sockets {
		if m.sockets[i] == s {
			m.sockets = append(m.sockets[:i:i], m.sockets[i+1:]...)
			break
		}
	}
	for key, c := range m.conns {
		if key.socket == s {
			c.shut()
			delete(m.conns, key)
		}
	}
}

func (m *iceMux) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, c := range m.conns {
		c.shut()
		delete(m.conns, key)
	}
}

// inbound takes one datagram that may be STUN.
func (m *iceMux) inbound(s *socketLoop, b []byte, from netip.AddrPort) {
	if !stun.IsMessage(b) {
		return
	}
	msg := &stun.Message{Raw: append([]byte(nil), b...)}
	if err := msg.Decode(); err != nil || msg.Type.Method != stun.MethodBinding {
		return
	}
	switch msg.Type.Class {
	case stun.ClassRequest:
		m.check(s, msg, from)
	case stun.ClassSuccessResponse, stun.ClassErrorResponse:
		m.mu.Lock()
		p, ok := m.pending[msg.TransactionID]
		delete(m.pending, msg.TransactionID)
		m.mu.Unlock()
		if ok {
			p.done(msg, from)
		}
	case stun.ClassIndication:
	}
}

func (m *iceMux) check(s *socketLoop, msg *stun.Message, from netip.AddrPort) {
	user, err := msg.Get(stun.AttrUsername)
	if err != nil {
		return
	}
	// RFC 8445 section 7.2.2: the receiver's fragment, a colon, the sender's.
	fragment, _, ok := strings.Cut(string(user), ":")
	if !ok {
		return
	}
	m.mu.Lock()
	c := m.conns[muxKey{fragment, s}]
	m.mu.Unlock()
	if c == nil {
		m.unknown(fragment)
		return
	}
	c.push(msg.Raw, from)
}

// expect waits for the answer to a request.
func (m *iceMux) expect(id transaction, now time.Time, done func(*stun.Message, netip.AddrPort)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.pending) >= maxPending {
		for t, p := range m.pending {
			if now.Sub(p.at) > checkLife {
				delete(m.pending, t)
			}
		}
		if len(m.pending) >= maxPending {
			return
		}
	}
	m.pending[id] = pendingCheck{done, now}
}

// GetListenAddresses returns the addresses of our sockets.
func (m *iceMux) GetListenAddresses() []net.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []net.Addr
	for _, s := range m.sockets {
		out = append(out, net.UDPAddrFromAddrPort(s.local))
	}
	return out
}

var errNoSocket = errors.New("transport: no underlay socket has this address")

// GetConn returns an agent's share of the socket with the address.
func (m *iceMux) GetConn(fragment string, addr net.Addr) (net.PacketConn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sockets {
		if net.UDPAddrFromAddrPort(s.local).String() != addr.String() {
			continue
		}
		key := muxKey{fragment, s}
		if c := m.conns[key]; c != nil {
			return c, nil
		}
		c := &muxConn{mux: m, key: key, in: make(chan muxDatagram, muxConnSize), closed: make(chan struct{})}
		m.conns[key] = c
		return c, nil
	}
	return nil, errNoSocket
}

// RemoveConnByUfrag ends an agent's shares.
func (m *iceMux) RemoveConnByUfrag(fragment string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, c := range m.conns {
		if key.fragment == fragment {
			c.shut()
			delete(m.conns, key)
		}
	}
}

// Close does nothing: the mux belongs to the endpoint, not to an agent.
func (m *iceMux) Close() error { return nil }

// muxConn is one agent's share of one socket.
type muxConn struct {
	mux    *iceMux
	key    muxKey
	in     chan muxDatagram
	once   sync.Once
	closed chan struct{}
}

type muxDatagram struct {
	data []byte
	from netip.AddrPort
}

var _ net.PacketConn = (*muxConn)(nil)

func (c *muxConn) push(b []byte, from netip.AddrPort) {
	select {
	case c.in <- muxDatagram{b, from}:
	default: // checks are repeated
	}
}

func (c *muxConn) shut() { c.once.Do(func() { close(c.closed) }) }

// ReadFrom waits for a datagram or for Close.
func (c *muxConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case d := <-c.in:
		if len(b) < len(d.data) {
			return 0, nil, io.ErrShortBuffer
		}
		return copy(b, d.data), net.UDPAddrFromAddrPort(d.from), nil
	case <-c.closed:
		return 0, nil, net.ErrClosed
	}
}

// WriteTo sends one STUN message.
func (c *muxConn) WriteTo(b []byte, to net.Addr) (int, error) {
	addr, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, os.ErrInvalid
	}
	// RFC 8489 section 5: the two bits of the class; 0 is a request.
	if len(b) >= 20 && b[0]&1 == 0 && b[1]&0x10 == 0 {
		c.mux.expect(transaction(b[8:20]), time.Now(), func(m *stun.Message, from netip.AddrPort) { c.push(m.Raw, from) })
	}
	ap := addr.AddrPort()
	if err := c.key.socket.writeTo(b, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close ends this share alone.
func (c *muxConn) Close() error {
	c.shut()
	c.mux.mu.Lock()
	defer c.mux.mu.Unlock()
	if c.mux.conns[c.key] == c {
		delete(c.mux.conns, c.key)
	}
	return nil
}

// LocalAddr returns the socket's address.
func (c *muxConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.key.socket.local) }

// SetDeadline does nothing: an agent only uses it before Close.
func (c *muxConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *muxConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *muxConn) SetWriteDeadline(time.Time) error { return nil }
