package transport

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/etherloom/etherloom/identity"
)

// sealUnder is sealFor with a header that is changed before it is sealed, as only a peer with the session's keys can.
func sealUnder(t testing.TB, ep *epoch, counter uint64, records []byte, change func(head []byte)) []byte {
	t.Helper()
	aead, err := ep.suite.dataKey(ep.recvSecret, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, headerLen, headerLen+len(records)+tagLen)
	header{index: ep.local, counter: counter}.put(buf)
	if change != nil {
		change(buf)
	}
	var nonce [12]byte
	ep.suite.putNonce(&nonce, counter)
	return aead.Seal(buf, nonce[:], records, buf)
}

// dropped is what has been dropped, without the reasons for which nothing was.
func dropped(e *Endpoint) map[string]uint64 {
	all := e.Drops()
	maps.DeleteFunc(all, func(_ string, n uint64) bool { return n == 0 })
	return all
}

// once is one drop for a reason; none for no reason.
func once(reason string) map[string]uint64 {
	if reason == "" {
		return map[string]uint64{}
	}
	return map[string]uint64{reason: 1}
}

// A datagram whose tag is right is still refused for what its header says.
func TestRefusedDatagrams(t *testing.T) {
	message := appendRecord(nil, recordMessage, nil, []byte("x"))
	for _, c := range []struct {
		name    string
		counter uint64
		change  func(head []byte)
		want    string
	}{
		{"good", 5, nil, ""},
		{"the last counter", lastCounter, nil, ""},
		{"a counter past the last", lastCounter + 1, nil, "does-not-open"},
		{"another version", 5, func(b []byte) { b[0] |= 0x20 }, "foreign"},
		{"flags of tomorrow", 5, func(b []byte) { b[3] = 1 }, "foreign"},
		{"another type", 5, func(b []byte) { b[0] = firstOurs | 9 }, "foreign"},
		{"another suite", 5, func(b []byte) { b[0] |= suiteBit }, "does-not-open"},
		{"another session", 5, func(b []byte) { b[7] ^= 1 }, "no-session"},
		{"another shard's key", 5, func(b []byte) { b[2]++ }, "does-not-open"},
	} {
		e, r, from, ep := target(t)
		r.datagram(sealUnder(t, ep, c.counter, message, c.change), from, time.Now())
		want := uint64(1)
		if c.want != "" {
			want = 0
		}
		if got := ep.peer.received.Load(); got != want {
			t.Errorf("%s: %d messages received, want %d", c.name, got, want)
		}
		if got := dropped(e); !maps.Equal(got, once(c.want)) {
			t.Errorf("%s: dropped %v, want %q", c.name, got, c.want)
		}
	}
}

func TestShortDatagrams(t *testing.T) {
	e, r, from, ep := target(t)
	whole := sealFor(t, ep, 0, nil)
	for n := 1; n < len(whole); n++ {
		r.datagram(whole[:n], from, time.Now())
	}
	if got := e.Drops()["foreign"]; got != headerLen+tagLen-1 || len(dropped(e)) != 1 {
		t.Errorf("dropped %v, want every one of %d as foreign", dropped(e), headerLen+tagLen-1)
	}
}

// Each type of handshake message waits for the control loop.
func TestHandshakesAreQueued(t *testing.T) {
	for _, typ := range []byte{typeInitiation, typeResponse, typeCookie} {
		e, r, from, _ := target(t)
		r.datagram([]byte{firstByte(typ, AES256GCM), 0, 0, 0}, from, time.Now())
		if n := len(e.handshakes); n != 1 || len(dropped(e)) != 0 {
			t.Errorf("type %d: %d wait, dropped %v", typ, n, dropped(e))
		}
	}
}

// A record that makes no sense ends its datagram. What a kind that nobody knows says is skipped.
func TestBadRecords(t *testing.T) {
	message := appendRecord(nil, recordMessage, nil, []byte("x"))
	pieceOf := func(total, offset int, data string) []byte {
		head := make([]byte, pieceLen)
		putPiece(head, 1, total, offset)
		return appendRecord(nil, recordPiece, head, []byte(data))
	}
	for _, c := range []struct {
		name     string
		records  []byte
		received uint64
		bad      bool
	}{
		{"a message", message, 1, false},
		{"an unknown kind in front", append([]byte{9, 0, 0, 1, 7}, message...), 1, false},
		{"a message behind a message", append(message[:len(message):len(message)], message...), 2, false},
		{"a cut header", []byte{recordMessage, 0, 0}, 0, true},
		{"a cut body", []byte{recordMessage, 0, 0, 2, 'x'}, 0, true},
		{"a cut header behind a message", append(message[:len(message):len(message)], 0), 1, true},
		{"a message in one piece", pieceOf(3, 0, "abc"), 1, false},
		{"a piece of a longer one", pieceOf(4, 0, "abc"), 0, false},
		{"a piece without bytes", pieceOf(3, 0, ""), 0, true},
		{"a cut piece", appendRecord(nil, recordPiece, nil, []byte{0, 0, 0}), 0, true},
		{"a piece beyond its message", pieceOf(4, 2, "abc"), 0, true},
		{"a message behind a bad piece", append(pieceOf(4, 2, "abc"), message...), 0, true},
	} {
		e, r, from, ep := target(t)
		r.datagram(sealFor(t, ep, 0, c.records), from, time.Now())
		if got := ep.peer.received.Load(); got != c.received {
			t.Errorf("%s: %d messages received, want %d", c.name, got, c.received)
		}
		reason := ""
		if c.bad {
			reason = "bad-record"
		}
		if got := dropped(e); !maps.Equal(got, once(reason)) {
			t.Errorf("%s: dropped %v, want %q", c.name, got, reason)
		}
	}
}

// sealedBy counts what has been sealed in an epoch.
func sealedBy(ep *epoch) (n uint64) {
	for _, k := range ep.sends {
		n += k.counter
	}
	return n
}

// A probe is answered, and a signal or a farewell heard, only in a session that lives, and on a path that is the peer's.
func TestControlRecords(t *testing.T) {
	elsewhere := netip.MustParseAddrPort("198.51.100.66:66")
	signalTo := func(id identity.ID, n int) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(id)), make([]byte, n)...)
	}
	next := func(p *Peer) *epoch {
		return &epoch{local: 7, remote: 8, peer: p, created: time.Now(), cert: p.current.cert}
	}
	over := func(_ *Endpoint, p *Peer) { p.current = next(p) }
	gone := func(_ *Endpoint, p *Peer) { p.gone = true }
	for _, c := range []struct {
		name    string
		kind    byte
		body    []byte
		from    netip.AddrPort // the peer's address if there is none
		edit    func(e *Endpoint, p *Peer)
		answers uint64
		refused string
		closed  bool
	}{
		{name: "probe", kind: recordProbe, body: make([]byte, 8), answers: 1},
		{name: "long probe", kind: recordProbe, body: make([]byte, 900), answers: 1},
		{name: "short probe", kind: recordProbe, body: make([]byte, 7)},
		{name: "probe from an address that is no path", kind: recordProbe, body: make([]byte, 8), from: elsewhere},
		{
			name: "probe from another's path", kind: recordProbe, body: make([]byte, 8), from: elsewhere,
			edit: func(e *Endpoint, p *Peer) { e.newPathLocked(&Peer{}, p.direct.out, elsewhere, p.direct.local, "") },
		},
		{name: "probe of a peer that is gone", kind: recordProbe, body: make([]byte, 8), edit: gone},
		{name: "probe in a session that is over", kind: recordProbe, body: make([]byte, 8), edit: over},
		{
			name: "probe in the session before", kind: recordProbe, body: make([]byte, 8), answers: 1,
			edit: func(_ *Endpoint, p *Peer) { p.previous, p.current = p.current, next(p) },
		},
		{name: "signal for a stranger", kind: recordSignal, body: signalTo(9, 1), refused: "signal-refused"},
		{name: "signal that does not open", kind: recordSignaled, body: signalTo(1, 1), refused: "signal-refused"},
		{name: "signal that is empty", kind: recordSignal, body: signalTo(9, 0)},
		{name: "signal without a node", kind: recordSignal, body: make([]byte, 3)},
		{name: "signal in a session that is over", kind: recordSignal, body: signalTo(9, 1), edit: over},
		{name: "farewell", kind: recordClose, answers: 1, closed: true},
		{name: "farewell in a session that is over", kind: recordClose, edit: over},
		{name: "farewell of a peer that is gone", kind: recordClose, edit: gone},
	} {
		e, r, from, ep := target(t)
		p := ep.peer
		if c.edit != nil {
			c.edit(e, p)
		}
		if c.from.IsValid() {
			from = c.from
		}
		current := p.current
		r.datagram(sealFor(t, ep, 0, appendRecord(nil, c.kind, nil, c.body)), from, time.Now())
		answers := sealedBy(ep)
		if current != ep {
			answers += sealedBy(current)
		}
		if answers != c.answers {
			t.Errorf("%s: %d answers, want %d", c.name, answers, c.answers)
		}
		if got := dropped(e); !maps.Equal(got, once(c.refused)) {
			t.Errorf("%s: dropped %v, want %q", c.name, got, c.refused)
		}
		if closed := p.link == linkClosed; closed != c.closed {
			t.Errorf("%s: the link is closed: %v", c.name, closed)
		}
	}
}

// Only eight bytes are a reply to a probe.
func TestReplies(t *testing.T) {
	for n, want := range map[int]bool{7: false, 8: true, 9: false} {
		_, r, from, ep := target(t)
		id := make([]byte, 9)
		ep.peer.probes[binary.BigEndian.Uint64(id)] = probe{path: ep.peer.direct, at: time.Now()}
		r.datagram(sealFor(t, ep, 0, appendRecord(nil, recordReply, nil, id[:n])), from, time.Now())
		if taken := len(ep.peer.probes) == 0; taken != want {
			t.Errorf("a reply of %d bytes is taken: %v", n, taken)
		}
	}
}
