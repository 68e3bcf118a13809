package transport

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/identity"
)

// A Cipher's datagrams are those of a link: they open once, whole, under their own session.
func TestCipher(t *testing.T) {
	for _, s := range []Suite{AES256GCM, ChaCha20Poly1305} {
		c, err := NewCipher(s)
		if err != nil {
			t.Fatal(err)
		}
		other, err := NewCipher(s)
		if err != nil {
			t.Fatal(err)
		}
		text := bytes.Repeat([]byte("text"), (FullDatagram-headerLen-tagLen)/4)
		sealed := make([]byte, FullDatagram)
		copy(sealed[headerLen:], text)
		if err := c.Seal(sealed); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(sealed, []byte("texttext")) {
			t.Errorf("%s: the text is to be read in the datagram", s)
		}
		if err := other.Open(bytes.Clone(sealed)); err == nil {
			t.Errorf("%s: another session opens it", s)
		}
		bad := bytes.Clone(sealed)
		bad[FullDatagram/2]++
		if err := c.Open(bad); err == nil {
			t.Errorf("%s: a changed datagram opens", s)
		}
		again := bytes.Clone(sealed)
		if err := c.Open(sealed); err != nil || !bytes.Equal(sealed[headerLen:FullDatagram-tagLen], text) {
			t.Errorf("%s: opened to other bytes, %v", s, err)
		}
		if err := c.Open(again); err == nil {
			t.Errorf("%s: a datagram opens twice", s)
		}
	}
	c, _ := NewCipher(AES256GCM)
	if c.Seal(make([]byte, headerLen)) == nil || c.Open(make([]byte, headerLen)) == nil {
		t.Error("a datagram without room for its tag passes")
	}
}

// hearing remembers what a Loop delivers.
type hearing struct {
	from []identity.ID
	got  []string
	shut bool
}

func (h *hearing) Receive(from identity.ID, b []byte, _ time.Time) {
	h.from, h.got = append(h.from, from), append(h.got, string(b))
}
func (h *hearing) Flush(time.Time) {}
func (h *hearing) Close()          { h.shut = true }

// A Loop delivers every message that it is sent, those too that are longer than a datagram, sealed on the way.
func TestLoop(t *testing.T) {
	h := &hearing{}
	l, err := NewLoop(ChaCha20Poly1305, 3, 4, h)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"small", strings.Repeat("middle", 200), strings.Repeat("large", 2000)}
	for range 3 {
		for _, m := range want {
			l.Sender.Send(l.Peer, []byte(m[:2]), []byte(m[2:]))
		}
		l.Sender.Flush()
		if err := l.Receive(); err != nil {
			t.Fatal(err)
		}
	}
	if len(h.got) != 9 || l.Peer.ID() != 4 {
		t.Fatalf("%d of 9 messages came", len(h.got))
	}
	for i, m := range h.got {
		if m != want[i%3] || h.from[i] != 3 {
			t.Errorf("message %d has %d bytes, from %d", i, len(m), h.from[i])
		}
	}
	if err := l.Close(); err != nil || !h.shut {
		t.Errorf("Close = %v; receiver closed: %t", err, h.shut)
	}
}

// What a Loop has lost is said, and not measured as if it had come.
func TestLoopSaysWhatIsLost(t *testing.T) {
	l, err := NewLoop(AES256GCM, 1, 2, &hearing{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	way := l.Peer.active.Load()
	lost := &Path{peer: l.Peer, out: way.path.out, addr: l.near.LocalAddr()} // where nobody reads
	lost.size.now.Store(FullDatagram)
	l.Peer.active.Store(&sending{way.epoch, lost})
	l.Sender.Send(l.Peer, nil, []byte("lost"))
	l.Sender.Flush()
	if err := l.Receive(); err == nil || !strings.Contains(err.Error(), "of 1 messages 0 came") {
		t.Errorf("Receive = %v", err)
	}
}
