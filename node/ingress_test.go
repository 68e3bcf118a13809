package node

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// newDoor is the far node of a Trial with a daemon that can ask for its state, and what receives there.
func newDoor(t *testing.T) (*Trial, *Daemon, *ingress) {
	t.Helper()
	tr, d := newTrial(t), newSite(t).daemon()
	d.byVNI.Store(&map[policy.VNI]*segment{trialVNI: tr.far})
	in := d.newIngress(0).(*ingress)
	t.Cleanup(in.Close)
	return tr, d, in
}

// stream64 cuts n frames of 64 bytes each that follow each other in one TCP stream of the near node's host.
func stream64(t *testing.T, n int) (list [][]byte) {
	t.Helper()
	frame, undone := superFrame64(t, false, n)
	cut, ok := ether.Cut(frame, undone, 1500)
	if !ok {
		t.Fatal("cannot be cut")
	}
	for f := cut.Next(nil); f != nil; f = cut.Next(nil) {
		list = append(list, f)
	}
	return list
}

// message is one that a peer sends.
type message struct {
	from   policy.Identity
	format byte
	vni    policy.VNI
	tag    vswitch.Tag
	frame  []byte
}

func (m message) bytes() []byte {
	b := make([]byte, tagSize, tagSize+len(m.frame))
	putTag(b, m.format, m.vni, m.tag)
	return append(b, m.frame...)
}

// What comes from peers is joined only if each part could have come alone, and is counted if it is refused.
func TestIngress(t *testing.T) {
	s := stream64(t, 3)
	// as is a message of the near node, changed.
	as := func(frame []byte, change ...func(*message)) message {
		m := message{trialNear, formatPartial, trialVNI, vswitch.Tag{Source: trialNear, Grant: trialGrant}, frame}
		for _, f := range change {
			f(&m)
		}
		return m
	}
	whole := func(m *message) { m.format = formatWhole }
	otherPort := bytes.Clone(s[1])
	otherPort[34+1]++
	one, two := len(s[0]), len(s[0])+64
	for _, c := range []struct {
		name      string
		in        []message
		frames    int // that the host is given
		octets    int
		malformed uint64
		drop      vswitch.Drop // that is counted once
		asks      bool         // for the whole state
	}{
		{name: "one frame", in: []message{as(s[0])}, frames: 1, octets: one},
		{name: "a stream", in: []message{as(s[0]), as(s[1]), as(s[2])}, frames: 1, octets: two + 64},
		{name: "another stream", in: []message{as(s[0]), as(otherPort)}, frames: 2, octets: 2 * one},
		{name: "a whole frame in a stream", in: []message{as(s[0]), as(s[1], whole)}, frames: 2, octets: 2 * one},
		{
			name: "another grant in a stream", in: []message{as(s[0]), as(s[1], func(m *message) { m.tag.Grant = 99 })},
			frames: 1, octets: one, drop: vswitch.Drop(policy.UnknownGrant), asks: true,
		},
		{
			name: "another source in a stream", in: []message{as(s[0]), as(s[1], func(m *message) { m.tag.Source = 9 })},
			frames: 1, octets: one, drop: vswitch.DropIdentity,
		},
		{
			name: "another segment in a stream", in: []message{as(s[0]), as(s[1], func(m *message) { m.vni = 2 })},
			frames: 1, octets: one, asks: true,
		},
		{
			name: "another peer in a stream", in: []message{as(s[0]), as(s[1], func(m *message) { m.from = 9 })},
			frames: 1, octets: one, asks: true,
		},
		{name: "a peer that is not on the segment", in: []message{as(s[0], whole, func(m *message) { m.from = 9 })}, asks: true},
		{name: "a checksum undone where there is none", in: []message{as(trialFrame(1, 64))}, malformed: 1},
		{name: "another's address", in: []message{as(trialFrame(3, 64), whole)}, drop: vswitch.Drop(policy.SourceMAC)},
	} {
		tr, d, in := newDoor(t)
		now := time.Now()
		for _, m := range c.in {
			in.Receive(identity.ID(m.from), m.bytes(), now)
		}
		in.Flush(now)
		if frames, octets := tr.Arrived(); frames != uint64(c.frames) || octets != uint64(c.octets) {
			t.Errorf("%s: %d frames with %d bytes arrived, want %d with %d", c.name, frames, octets, c.frames, c.octets)
		}
		var drops []vswitch.DropCount
		if c.drop != vswitch.Forwarded {
			drops = []vswitch.DropCount{{Drop: c.drop, Count: 1}}
		}
		if got := tr.far.sw.Drops(); !slices.Equal(got, drops) {
			t.Errorf("%s: counted %v, want %v", c.name, got, drops)
		}
		if got := d.malformed.Load(); got != c.malformed {
			t.Errorf("%s: %d are malformed, want %d", c.name, got, c.malformed)
		}
		if asks := d.resync.last.Load() != 0; asks != c.asks {
			t.Errorf("%s: asks for the state: %v", c.name, asks)
		}
	}
}

// What the host takes is asked for each stream: its segment may have been opened anew since the last.
func TestIngressJoinsWhatIsTakenNow(t *testing.T) {
	tr, _, in := newDoor(t)
	now := time.Now()
	for i, f := range stream64(t, 3) {
		in.Receive(identity.ID(trialNear), message{
			trialNear, formatPartial, trialVNI, vswitch.Tag{Source: trialNear, Grant: trialGrant}, f,
		}.bytes(), now)
		if i == 0 {
			in.Flush(now)
			tr.far.takes = ether.Offloads{}
		}
	}
	in.Flush(now)
	if frames, _ := tr.Arrived(); frames != 3 {
		t.Errorf("a host that takes nothing undone is given %d frames, want 3", frames)
	}
}

// A goroutine without a number drops what it receives: it would share another's scratch.
func TestIngressWithoutLane(t *testing.T) {
	d := newSite(t).daemon()
	for ok := true; ok; {
		_, ok = d.lanes.take(0)
	}
	in := d.newIngress(0)
	defer in.Close()
	in.Receive(8, message{8, formatWhole, 1, vswitch.Tag{Source: 8, Grant: 1}, make([]byte, 60)}.bytes(), time.Now())
	if d.resync.last.Load() != 0 {
		t.Error("it looks for a segment")
	}
}
