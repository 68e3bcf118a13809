package probe

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// pair is a gateway that hears, and one whose probes the test changes.
func pair(t *testing.T) (*Guard, *Port, *message, ether.MAC) {
	t.Helper()
	g, err := New(Config{Node: 1, Boot: 77}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	p, err := g.Add(Attached{9, 6, ether.MAC{2, 1}, key(9)}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return g, p, &message{vni: 9, attachment: 5, node: 2, boot: 88, sequence: 10, hello: []byte("hi")}, ether.MAC{2, 2}
}

func sealOf(t testing.TB, vni uint32) *seal {
	g, err := New(Config{Node: 3}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Add(Attached{vni, 1, ether.MAC{2}, key(vni)}, epoch); err != nil {
		t.Fatal(err)
	}
	return g.seals[vni]
}

func hear(t testing.TB, g *Guard, attachment uint32, data []byte, now time.Time) error {
	t.Helper()
	f, err := ether.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	_, err = g.Hear(attachment, &f, now)
	return err
}

// What is not authentic, not whole, or not of now blocks nothing.
func TestRefused(t *testing.T) {
	const payload = ether.HeaderLen
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte
		want   error
		stats  Stats
	}{
		{"good", func(b []byte) []byte { return b }, nil, Stats{Heard: 1}},
		{"longer padding", func(b []byte) []byte { return append(b, 1, 2, 3) }, nil, Stats{Heard: 1}},
		{"cut in the header", func(b []byte) []byte { return b[:payload+headerLen+tagLen-1] }, ErrForm, Stats{Malformed: 1}},
		{"nothing", func(b []byte) []byte { return b[:payload] }, ErrForm, Stats{Malformed: 1}},
		{"cut in the tag", func(b []byte) []byte { return b[:payload+headerLen+2+tagLen-1] }, ErrForm, Stats{Malformed: 1}},
		{"another magic", func(b []byte) []byte { b[payload]++; return b }, ErrForm, Stats{Malformed: 1}},
		{"another version", func(b []byte) []byte { b[payload+4] = 2; return b }, ErrForm, Stats{Malformed: 1}},
		{"an unknown flag", func(b []byte) []byte { b[payload+5] = 2; return b }, ErrForm, Stats{Malformed: 1}},
		{"a reserved byte", func(b []byte) []byte { b[payload+8] = 1; return b }, ErrForm, Stats{Malformed: 1}},
		{"too long a hello", func(b []byte) []byte {
			binary.BigEndian.PutUint16(b[payload+6:], MaxHello+1)
			return append(b, make([]byte, 2*MaxHello)...)
		}, ErrForm, Stats{Malformed: 1}},
		{"a segment without key", func(b []byte) []byte { b[payload+11] = 4; return b }, ErrKey, Stats{Unknown: 1}},
		{"another source", func(b []byte) []byte { b[11]++; return b }, ErrTag, Stats{Forged: 1}},
		{"another destination", func(b []byte) []byte { b[5]++; return b }, ErrTag, Stats{Forged: 1}},
		{"says that it is blocked", func(b []byte) []byte { b[payload+5] = flagBlocked; return b }, ErrTag, Stats{Forged: 1}},
		{"another attachment", func(b []byte) []byte { b[payload+15]++; return b }, ErrTag, Stats{Forged: 1}},
		{"another node", func(b []byte) []byte { b[payload+19]++; return b }, ErrTag, Stats{Forged: 1}},
		{"another run", func(b []byte) []byte { b[payload+27]++; return b }, ErrTag, Stats{Forged: 1}},
		{"another sequence", func(b []byte) []byte { b[payload+35]++; return b }, ErrTag, Stats{Forged: 1}},
		{"another hello", func(b []byte) []byte { b[payload+36]++; return b }, ErrTag, Stats{Forged: 1}},
		{"a shorter hello", func(b []byte) []byte { b[payload+7]--; return b }, ErrTag, Stats{Forged: 1}},
		{"another tag", func(b []byte) []byte { b[payload+headerLen+2+tagLen-1]++; return b }, ErrTag, Stats{Forged: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, p, m, src := pair(t)
			data := c.change(m.appendFrame(nil, src, sealOf(t, 9)))
			if err := hear(t, g, 6, data, epoch); !errors.Is(err, c.want) {
				t.Errorf("Hear = %v, want %v", err, c.want)
			}
			if p.Blocked() != (c.want == nil) || g.Stats() != c.stats {
				t.Errorf("blocked: %v, %+v", p.Blocked(), g.Stats())
			}
		})
	}
	g, _, m, src := pair(t)
	if err := hear(t, g, 7, m.appendFrame(nil, src, sealOf(t, 9)), epoch); !errors.Is(err, ErrNoPort) {
		t.Errorf("Hear at no port = %v", err)
	}
}

// Sequences only grow; a run gives way to another only when it is silent.
func TestReplay(t *testing.T) {
	g, _, m, src := pair(t)
	s := sealOf(t, 9)
	for i, c := range []struct {
		after          time.Duration
		boot, sequence uint64
		want           error
	}{
		{0, 88, 10, nil},
		{250 * ms, 88, 10, ErrOld},
		{0, 88, 9, ErrOld},
		{0, 88, 12, nil},
		{0, 88, 11, ErrOld},
		{250 * ms, 99, 1, ErrOld}, // another run, and this one was heard just now
		{250 * ms, 99, 2, ErrOld},
		{250 * ms, 99, 3, ErrOld},
		{250 * ms, 99, 4, nil}, // the first is silent
		{250 * ms, 88, 13, ErrOld},
		{250 * ms, 99, 5, nil},
	} {
		for ; c.after > 0; c.after -= 50 * ms {
			g.Tick(g.entered.Add(50 * ms))
		}
		m.boot, m.sequence = c.boot, c.sequence
		if err := hear(t, g, 6, m.appendFrame(nil, src, s), g.entered); !errors.Is(err, c.want) {
			t.Errorf("step %d: %v, want %v", i, err, c.want)
		}
	}
}

// A probe of one's own means a loop only if it was sent just now, by this run, for a port that is there.
func TestOwnProbes(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(m *message)
		later  time.Duration
		want   error
	}{
		{"just now", func(*message) {}, 0, nil},
		{"after a second", func(*message) {}, time.Second, nil},
		{"after more than a second", func(*message) {}, 1050 * ms, ErrOld},
		{"of another run", func(m *message) { m.boot++ }, 0, ErrOld},
		{"not sent yet", func(m *message) { m.sequence++ }, 0, ErrOld},
		{"of a port that is not there", func(m *message) { m.attachment++ }, 0, ErrOld},
		{"of a port that is in another segment", func(m *message) { m.attachment = 8 }, 0, ErrOld},
		{"sent very long ago", func(m *message) { m.sequence -= recalled }, 0, ErrOld},
	} {
		g, p, m, src := pair(t)
		if _, err := g.Add(Attached{3, 8, ether.MAC{2, 3}, key(3)}, epoch); err != nil {
			t.Fatal(err)
		}
		var now time.Time
		for i := range 100 {
			now = epoch.Add(time.Duration(i) * ms)
			for _, a := range []uint32{6, 8} {
				if _, err := g.Carry(a, nil, now); err != nil {
					t.Fatal(err)
				}
			}
		}
		m.node, m.boot, m.attachment, m.sequence = 1, 77, 6, 100
		c.change(m)
		for end := now.Add(c.later); now.Before(end); g.enter(now) {
			now = now.Add(50 * ms)
		}
		if err := hear(t, g, 6, m.appendFrame(nil, src, sealOf(t, 9)), now); !errors.Is(err, c.want) || p.Blocked() != (c.want == nil) {
			t.Errorf("%s: %v, want %v; blocked: %v", c.name, err, c.want, p.Blocked())
		}
	}
}

// A probe is told from other frames by both, destination and type.
func TestIs(t *testing.T) {
	for _, c := range []struct {
		dst  ether.MAC
		typ  ether.Type
		want bool
	}{
		{Group(), EtherType, true},
		{Group(), ether.TypeIPv4, false},
		{ether.Broadcast, EtherType, false},
	} {
		if got := Is(&ether.Frame{Dst: c.dst, Type: c.typ}); got != c.want {
			t.Errorf("Is(%v, %x) = %v", c.dst, c.typ, got)
		}
	}
	if g := Group(); !g.IsGroup() || g.IsReserved() || g[0] == 1 || g[0] == 0x33 {
		t.Errorf("bridges may not flood %v", g)
	}
}

// A priority tag that a switch has put in front does not spoil a probe.
func TestTaggedProbe(t *testing.T) {
	g, p, m, src := pair(t)
	data := m.appendFrame(nil, src, sealOf(t, 9))
	tagged := slices.Concat(data[:12], []byte{0x81, 0, 0xe0, 0}, data[12:])
	if err := hear(t, g, 6, tagged, epoch); err != nil || !p.Blocked() {
		t.Errorf("Hear = %v", err)
	}
}

// Who floods a gateway with forged probes costs it no memory.
func TestForgedProbesDoNotAllocate(t *testing.T) {
	g, _, m, src := pair(t)
	data := m.appendFrame(nil, src, sealOf(t, 9))
	data[11]++
	f, err := ether.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = g.Hear(6, &f, epoch) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The form on the wire does not change unseen (docs/protocol.md, section 10). The tag was computed by another program.
func TestProbeVector(t *testing.T) {
	_, _, m, src := pair(t)
	m.blocked = true
	const want = "036c6f6f6d00" + "020200000000" + "88b5" + "6c6f6f6d" + "01" + "01" + "0002" + "00000009" + "00000005" + "00000002" +
		"0000000000000058" + "000000000000000a" + "6869" + "a427aea3e8e431a8fa7700acaa78ec57"
	if got := hex.EncodeToString(m.appendFrame(nil, src, sealOf(t, 9))); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	m.hello = nil
	if got := m.appendFrame(nil, src, sealOf(t, 9)); len(got) != ether.HeaderLen+headerLen+tagLen {
		t.Errorf("%d bytes without a hello", len(got))
	}
}

// What parses has its parts where it says, and nothing that was not sealed is authentic.
func FuzzProbe(f *testing.F) {
	m := message{vni: 9, attachment: 5, node: 2, boot: 88, sequence: 10, hello: []byte("hi"), blocked: true}
	frame := m.appendFrame(nil, ether.MAC{2, 2}, sealOf(f, 9))
	f.Add(frame)
	f.Add(frame[:30])
	f.Fuzz(func(t *testing.T, data []byte) {
		fr, err := ether.Parse(data)
		if err != nil {
			return
		}
		got, covered, tag, err := parse(fr.Payload)
		if err == nil {
			again := got.appendFrame(nil, fr.Src, sealOf(t, 9))[ether.HeaderLen:]
			if string(again[:len(covered)]) != string(covered) || len(tag) != tagLen {
				t.Errorf("%x is read as %+v", data, got)
			}
		}
		g, p, _, _ := pair(t)
		_, err = g.Hear(6, &fr, epoch)
		// What is covered by the tag is the original's, or it is refused.
		if original := string(fr.Src[:]) == string(frame[6:12]) && fr.Dst == Group() && string(covered) == string(frame[14:14+headerLen+2]); (err == nil || p.Blocked()) && !original {
			t.Errorf("forged: %x", data)
		}
	})
}
