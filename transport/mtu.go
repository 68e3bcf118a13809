package transport

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// How large a datagram may be is found for each path and direction by sealed probes of that size (RFC 8899), because ICMP
// may be filtered on the way, or forged:
//
//	              a probe of that size is answered
//	base 1200 ------------------------------------> largest candidate that passes
//	     ^                                                |   probed anew every Timers.PathMTU: larger ones
//	     +------------------------------------------------+
//	       3 probes of the present size in a row are lost, or this machine refuses to send it
//
// A search sends one probe of every candidate size at once, up to three times, so it takes one round trip where nothing is
// lost. While a path carries data, each probe that asks whether it lives goes along with one of full size.
const (
	// baseDatagram is what every path must carry, in bytes of UDP payload (BASE_PLPMTU, RFC 8899 section 5.1.2).
	baseDatagram = 1200
	// FullDatagram fills a packet of 1500 bytes over IPv4, in bytes of UDP payload: what most paths carry.
	FullDatagram = ordinaryMTU - overhead4
	maxDatagram  = 9000 - overhead4

	ordinaryMTU    = 1500   // of nearly every link, in bytes of IP packet (RFC 894)
	overhead4      = 20 + 8 // IPv4 and UDP headers
	overhead6      = 40 + 8 // IPv6 and UDP headers
	overheadTURN   = 4      // channel data (RFC 8656 section 12.4)
	searchRounds   = 3
	fullProbesLost = 3 // in a row: larger datagrams than base disappear
	sizeEvery      = 200 * time.Millisecond
	sizeTimeout    = 300 * time.Millisecond
)

// MaxBurst is how many datagrams that fill 1500-byte packets leave in one message to the kernel.
const MaxBurst = maxRunBytes / FullDatagram

// MaxInOne is the longest message, in bytes, that fits into one FullDatagram.
const MaxInOne = FullDatagram - headerLen - recordLen - tagLen

// inOne is the longest message that fits into a datagram of size bytes.
func inOne(size int) int { return size - headerLen - recordLen - tagLen }

// candidates lists the MTUs that are looked for, in bytes of IP packet: those that links, and tunnels over them, have.
func candidates() [12]int {
	return [...]int{1280, 1300, 1350, 1380, 1400, 1420, 1440, 1460, 1480, 1492, 1500, 9000}
}

// pathSize is how large a path's datagrams may be.
type pathSize struct {
	now      atomic.Int32 // bytes of UDP payload
	shrunk   atomic.Bool  // this machine has refused to send so much
	known    atomic.Bool  // a search has ended, or has found what ordinary links carry
	overhead int          // bytes of an IP packet that are not UDP payload; constant

	// Guarded by Endpoint.mu.
	round int       // of the search; 0: there is none
	next  time.Time // of the next round, or search
	lost  int       // probes of the present size, in a row
	check time.Time // when the next of them is due
}

// mtu is the size of an IP packet that the path carries, in bytes.
func (s *pathSize) mtu() int { return int(s.now.Load()) + s.overhead }

// tooLarge is called by a Sender when a datagram of size bytes cannot leave this machine.
func (s *pathSize) tooLarge(size int) {
	if size > baseDatagram && s.now.CompareAndSwap(int32(size), baseDatagram) {
		s.shrunk.Store(true)
	}
}

// toBase begins anew.
func (s *pathSize) toBase(now time.Time) {
	s.now.Store(baseDatagram)
	s.known.Store(false)
	s.round, s.lost, s.next = 0, 0, now
}

// overheadOf is what is around a datagram on a path, in bytes.
func overheadOf(v6, relayed bool) int {
	n := overhead4
	if v6 {
		n = overhead6
	}
	if relayed {
		n += overheadTURN
	}
	return n
}

// Largest is the longest message, in bytes, that fits into one datagram to the peer as it is reached now.
func (p *Peer) Largest() int {
	if way := p.active.Load(); way != nil {
		return inOne(int(way.path.size.now.Load()))
	}
	return inOne(baseDatagram)
}

// Expected is what Largest will be once the path is known. It is for what is decided once and for long, such as the size of
// a TCP connection's segments: an ordinary path of 1500 bytes is expected until a search has ended.
func (p *Peer) Expected() int {
	way := p.active.Load()
	if way == nil {
		return MaxInOne
	}
	size := &way.path.size
	if size.known.Load() {
		return inOne(int(size.now.Load()))
	}
	return inOne(ordinaryMTU - size.overhead)
}

// tendSizeLocked does what is due for a path's size.
func (e *Endpoint) tendSizeLocked(path *Path, busy bool, now time.Time) {
	s := &path.size
	if s.shrunk.CompareAndSwap(true, false) {
		e.log.Info("path carries smaller datagrams", "peer", path.peer.cfg.Name, "path", path.String(), "reason", "the MTU of this machine's link")
		s.toBase(now)
	}
	if !path.alive {
		return
	}
	if busy && s.now.Load() > baseDatagram && !now.Before(s.check) {
		s.check = now.Add(sizeEvery)
		e.probeSizeLocked(path, int(s.now.Load()), now)
	}
	if now.Before(s.next) {
		return
	}
	if s.round == searchRounds {
		s.known.Store(true)
		s.round, s.next = 0, now.Add(e.cfg.Timers.PathMTU)
		return
	}
	s.round++
	s.next = now.Add(max(sizeTimeout, 3*path.rtt))
	for _, mtu := range candidates() {
		if size := mtu - s.overhead; size > int(s.now.Load()) {
			e.probeSizeLocked(path, size, now)
		}
	}
}

// probeSizeLocked sends a probe that fills a datagram of size bytes.
func (e *Endpoint) probeSizeLocked(path *Path, size int, now time.Time) {
	p := path.peer
	if p.current == nil {
		return
	}
	id := rand.Uint64() //nolint:gosec // the record is sealed; the id only has to be unique
	p.probes[id] = probe{path: path, at: now, size: size}
	body := make([]byte, size-headerLen-recordLen-tagLen)
	binary.BigEndian.PutUint64(body, id)
	e.control.sendSized(p, &sending{p.current, path}, size, body)
	e.control.forget(p)
}

// sizeFoundLocked takes the answer to a probe of size bytes.
func (e *Endpoint) sizeFoundLocked(path *Path, size int) {
	s := &path.size
	switch was := int(s.now.Load()); {
	case size > was:
		s.now.Store(int32(size))
		s.lost = 0
		if s.mtu() >= ordinaryMTU {
			s.known.Store(true)
		}
		e.log.Debug("path carries larger datagrams", "peer", path.peer.cfg.Name, "path", path.String(), "mtu", s.mtu())
	case size == was:
		s.lost = 0
	}
}

// sizeLostLocked takes a probe of size bytes that was not answered.
func (e *Endpoint) sizeLostLocked(path *Path, size int, now time.Time) {
	s := &path.size
	if size != int(s.now.Load()) || !path.alive {
		return // of a search, or of one that is over
	}
	if s.lost++; s.lost >= fullProbesLost {
		e.log.Info("path carries smaller datagrams", "peer", path.peer.cfg.Name, "path", path.String(), "reason", "large ones disappear")
		s.toBase(now)
	}
}
