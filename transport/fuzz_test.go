package transport

import (
	"bytes"
	"crypto/rand"
	"net/netip"
	"testing"
	"time"

	"github.com/etherloom/etherloom/identity"
)

// target is an endpoint with one peer and one session, not running: enough for every parser of what comes from outside.
func target(t testing.TB) (*Endpoint, *reader, addrPort, *epoch) {
	t.Helper()
	keys, _ := identity.NewNodeKeys()
	other, _ := identity.NewNodeKeys()
	e := New(Config{
		Network: identity.NewNetworkID(), Self: 2, Keys: keys, AES: true, NewReceiver: func(int) Receiver { return discard{} },
		Signal: func(identity.ID, []byte) {}, Controlled: func() bool { return true },
		Certificate: func() *identity.Certificate { return &identity.Certificate{} },
		Verifier:    func() *identity.Verifier { return nil },
	})
	if err := e.SetPeers([]PeerConfig{{ID: 1, Name: "peer", Static: other.StaticPublic(), AES: true, RelaySlot: 1}}); err != nil {
		t.Fatal(err)
	}
	s := &socketLoop{e: e, sockets: []Socket{nowhere{}}, local: netip.MustParseAddrPort("192.0.2.2:5000")}
	from := netip.MustParseAddrPort("192.0.2.1:5000")
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.peers[1]
	p.direct = e.newPathLocked(p, s, from, s.local, "")
	p.link = linkOpen
	ep := &epoch{local: 0x01020304, remote: 5, peer: p, created: time.Now(), cert: &identity.Certificate{}}
	ep.confirmed.Store(true)
	e.addEpochLocked(ep)
	p.current = ep
	e.chooseLocked(p)
	return e, e.newReader(s, 0), from, ep
}

type discard struct{}

func (discard) Receive(identity.ID, []byte, time.Time) {}
func (discard) Flush(time.Time)                        {}
func (discard) Close()                                 {}

type nowhere struct{}

func (nowhere) ReadFrom([]byte) (int, addrPort, error)    { select {} }
func (nowhere) WriteTo(b []byte, _ addrPort) (int, error) { return len(b), nil }
func (nowhere) LocalAddr() addrPort                       { return addrPort{} }
func (nowhere) Close() error                              { return nil }

// sealFor makes a data datagram that the target opens.
func sealFor(t testing.TB, ep *epoch, counter uint64, records []byte) []byte {
	t.Helper()
	aead, err := ep.suite.dataKey(ep.recvSecret, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	h := header{index: ep.local, counter: counter}
	buf := make([]byte, headerLen, headerLen+len(records)+tagLen)
	h.put(buf)
	var nonce [12]byte
	ep.suite.putNonce(&nonce, counter)
	return aead.Seal(buf, nonce[:], records, buf)
}

// FuzzDatagram gives arbitrary bytes to everything behind our sockets.
func FuzzDatagram(f *testing.F) {
	f.Add([]byte{0x84})
	f.Add(bytes.Repeat([]byte{0x84}, 40))
	f.Add(append([]byte{0x81, 0, 0, 0}, make([]byte, minInitiation)...))
	f.Add(append([]byte{0x82, 0, 0, 0}, make([]byte, minResponse)...))
	f.Add(append([]byte{0x83, 0, 0, 0}, make([]byte, cookieMessage-4)...))
	f.Add(append([]byte{0x85, 0, 0, 0}, make([]byte, 80)...))
	f.Add([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
	e, r, from, _ := target(f)
	own := e.cfg.Keys.StaticPublic()
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		e.mux.inbound(&socketLoop{e: e, sockets: []Socket{nowhere{}}}, b, from)
		b[0] |= firstOurs
		r.datagram(bytes.Clone(b), from, time.Now())
		// Once more with the MAC that only who knows our key can make, so that the parser behind it is reached.
		b[0] = firstByte(typeInitiation, AES256GCM)
		for _, m := range [][]byte{b, appendMACs(bytes.Clone(b), own, nil)} {
			e.handshake(inbound{pathKey{r.in, from}, m}, time.Now())
		}
		for len(e.handshakes) > 0 {
			e.handshake(<-e.handshakes, time.Now())
		}
		for len(e.wakeups) > 0 {
			<-e.wakeups
		}
	})
}

// FuzzRecords gives arbitrary plaintext to what a peer with the session's keys can reach.
func FuzzRecords(f *testing.F) {
	f.Add(appendRecord(nil, recordMessage, []byte("head"), []byte("body")))
	f.Add(appendRecord(nil, recordPiece, []byte{0, 0, 0, 1, 0, 4, 0, 0}, []byte("ab")))
	f.Add(appendRecord(nil, recordProbe, nil, make([]byte, 8)))
	f.Add(appendRecord(nil, recordSignal, nil, append([]byte{0, 0, 0, 2}, make([]byte, 60)...)))
	f.Add(appendRecord(nil, recordSignaled, nil, append([]byte{0, 0, 0, 1}, make([]byte, 60)...)))
	f.Add([]byte{9, 0, 0, 1, 7})
	f.Fuzz(func(t *testing.T, records []byte) {
		if len(records) > 1300 {
			return
		}
		_, r, from, ep := target(t)
		for i := range uint64(2) {
			r.datagram(sealFor(t, ep, i, records), from, time.Now())
		}
	})
}

// FuzzSignal gives arbitrary plaintext to what a peer with the pair's key can reach.
func FuzzSignal(f *testing.F) {
	f.Add(make([]byte, signalHead))
	f.Add(append(append(make([]byte, signalHead-1), 1), make([]byte, candidateSize)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSignal(b)
		if err == nil && len(s.candidates) > maxCandidates {
			t.Fatal("too many candidates")
		}
		for _, c := range s.candidates {
			if _, err := iceCandidate(c); err != nil {
				t.Fatalf("candidate %v passes the parser and not ICE: %v", c, err)
			}
		}
	})
}

// FuzzHandshake gives arbitrary payloads, sealed as an honest initiator would, and arbitrary responses.
func FuzzHandshake(f *testing.F) {
	f.Add(make([]byte, 16), []byte{})
	a, _ := identity.NewNodeKeys()
	b, _ := identity.NewNodeKeys()
	network := identity.NewNetworkID()
	pa := party{network: network, keys: a, remote: b.StaticPublic(), random: rand.Reader}
	pb := party{network: network, keys: b, remote: a.StaticPublic(), random: rand.Reader}
	f.Fuzz(func(t *testing.T, cert, response []byte) {
		init, msg, err := pa.initiate(1, stamp{1, 2}, cert)
		if err != nil {
			return
		}
		o, err := pb.readInitiation(appendMACs(msg, b.StaticPublic(), nil))
		if err != nil || !bytes.Equal(o.cert, cert) || o.at != (stamp{1, 2}) {
			t.Fatalf("an honest initiation is refused: %v", err)
		}
		if _, ok := responseIndex(response); ok {
			if _, err := init.readResponse(response); err == nil {
				t.Fatal("a response out of nothing opens")
			}
		}
		reply, sendB, recvB, err := pb.respond(o, 2, cert)
		if err != nil {
			return
		}
		got, err := init.readResponse(appendMACs(reply, a.StaticPublic(), nil))
		if err != nil || got.send != recvB || got.recv != sendB || !bytes.Equal(got.cert, cert) {
			t.Fatalf("an honest response is refused: %v", err)
		}
	})
}

func TestSealAndOpenDoNotAllocate(t *testing.T) {
	e, r, from, ep := target(t)
	s, err := e.NewSender(0)
	if err != nil {
		t.Fatal(err)
	}
	p := e.Peer(1)
	head, body := make([]byte, 12), make([]byte, 1300)
	s.Send(p, head, body)
	s.Flush()
	if n := testing.AllocsPerRun(100, func() {
		s.Send(p, head, body)
		s.Flush()
	}); n != 0 {
		t.Errorf("%v allocations to send a message", n)
	}
	counter := uint64(0)
	records := appendRecord(nil, recordMessage, head, body)
	r.datagram(sealFor(t, ep, counter, records), from, time.Now())
	var list [][]byte
	for range 102 {
		counter++
		list = append(list, sealFor(t, ep, counter, records))
	}
	now, i := time.Now(), 0
	if n := testing.AllocsPerRun(100, func() {
		r.datagram(list[i], from, now)
		i++
	}); n != 0 {
		t.Errorf("%v allocations to receive a message", n)
	}
	if got := p.received.Load(); got != 102 {
		t.Errorf("%d messages received", got)
	}
}

// Counter wrap: a key that has sealed as much as it may seals nothing more, and asks for the next epoch in time.
func TestKeyIsUsedUp(t *testing.T) {
	_, _, _, ep := target(t)
	k, err := ep.sendKey(ep.peer.direct, 3)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, headerLen+1, 100)
	seen := map[string]bool{}
	for _, from := range []uint64{0, rekeyCounter - 2, lastCounter - 2} {
		k.counter = from
		for range 3 {
			out, err := k.seal(buf[:headerLen+1])
			if k.counter > lastCounter {
				t.Fatal("a counter past the last was used")
			}
			if err == nil && seen[string(out[:headerLen])] {
				t.Fatal("a counter was used twice")
			} else if err == nil {
				seen[string(out[:headerLen])] = true
			}
		}
		if want := from > 0; ep.wantRekey.Load() != want {
			t.Errorf("from %d: wantRekey = %v", from, !want)
		}
	}
	if _, err := k.seal(buf); err == nil {
		t.Error("a key past its end seals")
	}
}

// Path numbers are never used twice in an epoch, and the same path and shard go on with their counter.
func TestPathNumbers(t *testing.T) {
	_, _, _, ep := target(t)
	first, _ := ep.sendKey(ep.peer.direct, 0)
	if again, _ := ep.sendKey(ep.peer.direct, 0); again != first {
		t.Error("the same path and shard have two keys, with two counters")
	}
	seen := map[uint8]bool{first.head.path: true}
	for range 255 {
		k, err := ep.sendKey(&Path{}, 0)
		if err != nil || seen[k.head.path] {
			t.Fatalf("path number used twice, or refused too early: %v", err)
		}
		seen[k.head.path] = true
	}
	if _, err := ep.sendKey(&Path{}, 0); err == nil || !ep.wantRekey.Load() {
		t.Error("a path too many is numbered")
	}
}

// A forger who knows an index must not be able to fill tables.
func TestForgedDatagramsKeepNothing(t *testing.T) {
	e, r, from, ep := target(t)
	for i := range 256 {
		for j := range 16 {
			b := make([]byte, 64)
			header{path: uint8(i), shard: uint8(j), index: ep.local, counter: uint64(i)}.put(b)
			r.datagram(b, from, time.Now())
		}
	}
	if m := ep.recvs.Load(); m != nil && len(*m) > 0 {
		t.Errorf("%d keys are kept for forged datagrams", len(*m))
	}
	if n := e.Drops()["does-not-open"]; n != 256*16 {
		t.Errorf("%d counted", n)
	}
}

func BenchmarkSend(b *testing.B) {
	e, _, _, _ := target(b)
	s, _ := e.NewSender(0)
	p := e.Peer(1)
	head, body := make([]byte, 12), make([]byte, 1300)
	b.SetBytes(1300)
	for b.Loop() {
		s.Send(p, head, body)
		s.Flush()
	}
}
