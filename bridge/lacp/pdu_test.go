package lacp

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// golden is a LACPDU written by hand from IEEE 802.1AX-2014 figure 6-7: a switch in sync, and what it has heard of a gateway.
const golden = "0180c2000002" + "00005e005309" + "8809" + "01" + "01" +
	"01" + "14" + "1000" + "00005e005309" + "0005" + "0080" + "0003" + "3f" + "000000" +
	"02" + "14" + "8000" + "020000000001" + "0001" + "8000" + "0007" + "c7" + "000000" +
	"03" + "10" + "0000" + "000000000000000000000000" + "00" + "00"

// goldenMarker is a marker request, and its answer (figure 6-29).
const (
	goldenMarker = "0180c2000002" + "00005e005309" + "8809" + "02" + "01" + "01" + "10" + "0003" + "00005e005309" + "0000002a" + "0000" + "00" + "00"
	goldenAnswer = "0180c2000002" + "020700000000" + "8809" + "02" + "01" + "02" + "10" + "0003" + "00005e005309" + "0000002a" + "0000" + "00" + "00"
)

// whole is a frame, with its reserved bytes, from what is not 0 of it.
func whole(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return append(b, make([]byte, ether.HeaderLen+pduLen-len(b))...)
}

// The form on the wire is the standard's.
func TestGolden(t *testing.T) {
	want := PDU{
		End{theirs, 5, 128, 3, Activity | ShortTimeout | Aggregation | Sync | Collecting | Distributing},
		End{ours, 1, 32768, 7, Activity | ShortTimeout | Aggregation | Defaulted | Expired},
	}
	frame := whole(t, golden)
	got, err := ParsePDU(frame[ether.HeaderLen:])
	if err != nil || got != want || !Is(frame) {
		t.Errorf("%+v, %v", got, err)
	}
	if b := want.AppendFrame(nil, theirs.MAC); hex.EncodeToString(b) != hex.EncodeToString(frame) || len(b) != 124 {
		t.Errorf("%x", b)
	}
	if text := want.Actor.State.String(); text != "activity short-timeout aggregation sync collecting distributing" {
		t.Error(text)
	}
	if text := want.Actor.System.String(); text != "4096,00:00:5e:00:53:09" {
		t.Error(text)
	}
}

// What is no LACPDU changes nothing; what a later version or a sloppy switch may write is read.
func TestParse(t *testing.T) {
	const at = ether.HeaderLen
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte
		want   error
	}{
		{"as it is", func(b []byte) []byte { return b }, nil},
		{"padded", func(b []byte) []byte { return append(b, 1, 2, 3) }, nil},
		{"version 2", func(b []byte) []byte { b[at+1] = 2; return b }, nil},
		{"reserved bytes", func(b []byte) []byte { b[at+20], b[at+109] = 9, 9; return b }, nil},
		{"another collector", func(b []byte) []byte { b[at+42], b[at+43] = 9, 9; return b }, nil},
		{"cut", func(b []byte) []byte { return b[:at+pduLen-1] }, ErrForm},
		{"subtype alone", func(b []byte) []byte { return b[:at+1] }, ErrForm},
		{"version 0", func(b []byte) []byte { b[at+1] = 0; return b }, ErrForm},
		{"no actor", func(b []byte) []byte { b[at+2] = 2; return b }, ErrForm},
		{"an actor of another length", func(b []byte) []byte { b[at+3] = 19; return b }, ErrForm},
		{"no partner", func(b []byte) []byte { b[at+22] = 1; return b }, ErrForm},
		{"a partner of another length", func(b []byte) []byte { b[at+23] = 21; return b }, ErrForm},
		{"a system that is a group", func(b []byte) []byte { b[at+6] = 1; return b }, ErrForm},
		{"a system that is none", func(b []byte) []byte { copy(b[at+6:at+12], make([]byte, 6)); return b }, ErrForm},
		{"another slow protocol", func(b []byte) []byte { b[at] = 3; return b }, ErrSubtype},
	} {
		x := newCable(t)
		err := x.p.Hear(c.change(whole(t, golden)), x.now)
		s := x.p.Status().Stats
		if !errors.Is(err, c.want) || (s.Heard == 1) != (c.want == nil) || (s.Refused == 1) != (c.want != nil) {
			t.Errorf("%s: %v, want %v; %+v", c.name, err, c.want, s)
		}
		if _, err := ParsePDU(c.change(whole(t, golden))[at:]); (err == nil) != (c.want == nil) {
			t.Errorf("%s: ParsePDU gives %v", c.name, err)
		}
		if (x.p.partner.System == theirs) != (c.want == nil) {
			t.Errorf("%s: partner %v", c.name, x.p.partner)
		}
	}
}

// A frame of a slow protocol is known by both, destination and type, and is not tagged.
func TestIs(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b []byte) []byte
		want   bool
	}{
		"LACPDU":              {func(b []byte) []byte { return b }, true},
		"another destination": {func(b []byte) []byte { b[5] = 3; return b }, false},
		"another type":        {func(b []byte) []byte { b[13] = 8; return b }, false},
		"tagged":              {func(b []byte) []byte { return append(append(b[:12:12], 0x81, 0, 0, 0), b[12:]...) }, false},
		"a header alone":      {func(b []byte) []byte { return b[:14] }, false},
		"nothing":             {func([]byte) []byte { return nil }, false},
	} {
		if got := Is(c.change(whole(t, golden))); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if !Group().IsReserved() {
		t.Error("bridges pass it on")
	}
}

// A marker request is answered, five times in a second at most; what is none is not.
func TestMarker(t *testing.T) {
	const at = ether.HeaderLen
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte
		want   error
	}{
		{"a request", func(b []byte) []byte { return b }, nil},
		{"a response", func(b []byte) []byte { b[at+2] = typeResponse; return b }, ErrForm},
		{"of another length", func(b []byte) []byte { b[at+3] = 15; return b }, ErrForm},
		{"version 0", func(b []byte) []byte { b[at+1] = 0; return b }, ErrForm},
		{"cut", func(b []byte) []byte { return b[:at+pduLen-1] }, ErrForm},
	} {
		x := newCable(t)
		x.frames()
		err := x.p.Hear(c.change(whole(t, goldenMarker)), x.now)
		frames := x.frames()
		if !errors.Is(err, c.want) || (len(frames) == 1) != (c.want == nil) {
			t.Errorf("%s: %v, want %v; sent %x", c.name, err, c.want, frames)
		}
		if c.want == nil && hex.EncodeToString(frames[0]) != hex.EncodeToString(whole(t, goldenAnswer)) {
			t.Errorf("it answers %x", frames[0])
		}
	}
	x := newCable(t)
	x.frames()
	for i := range 20 {
		if err := x.p.Hear(whole(t, goldenMarker), x.now); (err == nil) != (i < maxMarkers) || err != nil && !errors.Is(err, ErrMany) {
			t.Errorf("request %d: %v", i, err)
		}
	}
	if n := len(x.frames()); n != maxMarkers || x.p.Status().Stats.Markers != maxMarkers {
		t.Errorf("%d answers", n)
	}
	if err := x.p.Hear(whole(t, goldenMarker), x.now.Add(time.Second)); err != nil {
		t.Errorf("a second later: %v", err)
	}
}

// Whatever comes in, what parses is written again as it was, what does not leaves the port as it is, and nothing makes it carry
// that does not name it as its partner.
func FuzzHear(f *testing.F) {
	f.Add(whole(f, golden))
	f.Add(whole(f, goldenMarker))
	f.Add(whole(f, golden)[:60])
	f.Add(whole(f, strings.Replace(golden, "c7", "3d", 1)))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if !Is(frame) {
			return
		}
		p, err := New(Config{System: ours, Key: 1, Port: 7, PortPriority: 32768, MAC: ether.MAC{2, 7}})
		if err != nil {
			t.Fatal(err)
		}
		p.SetConditions(Conditions{Enabled: true, Ready: true}, epoch)
		was := p.partner
		err = p.Hear(frame, epoch)
		pdu, bad := ParsePDU(frame[ether.HeaderLen:])
		if bad != nil {
			if p.partner != was || err == nil && frame[ether.HeaderLen] != subtypeMarker {
				t.Fatalf("%x: partner %+v, %v", frame, p.partner, err)
			}
			return
		}
		again, err := ParsePDU(pdu.AppendFrame(nil, ether.MAC{2, 9})[ether.HeaderLen:])
		if err != nil || again != pdu {
			t.Fatalf("%+v is read again as %+v, %v", pdu, again, err)
		}
		for now := epoch; now.Before(epoch.Add(4 * time.Second)); now = now.Add(500 * ms) {
			if err := p.Hear(frame, now); err != nil {
				t.Fatal(err)
			}
			p.Tick(now)
		}
		if p.Collects() && (pdu.Partner.System != ours || pdu.Partner.Port != 7 || pdu.Partner.Key != 1 || pdu.Actor.System == ours || pdu.Actor.State&Sync == 0) {
			t.Fatalf("it carries for %+v", pdu)
		}
	})
}

// Who floods a gateway with what is none costs it no memory.
func TestRefusedDoNotAllocate(t *testing.T) {
	x := newCable(t)
	bad, good := whole(t, golden), whole(t, golden)
	bad[ether.HeaderLen+3] = 1
	if n := testing.AllocsPerRun(100, func() { _ = x.p.Hear(bad, x.now); _ = x.p.Hear(good, x.now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
