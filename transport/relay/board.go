package relay

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

type boardCounters struct{ forwarded, octets, dropped atomic.Uint64 }

func (b *board) stats() Stats {
	b.mu.RLock()
	n := len(b.slots)
	b.mu.RUnlock()
	c := &b.counters
	return Stats{Allocations: n, Forwarded: c.forwarded.Load(), Octets: c.octets.Load(), Dropped: c.dropped.Load()}
}

// take gives a slot to a new allocation.
func (b *board) take(slot uint16) *allocation {
	a := &allocation{board: b, slot: slot, in: make(chan datagram, allocationQueue), closed: make(chan struct{})}
	b.mu.Lock()
	old := b.slots[slot]
	b.slots[slot] = a
	b.mu.Unlock()
	if old != nil {
		_ = old.Close()
	}
	return a
}

func (b *board) release(a *allocation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.slots[a.slot] == a {
		delete(b.slots, a.slot)
	}
}

// forward passes a datagram from one slot to another.
func (b *board) forward(from, to uint16, data []byte) {
	b.mu.RLock()
	a := b.slots[to]
	b.mu.RUnlock()
	if a == nil {
		b.counters.dropped.Add(1)
		return
	}
	select {
	case a.in <- datagram{append([]byte(nil), data...), from}:
		b.counters.forwarded.Add(1)
		b.counters.octets.Add(uint64(len(data)))
	default:
		b.counters.dropped.Add(1)
	}
}

// allocationQueue is how many datagrams may wait for one node; past it they are dropped, as a router would.
const allocationQueue = 512

type datagram struct {
	data []byte
	from uint16
}

// allocation is a slot in use. To pion's server it is the socket that datagrams are relayed by.
type allocation struct {
	board  *board
	slot   uint16
	in     chan datagram
	once   sync.Once
	closed chan struct{}
}

var _ net.PacketConn = (*allocation)(nil)

// ReadFrom waits for a datagram from another slot.
func (a *allocation) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case d := <-a.in:
		return copy(b, d.data), net.UDPAddrFromAddrPort(netip.AddrPortFrom(Label(), d.from)), nil
	case <-a.closed:
		return 0, nil, net.ErrClosed
	}
}

// WriteTo passes a datagram to another slot. pion has checked the permission; this checks the address again, since
// it is all that keeps the relay closed.
func (a *allocation) WriteTo(b []byte, to net.Addr) (int, error) {
	addr, ok := to.(*net.UDPAddr)
	if !ok || !onlyLabel(nil, addr.IP) {
		return 0, net.ErrClosed
	}
	a.board.forward(a.slot, uint16(addr.Port), b) //nolint:gosec // a port
	return len(b), nil
}

// Close gives the slot up, unless a newer allocation has it.
func (a *allocation) Close() error {
	a.once.Do(func() {
		close(a.closed)
		a.board.release(a)
	})
	return nil
}

// LocalAddr returns the relayed address.
func (a *allocation) LocalAddr() net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(Label(), a.slot))
}

// SetDeadline does nothing; pion does not use it.
func (a *allocation) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (a *allocation) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (a *allocation) SetWriteDeadline(time.Time) error { return nil }
