package transport

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// controlShard is the shard of the control loop; Senders have those below it.
const controlShard = 255

// Sender is one goroutine's way out. It owns a shard: its keys' counters belong to it alone. A Sender is not safe for
// concurrent use.
type Sender struct {
	e      *Endpoint
	shard  uint8
	keys   map[*Peer]keyed
	pieces uint32 // numbers the messages it has cut

	to    *Peer // who the outbox is for; nil: nobody
	on    keyed
	limit int    // of a datagram, in bytes, tag included
	buf   []byte // the datagram that is being filled, behind those that are sealed
	out   outbox
}

// keyed caches the key that goes with a peer's way of sending.
type keyed struct {
	way *sending
	key *sendKey
}

// ErrSenders means that all shards of a queue are in use.
var ErrSenders = errors.New("transport: too many senders")

// NewSender returns a Sender with a shard of its own, for a goroutine of a queue. It sends by the queue's sockets.
func (e *Endpoint) NewSender(queue int) (*Sender, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := queue % e.cfg.Queues; i < len(e.shards); i += e.cfg.Queues {
		if !e.shards[i] {
			e.shards[i] = true
			s := &Sender{e: e, shard: uint8(i), keys: make(map[*Peer]keyed)}
			s.out.queue = queue
			return s, nil
		}
	}
	return nil, ErrSenders
}

// Close gives the shard back. The next owner's counters go on where this one's are.
func (s *Sender) Close() {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	s.e.shards[s.shard] = false
}

// Send sends head followed by body to a peer as one message of at most MaxMessage bytes. Both are copied before Send
// returns. Without a link it keeps the message for a moment and opens one. What Send has taken leaves with Flush, at the
// latest.
func (s *Sender) Send(p *Peer, head, body []byte) {
	now := s.e.coarse.Load()
	if p.wanted.Load() != now {
		p.wanted.Store(now)
	}
	way := p.active.Load()
	if way == nil {
		s.e.stage(p, head, body, now)
		return
	}
	p.sent.Add(1)
	p.sentB.Add(uint64(len(head) + len(body)))
	s.send(p, way, recordMessage, head, body)
}

// Room sends a message of head followed by n bytes, which the caller writes into what Room returns before it calls the
// Sender again. It returns nil, and sends nothing, if there is no link or the message does not fit into one datagram:
// that is for Send.
func (s *Sender) Room(p *Peer, head []byte, n int) []byte {
	way := p.active.Load()
	if way == nil {
		return nil
	}
	if s.to != p || s.on.way != way {
		s.Flush()
		if !s.begin(p, way) {
			return nil
		}
	}
	if len(head)+n > inOne(s.limit) { // that of this outbox, whatever the path has been found to carry since it was begun
		return nil
	}
	if now := s.e.coarse.Load(); p.wanted.Load() != now {
		p.wanted.Store(now)
	}
	if len(s.buf)+recordLen+len(head)+n > s.limit-tagLen {
		s.seal()
	}
	p.sent.Add(1)
	p.sentB.Add(uint64(len(head) + n))
	at := len(s.buf) + recordLen + len(head)
	s.buf = putRecord(s.buf, recordMessage, len(head)+n)
	s.buf = append(s.buf, head...)[:at+n]
	return s.buf[at:]
}

func (e *Endpoint) stage(p *Peer, head, body []byte, now int64) {
	if !p.staged.add(head, body, now) {
		e.counts.unstaged.Add(1)
	}
	e.Open(p)
}

// Open begins to open the link to a peer, as a message for it would. It does not block, and may be called again.
func (e *Endpoint) Open(p *Peer) {
	select {
	case e.wakeups <- p:
	default: // the control loop is about to look anyway
	}
}

// send appends one record to the datagram for the peer.
func (s *Sender) send(p *Peer, way *sending, kind byte, head, body []byte) {
	n := recordLen + len(head) + len(body)
	if s.to != p || s.on.way != way {
		s.Flush()
		if !s.begin(p, way) {
			return
		}
	}
	if len(s.buf)+n > s.limit-tagLen {
		s.seal()
	}
	if len(s.buf)+n > s.limit-tagLen {
		s.cut(head, body)
		return
	}
	s.buf = appendRecord(s.buf, kind, head, body)
}

// begin starts to fill the outbox for a peer.
func (s *Sender) begin(p *Peer, way *sending) bool {
	k := s.keys[p]
	if k.way != way {
		key, err := way.epoch.sendKey(way.path, s.shard)
		if err != nil {
			s.e.counts.unsent.Add(1)
			return false
		}
		k = keyed{way, key}
		s.keys[p] = k
	}
	s.to, s.on, s.limit = p, k, int(way.path.size.now.Load())
	s.next()
	return true
}

// cut sends a message that is too large for one datagram in equal pieces.
func (s *Sender) cut(head, body []byte) {
	most := s.limit - headerLen - recordLen - pieceLen - tagLen
	total := len(head) + len(body)
	if total > MaxMessage {
		s.e.counts.unsent.Add(1)
		return
	}
	count := (total + most - 1) / most
	size := (total + count - 1) / count
	s.pieces++
	var at [pieceLen]byte
	for offset := 0; offset < total; offset += size {
		if len(s.buf) > headerLen {
			s.seal()
		}
		end := min(offset+size, total)
		putPiece(at[:], s.pieces, total, offset)
		n := pieceLen + end - offset
		s.buf = append(s.buf, recordPiece, 0, byte(n>>8), byte(n))
		s.buf = append(s.buf, at[:]...)
		if offset < len(head) {
			s.buf = append(s.buf, head[offset:min(end, len(head))]...)
		}
		if end > len(head) {
			s.buf = append(s.buf, body[max(0, offset-len(head)):end-len(head)]...)
		}
	}
}

// next makes room for a datagram behind those that are sealed.
func (s *Sender) next() {
	at := s.out.done
	s.buf = s.out.room[at : at+headerLen : at+s.limit]
}

// seal closes the datagram that is being filled, which joins the outbox.
func (s *Sender) seal() {
	if len(s.buf) == headerLen {
		return
	}
	if out, err := s.on.key.seal(s.buf); err != nil {
		s.e.counts.unsent.Add(1)
	} else if s.out.add(len(out)); s.out.full() {
		s.transmit()
	}
	s.next()
}

// transmit sends the outbox.
func (s *Sender) transmit() {
	if s.out.done == 0 {
		return
	}
	path := s.on.way.path
	switch err := path.out.writeRuns(&s.out, path.addr); {
	case err == nil:
	case errors.Is(err, unix.EMSGSIZE) && s.limit > int(path.size.now.Load()):
		// A probe for more than this machine's link carries: no answer will come, and nothing is lost.
	default:
		s.e.counts.unsent.Add(1)
		if errors.Is(err, unix.EMSGSIZE) {
			path.size.tooLarge(s.limit)
		}
	}
	s.out.reset()
}

// Flush seals and sends what Send has gathered.
func (s *Sender) Flush() {
	if s.to == nil {
		return
	}
	s.seal()
	s.transmit()
	s.to = nil
}

// forget drops cached keys of links that are gone.
func (s *Sender) forget(p *Peer) { delete(s.keys, p) }

// sendControlLocked sends one record on one path at once, from the control goroutine.
func (e *Endpoint) sendControlLocked(p *Peer, path *Path, kind byte, body []byte) {
	if p.current == nil {
		return
	}
	e.control.send(p, &sending{p.current, path}, kind, nil, body)
	e.control.Flush()
	e.control.forget(p)
}

// sendSized sends a probe in a datagram of its own, of any size, at once.
func (s *Sender) sendSized(p *Peer, way *sending, size int, body []byte) {
	s.Flush()
	if !s.begin(p, way) {
		return
	}
	s.limit = size
	s.next()
	s.buf = appendRecord(s.buf, recordProbe, nil, body)
	s.Flush()
}

// flushStagedLocked sends what waited for the link.
func (e *Endpoint) flushStagedLocked(p *Peer, now time.Time) {
	way := p.active.Load()
	if way == nil {
		return
	}
	for _, m := range p.staged.take() {
		if now.UnixNano()-m.at < int64(stageLife) {
			p.sent.Add(1)
			p.sentB.Add(uint64(len(m.data)))
			e.control.send(p, way, recordMessage, nil, m.data)
		}
	}
	e.control.Flush()
	e.control.forget(p)
}

func (p *Path) write(b []byte) error { return p.out.writeTo(b, p.addr) }

// carrier sends datagrams: an underlay socket, or an allocation at a relay.
type carrier interface {
	writeTo(b []byte, to netip.AddrPort) error
	// writeRuns sends what an outbox holds. The error wraps unix.EMSGSIZE if a datagram cannot even leave this machine.
	writeRuns(o *outbox, to netip.AddrPort) error
}
