package vswitch

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// A bucket against the plainest model: tokens drip in up to the burst, and each frame takes out as many as it has octets. How much
// passes is the same, to a part in a thousand; nanoseconds are rounded.
func TestBucketGolden(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, limit := range []rate{{8_000, 0}, {64_000, 0}, {1_000_000, 0}, {10_000_000, 3000}, {1_000_000_000, 100_000}, {10_000_000_000, 1 << 20}} {
		var b bucket
		perSecond := float64(limit.bits) / 8
		depth := float64(limit.bears()) * perSecond / 1e9
		tokens, now, got, want := depth, time.Duration(0), 0.0, 0.0
		for range 50_000 {
			octets := 60 + r.IntN(1455)
			gap := time.Duration(r.Int64N(limit.time(800))) // twice as much is offered as may pass
			now += gap
			tokens = min(depth, tokens+gap.Seconds()*perSecond)
			if float64(octets) <= tokens {
				tokens -= float64(octets)
				want += float64(octets)
			}
			asked := b.takes(limit, octets, octets, now, false)
			if b.takes(limit, octets, octets, now, true) != asked {
				t.Fatalf("%+v: who asks hears something else", limit)
			}
			if asked {
				got += float64(octets)
			}
		}
		if math.Abs(got/want-1) > 0.001 {
			t.Errorf("%+v: %.0f octets have passed, want %.0f", limit, got, want)
		}
		if over := (got-depth)/(now.Seconds()*perSecond) - 1; over > 0.001 {
			t.Errorf("%+v: %.1f %% more than the rate has passed", limit, 100*over)
		}
	}
}

// A rate is kept in each direction by itself, has a counter and a reason of its own, and what is too much for one port still goes to
// others.
func TestRates(t *testing.T) {
	for _, c := range []struct {
		key  string
		in   bool
		says policy.Identity
	}{{"rate_in", true, 21}, {"rate_out", false, 1}} {
		m := newMesh(t, false)
		m.grant(members(1, 2, 3, 21, siteB))
		m.says(21, data(macAt(1), macAt(21), experimental, "here I am"))
		m.heard()
		m.set(3, "vlan 20", c.key+"=1mbit", strings.Replace(c.key, "rate", "burst", 1)+"=3000")
		start, to := m.now, map[bool]policy.Identity{true: 1, false: 21}[c.in]
		frame := data(macAt(to), macAt(c.says), experimental, strings.Repeat("x", 486)) // 500 octets: 4 ms
		for ms := range 2000 {
			m.now = start.Add(time.Duration(ms) * time.Millisecond)
			m.says(c.says, frame)
		}
		// At once 3000 octets, and then one every 4 ms.
		if got := m.heard(); got[to] < 500 || got[to] > 510 {
			t.Errorf("%s: %d frames have passed, want 505", c.key, got[to])
		}
		stats := m.ports[3]["vlan 20"].Stats()
		if over := stats.RxRate + stats.TxRate; over < 1490 || (stats.RxRate == 0) == c.in || over != m.dropped(3, DropRate) {
			t.Errorf("%s: counted are %+v, dropped %d", c.key, stats, m.dropped(3, DropRate))
		}
		long := data(ether.Broadcast, macAt(c.says), experimental, strings.Repeat("x", 1486))
		for range 2 {
			m.says(c.says, long)
		}
		if got := m.heard(); got[siteB] != map[bool]int{false: 2}[c.in] || got[21] > 1 {
			t.Errorf("%s: of two broadcasts are heard %v", c.key, got)
		}
		m.set(3, "vlan 20", c.key+"=0")
		m.says(c.says, frame)
		m.expect(c.key+"=0", sent{to: 1})
	}
}

// Of what an administrator wants to hear of, a rate hides nothing: a BPDU over the rate still disables a port with guard.
func TestRateHidesNoBPDU(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, 21))
	m.set(3, "vlan 20", "rate_in=8kbit", "burst_in=1", "guard=on")
	for range 5 {
		m.says(21, data(macAt(1), macAt(21), experimental, strings.Repeat("x", 486)))
	}
	if m.dropped(3, DropRate) == 0 {
		t.Fatal("the rate is not exceeded")
	}
	bpdu := data(ether.MAC{1, 0x80, 0xc2}, macAt(21), 7, "\x42\x42\x03\x00\x00\x00\x80")
	m.says(21, bpdu)
	if m.ports[3]["vlan 20"].Fault(m.now) == nil {
		t.Error("the port is not disabled")
	}
}

// A frame that is longer than the burst passes when nothing is owed, and then at the rate.
func TestRateOfOneFrame(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, 21))
	m.says(21, data(macAt(1), macAt(21), experimental, "here I am"))
	m.set(3, "vlan 20", "rate_in=1mbit", "burst_in=1")
	frame, start := data(macAt(1), macAt(21), experimental, strings.Repeat("x", 486)), m.now // 4 ms
	for _, c := range []struct {
		at   time.Duration
		want Drop
	}{{0, Forwarded}, {0, DropRate}, {3999 * time.Microsecond, DropRate}, {4 * time.Millisecond, Forwarded}, {time.Second, Forwarded}, {time.Second, DropRate}} {
		m.now = start.Add(c.at)
		if d := m.says(21, frame); d != c.want {
			t.Errorf("at %v: %q, want %q", c.at, d.Code(), c.want.Code())
		}
	}
}

// Of a frame for many that goes over a link once for each grant, the copies after one that is too much are too much, too, and counted
// once; what fits goes.
func TestRateOfCopies(t *testing.T) {
	m := newMesh(t, false)
	storm := datagram(1, ether.Broadcast, everybody4)
	broadcast := terms(t, "broadcast")
	m.grant(members(1, 2), reaches(20, 1, 21, broadcast...), reaches(21, 1, 22, broadcast...), reaches(22, 1, 31, broadcast...))
	m.set(1, "link 3", "rate_out=8kbit", "burst_out=1")
	out := m.ports[1]["link 3"]
	for i, want := range []PortStats{{TxFrames: 1, TxRate: 1}, {TxFrames: 1, TxRate: 2}} {
		if d := m.segments[1].Forward(m.ports[1]["tap"], storm, ether.Offload{}, Tag{}, 0, m.now); d != Forwarded { // node 2 has it
			t.Errorf("%q", d.Code())
		}
		if got := out.Stats(); got.TxFrames != want.TxFrames || got.TxRate != want.TxRate {
			t.Errorf("frame %d: %+v, want %+v", i, got, want)
		}
	}
	e := m.segments[1].Explain(m.ports[1]["tap"], storm, Tag{}, m.now)
	for _, r := range e.Receivers {
		if r.Port == out && r.Who >= 21 && r.Drop != DropRate {
			t.Errorf("explained for %d: %q", r.Who, r.Drop.Code())
		}
	}
}

// Copies onto a VLAN, each to a host of its own, exceed the rate of its port as any frame does.
func TestRateOfCopiesToHosts(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, 2), reaches(20, 1, 21, terms(t, "broadcast")...))
	m.set(3, "vlan 20", "rate_out=8kbit", "burst_out=1")
	storm := datagram(1, ether.Broadcast, everybody4)
	for _, want := range []bool{true, false} {
		if d := m.forward(3, m.ports[3]["link 1"], storm, Tag{Source: 1, Grant: 20}); (d == Forwarded) != want {
			t.Errorf("%q, want forwarded %v", d.Code(), want)
		}
	}
	if n := m.ports[3]["vlan 20"].Stats(); n.TxFrames != 1 || n.TxRate != 1 {
		t.Errorf("the port has sent %d, and %d were too much", n.TxFrames, n.TxRate)
	}
}

// A super-frame counts as what it is cut into, headers and all, and passes as long as the first of these may.
func TestRateOfSuperFrames(t *testing.T) {
	const size, count = 1000, 19
	n := 28 + size*count
	head := "\x45\x00" + string([]byte{byte(n >> 8), byte(n)}) + "\x00\x00\x00\x00\x40\x11\x00\x00" + "\xc0\x00\x02\x01" + "\xe1\x01\x02\x03" +
		"\x13\x88\x13\x89" + string([]byte{byte((n - 20) >> 8), byte(n - 20)}) + "\x00\x00"
	frame := data(ether.MAC{1, 0, 0x5e, 1, 2, 3}, macOf(1), ether.TypeIPv4, head+string(make([]byte, size*count)))
	undone := ether.Offload{Checksum: true, Start: 34, Field: 6, Size: size}
	if all, first := octetsOf(frame, undone); all != count*1042 || first != 1042 {
		t.Errorf("%d octets, of which the first frame has %d", all, first)
	}
	if all, first := octetsOf(frame, ether.Offload{}); all != len(frame) || first != len(frame) {
		t.Errorf("a frame has %d octets, %d", all, first)
	}
	r := newRig(t)
	a := r.ports[1].Attributes()
	a.RateIn = 8 * count * 1042 // one super-frame a second
	a.BurstIn = 1042
	r.ports[1].SetAttributes(a)
	passed, start := 0, r.now
	for ms := range 10_000 {
		if d := r.seg.Forward(r.ports[1], frame, undone, Tag{}, 0, start.Add(time.Duration(ms)*time.Millisecond)); d == Forwarded {
			passed++
		} else if d != DropRate {
			t.Fatalf("%q", d.Code())
		}
	}
	if passed != 10 {
		t.Errorf("%d super-frames have passed in 10 s, want 10", passed)
	}
}

// Rates and sizes as tc(8) takes them: its units, in any case.
func TestTCUnits(t *testing.T) {
	for _, c := range []struct {
		key, value string
		want       int64 // -1: refused
		text       string
	}{
		{"rate_in", "0", 0, "0"},
		{"rate_in", "8000", 8000, "8kbit"},
		{"rate_in", "8001", 8001, "8001"},
		{"rate_in", "8001bit", 8001, "8001"},
		{"rate_in", "10M", 10_000_000, "10mbit"},
		{"rate_in", "10mbit", 10_000_000, "10mbit"},
		{"rate_out", "1.5Gbit", 1_500_000_000, "1500mbit"},
		{"rate_out", "1kbps", 8000, "8kbit"},
		{"rate_out", "1000bps", 8000, "8kbit"},
		{"rate_out", "1mibit", 1 << 20, "1048576"},
		{"rate_out", "1MiBps", 8 << 20, "8388608"},
		{"rate_out", "100gbit", 100_000_000_000, "100gbit"},
		{"rate_out", "0.1tbit", 100_000_000_000, "100gbit"},
		{"rate_out", "101gbit", -1, ""},
		{"rate_out", "7999", -1, ""},
		{"rate_out", "-1mbit", -1, ""},
		{"rate_out", "1e9", -1, ""},
		{"rate_out", "+9kbit", -1, ""},
		{"rate_out", "infbit", -1, ""},
		{"rate_out", "0x10000", -1, ""},
		{"rate_out", "mbit", -1, ""},
		{"rate_out", "", -1, ""},
		{"rate_out", "10 mbit", -1, ""},
		{"rate_out", "fast", -1, ""},
		{"rate_out", "1.2.3mbit", -1, ""},
		{"rate_in", "99999999999999999999gbit", -1, ""}, // more than an integer holds
		{"burst_in", "0", 0, "0"},
		{"burst_in", "1514", 1514, "1514"},
		{"burst_in", "64k", 64 << 10, "64k"},
		{"burst_in", "64kb", 64 << 10, "64k"},
		{"burst_in", "1M", 1 << 20, "1m"},
		{"burst_out", "8kbit", 1 << 10, "1k"},
		{"burst_out", "100b", 100, "100"},
		{"burst_out", "1g", 1 << 30, "1024m"},
		{"burst_out", "2g", -1, ""},
		{"burst_out", "99999999999999999999g", -1, ""},
		{"burst_out", "64q", -1, ""},
	} {
		a := DefaultAttributes()
		err := a.Set(c.key, c.value)
		if (err != nil) != (c.want < 0) {
			t.Errorf("%s=%q: %v", c.key, c.value, err)
			continue
		}
		if err != nil {
			if a != DefaultAttributes() || !strings.Contains(err.Error(), "tc(8)") {
				t.Errorf("%s=%q: %v, and has changed %+v", c.key, c.value, err, a)
			}
			continue
		}
		if got := a.RateIn + a.RateOut + a.BurstIn + a.BurstOut; got != c.want || a.Values()[c.key] != c.text {
			t.Errorf("%s=%q is %d, shown as %s; want %d, %s", c.key, c.value, got, a.Values()[c.key], c.want, c.text)
		}
	}
}

func FuzzRate(f *testing.F) {
	f.Add("10mbit")
	f.Add("1.5gibps")
	f.Add("64kb")
	f.Fuzz(func(t *testing.T, text string) {
		for _, key := range []string{"rate_in", "burst_in"} {
			a, b := DefaultAttributes(), DefaultAttributes()
			if a.Set(key, text) != nil {
				continue
			}
			if a.RateIn != 0 && (a.RateIn < minBits || a.RateIn > maxBits) || a.BurstIn < 0 || a.BurstIn > maxBurst {
				t.Errorf("%s=%q is %+v", key, text, a)
			}
			if err := b.Set(key, a.Values()[key]); err != nil || a != b {
				t.Errorf("%s=%q is shown as %s, which is %v, %+v", key, text, a.Values()[key], err, b)
			}
		}
	})
}
