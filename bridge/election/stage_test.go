package election

import (
	"testing"
	"time"
)

// alone makes an election of node 1 with nodes 2 and 3, which are played by the test.
func alone(t *testing.T, others ...uint32) *stage {
	t.Helper()
	e, err := New(Config{Attachment: 7, Node: 1, Gateways: others, Boot: 11, Preference: 5}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, e: e, now: epoch, seq: make(map[uint32]uint64)}
	e.SetConditions(good(), epoch)
	return s
}

// stage is one election and the time.
type stage struct {
	t    *testing.T
	e    *Election
	now  time.Time
	last Hello // that it has sent
	sent int
	seq  map[uint32]uint64
}

// wait lets time pass, a tick each 5 ms; then says what the others say each 50 ms.
func (s *stage) wait(d time.Duration, says ...Hello) {
	s.t.Helper()
	for end, n := s.now.Add(d), 0; s.now.Before(end); n++ {
		s.now = s.now.Add(5 * ms)
		s.tick()
		if n%10 == 9 {
			for _, h := range says {
				s.hear(h)
			}
		}
	}
}

func (s *stage) tick() {
	s.t.Helper()
	body, _ := s.e.Tick(s.now)
	if body == nil {
		return
	}
	h, err := ParseHello(body)
	if err != nil {
		s.t.Fatal(err)
	}
	s.last, s.sent = h, s.sent+1
}

// hear fills in what every hello has, and acknowledges the last one if its Acks are not nil.
func (s *stage) hear(h Hello) {
	s.t.Helper()
	s.seq[h.Node]++
	h.Attachment, h.Sequence = 7, s.seq[h.Node]
	if h.Lease == 0 {
		h.Lease = 400 * ms
	}
	if h.Boot == 0 {
		h.Boot = 22
	}
	if h.Acks != nil {
		h.Acks = []Ack{{1, 11, s.last.Sequence}}
	}
	if err := s.e.Hear(h.Node, Overlay, h.AppendTo(nil), s.now); err != nil {
		s.t.Fatal(err)
	}
	s.tick()
}

func (s *stage) want(forwards, claims bool, when string) {
	s.t.Helper()
	if got := s.e.Forwards(s.now); got != forwards || s.e.claims != claims {
		s.t.Fatalf("%s: forwards %v, claims %v; want %v, %v (%+v)", when, got, s.e.claims, forwards, claims, s.e.State(s.now))
	}
}

// Hellos that the others say. Acks that are not nil acknowledge.
func standby(n uint32) Hello {
	return Hello{Node: n, Able: true, Ready: true, Heard: true, Acks: []Ack{{}}}
}
func deaf(n uint32) Hello   { return Hello{Node: n, Able: true, Ready: true} }
func unable(n uint32) Hello { return Hello{Node: n} }
func claimant(n uint32) Hello {
	return Hello{Node: n, Able: true, Ready: true, Heard: true, Claims: true, Acks: []Ack{{}}}
}

// forwarding brings the election to forward, with the others standing by.
func forwarding(t *testing.T, others ...uint32) *stage {
	t.Helper()
	s := alone(t, others...)
	var says []Hello
	for _, o := range others {
		says = append(says, standby(o))
	}
	s.wait(800*ms, says...)
	s.want(true, true, "after the hold")
	return s
}
