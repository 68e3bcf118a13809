package lab

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"
)

// Ten thousand broadcasts at some thousand a second come to everybody once and to their sender never (cases F10 and
// F11), through a switch of the kernel, and all that can go wrong with a train is noticed.
func TestTrain(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	lan := must(l.AddBridge("lan"))(t)
	hosts := [3]*Host{}
	captures := [3]*Capture{}
	for i := range hosts {
		hosts[i] = bare(t, l, string(rune('a'+i)))
		must(hosts[i].Join(lan, "eth0"))(t)
		captures[i] = must(hosts[i].CaptureArrivals("eth0"))(t)
	}
	tr := NewTrain(Ethernet(Broadcast(), mac(1), Experimental), 10000, 200*time.Microsecond)
	start := time.Now()
	if n := must(hosts[0].SendTrain(t.Context(), "eth0", tr))(t); n != tr.Count {
		t.Errorf("%d frames sent", n)
	}
	if d := time.Since(start); d < 1900*time.Millisecond {
		t.Errorf("10000 frames at 5000 a second took %s", d)
	}
	for i, want := range []int{0, tr.Count, tr.Count} {
		a := must(captures[i].AwaitTrain(t.Context(), tr, tr.Head, brief))(t)
		if err := a.Exactly(want); err != nil || a.Reordered != 0 {
			t.Errorf("at %s: %v, %d reordered", hosts[i].Name(), err, a.Reordered)
		}
		if d := a.Last.Sub(a.First); want > 0 && (d < 1900*time.Millisecond || a.First.Before(start)) {
			t.Errorf("they came within %s, the first %s after the start", d, a.First.Sub(start))
		}
	}

	bad := NewTrain(tr.Head, 10, 0)
	changed, short, beyond := bad.Frame(5), bad.Frame(6), bad.Frame(10)
	changed[len(changed)-1] ^= 1
	tagged := bad
	tagged.Head = Ethernet(Broadcast(), mac(1), Experimental, Tag{VLAN: 10})
	check(t, hosts[0].SendFrames("eth0", bad.Frame(0), bad.Frame(3), bad.Frame(3), bad.Frame(1), changed, short[:len(short)-1], beyond, tagged.Frame(7)))
	got := must(captures[1].AwaitTrain(t.Context(), bad, bad.Head, brief))(t)
	if got.Whole != 3 || got.Extra != 1 || got.Changed != 4 || got.Reordered != 1 || !bytes.Equal(got.Example, changed) {
		t.Errorf("of a bad train: %+v", got)
	}
	for _, a := range []Arrivals{{Whole: 9}, {Whole: 11}, {Whole: 10, Extra: 1}, {Whole: 10, Changed: 1}} {
		if a.Exactly(10) == nil {
			t.Errorf("%+v is exactly 10", a)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := hosts[0].SendTrain(ctx, "eth0", tr); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled train: %d frames, %v", n, err)
	}
	if err := hosts[0].SendFrames("nosuch", tr.Frame(0)); err == nil {
		t.Error("a frame was sent on an interface that does not exist")
	}
}

// A train of frames as long as the MTU allows, and one whose tag is taken off on the way.
func TestTrainSizes(t *testing.T) {
	t.Parallel()
	plain, tagged := Ethernet(Broadcast(), mac(1), Experimental), Ethernet(Broadcast(), mac(1), Experimental, Tag{VLAN: 10})
	for _, c := range []struct {
		head       []byte
		size, want int
	}{{plain, 0, 60}, {tagged, 0, 60}, {plain, 1514, 1514}, {plain, 20, 26}, {tagged, 20, 30}} {
		tr := Train{Head: c.head, Size: c.size, Count: 2}
		if n := len(tr.Frame(0)); n != c.want {
			t.Errorf("size %d: %d bytes, want %d", c.size, n, c.want)
		}
		if bytes.Equal(tr.Frame(0)[len(c.head)+trainLabel:], tr.Frame(1)[len(c.head)+trainLabel:]) && c.want > 30 {
			t.Errorf("size %d: two frames have the same filling", c.size)
		}
	}
	l := newLab(t)
	a, b := bare(t, l, "a"), bare(t, l, "b")
	must(l.Cable(Plug{On: a, Name: "eth0"}, Plug{On: b, Name: "eth0"}))(t)
	capture := must(b.Capture("eth0"))(t)
	tr := NewTrain(tagged, 3, 0)
	for _, n := range []int{60, 1518} {
		tr.Size = n
		must(a.SendTrain(t.Context(), "eth0", tr))(t)
		if err := must(capture.Train(tr, tagged))(t).Exactly(3); n == 60 && err != nil {
			t.Error(err)
		}
	}
	if got := must(capture.Train(tr, tagged))(t); got.Whole != 3 || got.Changed != 3 {
		t.Errorf("of two sizes one is expected: %+v", got)
	}
	tr.Size = 1519
	if _, err := a.SendTrain(t.Context(), "eth0", tr); err == nil {
		t.Error("a frame longer than the MTU allows was sent")
	}
	without := NewTrain(tagged, 1, 0)
	taken := without
	taken.Head, taken.Size = plain, 56
	check(t, a.SendFrames("eth0", taken.Frame(0)))
	if err := must(capture.Train(without, plain))(t).Exactly(1); err != nil {
		t.Error("without the tag:", err)
	}
}
