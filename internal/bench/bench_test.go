package bench

import (
	"context"
	"errors"
	"math"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/transport"
)

// ticking is a clock that has gone on by a millisecond whenever it is read.
func ticking(ctx context.Context, each time.Duration) meter {
	now := time.Unix(0, 0)
	return meter{ctx, each, func() time.Time {
		now = now.Add(time.Millisecond)
		return now
	}}
}

func same(got, want float64) bool { return math.Abs(got-want) <= want/1e6 }

// Under a clock that the test knows, every figure is what the counts and the clock make it. A round reads the clock twice,
// so each half of it takes 1 ms.
func TestFiguresAreCountsOverTime(t *testing.T) {
	m := ticking(t.Context(), 10*time.Millisecond)
	c, err := m.cipher(transport.AES256GCM)
	if err != nil {
		t.Fatal(err)
	}
	if want := 1e6 / transport.MaxBurst; !same(c.SealNS, want) || !same(c.OpenNS, want) || !same(c.SealGB, transport.FullDatagram/want) ||
		!same(c.OpenGB, transport.FullDatagram/want) || c.DatagramBytes != transport.FullDatagram || c.Suite != "AES-256-GCM" {
		t.Errorf("%+v, want %v ns", c, want)
	}
	f, err := m.frames(transport.AES256GCM, 64)
	if err != nil {
		t.Fatal(err)
	}
	if f != (Frames{Bytes: 64, Out: 32000, In: 32000, Both: 16000}) {
		t.Errorf("%+v, want 32 frames in each millisecond", f)
	}
	s, err := m.stream(transport.ChaCha20Poly1305)
	if err != nil {
		t.Fatal(err)
	}
	if s.Out != s.In || s.Estimate != s.Out || !same(s.Both, s.Out/2) || s.Out < 440 || s.Out > 480 {
		t.Errorf("%+v, want a super-frame's 58 kB in each millisecond", s)
	}
}

// The two things are timed apart, for as long as was asked, and a failure is no figure.
func TestAlternate(t *testing.T) {
	m := meter{t.Context(), 60 * time.Millisecond, time.Now}
	sleep := func(d time.Duration) func() error {
		return func() error { time.Sleep(d); return nil }
	}
	rounds, first, second, err := m.alternate(sleep(time.Millisecond), sleep(4*time.Millisecond))
	if err != nil || rounds == 0 || rounds > 12 || first < time.Duration(rounds)*time.Millisecond ||
		second < time.Duration(rounds)*4*time.Millisecond || first+second < m.each {
		t.Errorf("%d rounds, %v and %v, %v", rounds, first, second, err)
	}
	bad := errors.New("bad")
	for _, fail := range []int{0, 1} {
		list := []func() error{sleep(0), sleep(0)}
		list[fail] = func() error { return bad }
		if _, _, _, err := m.alternate(list[0], list[1]); !errors.Is(err, bad) {
			t.Errorf("%v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, _, err := (meter{ctx, time.Hour, time.Now}).alternate(sleep(0), sleep(0)); !errors.Is(err, context.Canceled) {
		t.Errorf("after an interruption: %v", err)
	}
}

// Frames that the switch refuses are an error and not a figure.
func TestRefusedFramesAreNotMeasured(t *testing.T) {
	f := packet(ether.ProtoUDP, 64)
	f[11]++ // another's address
	if c, err := ticking(t.Context(), time.Millisecond).carry(transport.AES256GCM, [][]byte{f}, ether.Offload{}); err == nil {
		t.Errorf("%+v", c)
	}
}

// On this machine, with its own clock: everything is there, and possible.
func TestRunWithoutPrograms(t *testing.T) {
	r, err := Run(t.Context(), Config{Each: 20 * time.Millisecond, Bin: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if r.Network != nil || r.NoNetwork == "" {
		t.Errorf("without the programs: %+v, %q", r.Network, r.NoNetwork)
	}
	var suites []string
	for _, c := range r.Ciphers {
		suites = append(suites, c.Suite)
		for _, ns := range []float64{c.SealNS, c.OpenNS} {
			if ns < 20 || ns > 1e6 {
				t.Errorf("%s: %v ns for a datagram", c.Suite, ns)
			}
		}
	}
	if !slices.Equal(suites, []string{"AES-256-GCM", "ChaCha20-Poly1305"}) || !slices.Contains(suites, r.Suite) {
		t.Errorf("ciphers %v, in use %s", suites, r.Suite)
	}
	if len(r.Frames) != 2 || r.Frames[0].Bytes != 64 || r.Frames[1].Bytes != 1514 {
		t.Fatalf("%+v", r.Frames)
	}
	for _, f := range r.Frames {
		if f.Both < 100 || f.Both >= min(f.Out, f.In) || max(f.Out, f.In) > 1e8 {
			t.Errorf("%+v", f)
		}
	}
	if s := r.Stream; s.Estimate < 1 || s.Estimate != min(s.Out, s.In) || s.Both >= s.Estimate || s.Estimate > 1e6 {
		t.Errorf("%+v", s)
	}
}

// slow is a connection that takes its time for each write and counts what passes.
type slow struct {
	net.Conn
	pause time.Duration
	every int // only one of so many writes is real
	count int
}

func (s *slow) Write(b []byte) (int, error) {
	time.Sleep(s.pause)
	if s.count++; s.count%s.every != 0 {
		return len(b), nil
	}
	return s.Conn.Write(b)
}

// A stream is as fast as it arrives.
func TestStreamIsMeasured(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	const pause = 10 * time.Millisecond
	most := float64(1<<17*8) / pause.Seconds() / 1e6
	got, err := stream(t.Context(), l, &slow{Conn: conn, pause: pause, every: 1}, 200*time.Millisecond)
	if err != nil || got < most/20 || got > most {
		t.Errorf("%.1f Mbit/s, %v; at most %.1f are sent", got, err, most)
	}
}

// Datagrams count where they arrive, and not where they are sent.
func TestDatagramsAreMeasured(t *testing.T) {
	for every, want := range map[int]bool{1: true, 4: true, 1 << 30: false} {
		in, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("udp4", in.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		s := &slow{Conn: conn, pause: time.Millisecond, every: every}
		const each = 100 * time.Millisecond
		got, err := datagrams(t.Context(), in, s, each)
		if (err == nil) != want {
			t.Errorf("one of %d is sent: %v, %v", every, got, err)
		}
		if sent := per(float64(s.count/every), each); got > sent || want && got < sent/2 {
			t.Errorf("%v each second of %v that were sent", got, sent)
		}
	}
}

// An interruption ends a measurement whose far end never answers.
func TestInterrupted(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, _ := net.Pipe() // nobody reads
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got, err := stream(ctx, l, a, time.Hour); err == nil {
		t.Errorf("%v", got)
	}
}
