package transport

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/etherloom/etherloom/identity"
)

func TestRejoin(t *testing.T) {
	now := time.Now()
	id := partID{id: 1}
	p := func(total, offset int, data string) piece { return piece{1, total, offset, []byte(data)} }
	for name, c := range map[string]struct {
		pieces []piece
		want   string
	}{
		"in order":          {[]piece{p(6, 0, "abc"), p(6, 3, "def")}, "abcdef"},
		"backwards":         {[]piece{p(6, 3, "def"), p(6, 0, "abc")}, "abcdef"},
		"alone":             {[]piece{p(3, 0, "abc")}, "abc"},
		"missing":           {[]piece{p(6, 0, "abc")}, ""},
		"twice":             {[]piece{p(6, 0, "abc"), p(6, 0, "abc"), p(6, 3, "def")}, ""},
		"overlap":           {[]piece{p(6, 0, "abcd"), p(6, 3, "def")}, ""},
		"another length":    {[]piece{p(6, 0, "abc"), p(7, 3, "defg")}, ""},
		"overlap by a byte": {[]piece{p(6, 3, "def"), p(6, 0, "abcd")}, ""},
	} {
		var r rejoiner
		var got []byte
		for _, piece := range c.pieces {
			got = nil
			if m := r.add(id, piece, now); m != nil {
				got = m.buf
			}
		}
		if string(got) != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if r.bytes < 0 || len(r.parts) == 0 && r.bytes != 0 {
			t.Errorf("%s: %d bytes counted for %d messages", name, r.bytes, len(r.parts))
		}
	}
}

func TestRejoinIsBounded(t *testing.T) {
	var r rejoiner
	now := time.Now()
	for i := range 10_000 {
		r.add(partID{id: uint32(i)}, piece{uint32(i), MaxMessage, 0, []byte("x")}, now.Add(time.Duration(i)))
	}
	if len(r.parts) > rejoinMessages || r.bytes > rejoinBytes {
		t.Errorf("%d messages and %d bytes wait", len(r.parts), r.bytes)
	}
	r.expire(now.Add(rejoinLife + time.Second))
	if len(r.parts) != 0 || r.bytes != 0 {
		t.Errorf("%d messages and %d bytes wait for ever", len(r.parts), r.bytes)
	}
	for i := range rejoinPieces + 1 {
		r.add(partID{}, piece{0, MaxMessage, 2 * i, []byte("x")}, now)
	}
	if len(r.parts) != 0 {
		t.Error("a message in too many pieces is kept")
	}
	late := func(offset int, at time.Time) *partial {
		return r.add(partID{id: 1}, piece{1, 2, offset, []byte("x")}, at)
	}
	if late(0, now) != nil || late(1, now.Add(rejoinLife+1)) != nil || len(r.parts) != 0 {
		t.Error("a piece that comes too late completes its message")
	}
	if len(r.spare) > rejoinSpares {
		t.Errorf("%d spares are kept", len(r.spare))
	}
}

// A message that is rejoined never shows bytes of one before it, and takes nothing from the heap.
func TestRejoinReusesRoom(t *testing.T) {
	var r rejoiner
	now := time.Now()
	long, short := bytes.Repeat([]byte("l"), 4000), bytes.Repeat([]byte("s"), 1500)
	id := uint32(0)
	send := func(b []byte) {
		id++
		if m := r.add(partID{id: id}, piece{id, len(b), 0, b[:len(b)/2]}, now); m != nil {
			t.Fatal("half a message is given")
		}
		m := r.add(partID{id: id}, piece{id, len(b), len(b) / 2, b[len(b)/2:]}, now)
		if m == nil || !bytes.Equal(m.buf, b) {
			t.Fatal("another message is given")
		}
		r.free(m)
	}
	if n := testing.AllocsPerRun(1000, func() { send(long); send(short) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestMonotone(t *testing.T) {
	now := time.Unix(1000, 0)
	var m monotone
	first, raised := m.next(now)
	if !raised {
		t.Error("the first value is not reserved")
	}
	second, raised := m.next(now)
	if second <= first || raised {
		t.Errorf("then %d after %d, raised %v", second, first, raised)
	}
	if back, _ := m.next(now.Add(-time.Hour)); back <= second {
		t.Error("a clock that was set back sets the values back")
	}
	if far, raised := m.next(now.Add(time.Hour)); !raised || far <= second {
		t.Error("past the ceiling no new one is reserved")
	}
	again := resumeClock(m.ceiling)
	if v, raised := again.next(now.Add(-24 * time.Hour)); v <= m.last || !raised {
		t.Errorf("after a restart with a clock set back: %d after %d", v, m.last)
	}
}

func TestCookies(t *testing.T) {
	now := time.Now()
	keys, _ := identity.NewNodeKeys()
	other, _ := identity.NewNodeKeys()
	own := keys.StaticPublic()
	here, there := netip.MustParseAddrPort("192.0.2.1:5"), netip.MustParseAddrPort("192.0.2.2:5")
	body := bytes.Repeat([]byte{7}, minInitiation)
	var jar cookieJar

	msg := appendMACs(bytes.Clone(body), own, nil)
	if !goodMAC1(msg, own) || goodMAC1(msg, other.StaticPublic()) || goodMAC1(msg[:10], own) {
		t.Error("mac1 does not depend on the receiver's key")
	}
	if jar.goodMAC2(msg, here, now) {
		t.Error("a message without a cookie has a good mac2")
	}
	reply := jar.reply(msg, here, AES256GCM, own, now)
	if len(reply) > len(msg) || len(reply) != cookieMessage {
		t.Errorf("a reply of %d bytes to %d", len(reply), len(msg))
	}
	cookie, err := readCookie(reply, own, msg)
	if err != nil {
		t.Fatal(err)
	}
	with := appendMACs(bytes.Clone(body), own, cookie)
	if !jar.goodMAC2(with, here, now) || jar.goodMAC2(with, there, now) {
		t.Error("the cookie is not bound to the address")
	}
	if !jar.goodMAC2(with, here, now.Add(cookieLife+time.Second)) {
		t.Error("the cookie does not outlast one change of the secret")
	}
	if jar.goodMAC2(with, here, now.Add(3*cookieLife)) {
		t.Error("the cookie lives too long")
	}
	if _, err := readCookie(reply, own, appendMACs(body[1:], own, nil)); err == nil {
		t.Error("the reply to another message is accepted")
	}
	if _, err := readCookie(reply, other.StaticPublic(), msg); err == nil {
		t.Error("the reply of another node is accepted")
	}
}

func pairOf(t testing.TB) (a, b *pair) {
	t.Helper()
	ka, _ := identity.NewNodeKeys()
	kb, _ := identity.NewNodeKeys()
	network := identity.NewNetworkID()
	a, err := newPair(network, ka, 1, 2, kb.StaticPublic())
	if err != nil {
		t.Fatal(err)
	}
	b, err = newPair(network, kb, 2, 1, ka.StaticPublic())
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestSignals(t *testing.T) {
	a, b := pairOf(t)
	in := signal{sequence: 9, kind: signalOffer, mapping: MappingIndependent, attempt: 4, candidates: []Candidate{
		{Addr: netip.MustParseAddrPort("192.0.2.1:5000")},
		{Addr: netip.MustParseAddrPort("[2001:db8::1]:5001"), Reflexive: true},
	}}
	sealed := a.sealSignal(in)
	got, err := b.openSignal(sealed)
	if err != nil || got.sequence != 9 || got.kind != signalOffer || got.attempt != 4 ||
		got.mapping != MappingIndependent || len(got.candidates) != 2 || got.candidates[1] != in.candidates[1] {
		t.Errorf("openSignal = %+v, %v", got, err)
	}
	if _, err := a.openSignal(sealed); err == nil {
		t.Error("a signal opens in the wrong direction: it could be reflected")
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := b.openSignal(bad); err == nil {
			t.Fatalf("a signal with byte %d changed opens", i)
		}
	}
	for range 100 {
		in.candidates = append(in.candidates, in.candidates[0])
	}
	if got, err := b.openSignal(a.sealSignal(in)); err != nil || len(got.candidates) != maxCandidates {
		t.Errorf("%d candidates, %v", len(got.candidates), err)
	}
	if n := len(a.sealSignal(in)); n > maxSignal || n > 2048 {
		t.Errorf("a full signal has %d bytes", n)
	}
}

// A peer must not make us knock at our own services, at groups, or at nobody.
func TestBadCandidatesAreLeftOut(t *testing.T) {
	a, b := pairOf(t)
	in := signal{kind: signalOffer}
	for _, addr := range []string{
		"127.0.0.1:22", "[::1]:22", "0.0.0.0:1", "224.0.0.1:5353", "[ff02::1]:1", "255.255.255.255:9", "[fe80::1]:7",
		"192.0.2.1:0", "[::ffff:127.0.0.1]:22",
	} {
		in.candidates = append(in.candidates, Candidate{Addr: netip.MustParseAddrPort(addr)})
	}
	got, err := b.openSignal(a.sealSignal(in))
	if err != nil || len(got.candidates) != 0 {
		t.Errorf("%+v, %v", got.candidates, err)
	}
}

func TestICECredentials(t *testing.T) {
	a, b := pairOf(t)
	seen := map[string]bool{}
	for _, attempt := range []uint64{0, 1, 1 << 60} {
		for _, side := range []identity.ID{1, 2} {
			u1, p1, err1 := a.iceCredentials(side, attempt)
			u2, p2, err2 := b.iceCredentials(side, attempt)
			if err1 != nil || err2 != nil || u1 != u2 || p1 != p2 {
				t.Errorf("the two sides do not agree: %s/%s, %s/%s", u1, p1, u2, p2)
			}
			if len(u1) < 4 || len(p1) < 22 || seen[u1] || seen[p1] { // RFC 8445 section 5.3
				t.Errorf("credentials %s/%s", u1, p1)
			}
			seen[u1], seen[p1] = true, true
		}
	}
}

// X14: a peer whose key is a point of low order is no peer.
func TestLowOrderKeys(t *testing.T) {
	keys, _ := identity.NewNodeKeys()
	points := [][]byte{
		make([]byte, 32),
		append([]byte{1}, make([]byte, 31)...),
		{0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
		{0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57},
		append([]byte{0xec}, append(bytes.Repeat([]byte{0xff}, 30), 0x7f)...),
		append([]byte{0xed}, append(bytes.Repeat([]byte{0xff}, 30), 0x7f)...),
		append([]byte{0xee}, append(bytes.Repeat([]byte{0xff}, 30), 0x7f)...),
	}
	for _, p := range points {
		if _, err := newPair(identity.NewNetworkID(), keys, 1, 2, identity.StaticPublicKey(p)); err == nil {
			t.Errorf("key %x accepted", p)
		}
	}
}

func TestSuite(t *testing.T) {
	if suiteOf(true, true) != AES256GCM || suiteOf(true, false) != ChaCha20Poly1305 || suiteOf(false, true) != ChaCha20Poly1305 {
		t.Error("suiteOf is wrong")
	}
}
