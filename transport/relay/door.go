package relay

import (
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/pion/stun"
	"github.com/pion/turn/v5"
)

// door is one of the relay's sockets. It lets in only what a TURN server may answer, and it makes the allocations.
type door struct {
	net.PacketConn
	relay *Server
	turn  bool // else STUN alone

	refused atomic.Uint64
}

var _ turn.RelayAddressGenerator = (*door)(nil)

// ReadFrom returns the next datagram that deserves an answer, without the zeros that Pad appended.
func (d *door) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, addr, err := d.PacketConn.ReadFrom(b)
		if err != nil {
			return n, addr, err
		}
		if size, ok := d.admit(b[:n]); ok {
			return size, addr, nil
		}
		d.refused.Add(1)
	}
}

// admit says how much of a datagram is a message that may be handled.
func (d *door) admit(b []byte) (int, bool) {
	if len(b) < 4 {
		return 0, false
	}
	if b[0] >= 0x40 && b[0] <= 0x7f { // channel data (RFC 8656 section 12.4)
		return len(b), d.turn
	}
	if !stun.IsMessage(b) || b[0] > 3 {
		return 0, false
	}
	size := 20 + int(b[2])<<8 + int(b[3])
	if size > len(b) {
		return 0, false
	}
	if !isRequest(b) {
		return size, d.turn
	}
	binding := b[0] == 0 && b[1] == 1
	return size, len(b) >= MinRequest && (d.turn || binding)
}

// authenticate is pion's question for the key of a user. The user's identity is its slot, so that a credential may be
// replaced by a newer one of the same node.
func (d *door) authenticate(r *turn.RequestAttributes) (user string, key []byte, ok bool) {
	slot, password, err := d.relay.cfg.Authenticate(r.Username, time.Now())
	if err != nil || slot == 0 || r.Realm != Realm {
		return "", nil, false
	}
	return strconv.Itoa(int(slot)), turn.GenerateAuthKey(r.Username, r.Realm, password), true
}

// Validate is part of turn.RelayAddressGenerator.
func (d *door) Validate() error { return nil }

// AllocatePacketConn makes the allocation of the slot that was authenticated. An older one of the same slot ends: the
// node has come back by another way.
func (d *door) AllocatePacketConn(c turn.AllocateListenerConfig) (net.PacketConn, net.Addr, error) {
	slot, err := strconv.ParseUint(c.UserID, 10, 16)
	if err != nil {
		return nil, nil, errSlot
	}
	d.relay.log.Debug("allocation", "slot", c.UserID)
	return d.relay.board.take(uint16(slot)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(Label(), uint16(slot))), nil
}

// AllocateListener refuses TCP allocations (RFC 6062).
func (d *door) AllocateListener(turn.AllocateListenerConfig) (net.Listener, net.Addr, error) {
	return nil, nil, errSlot
}

// AllocateConn refuses TCP allocations (RFC 6062).
func (d *door) AllocateConn(turn.AllocateConnConfig) (net.Conn, error) { return nil, errSlot }
