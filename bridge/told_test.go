package bridge

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/ether"
)

func knownAt(vlan uint16, last byte) Known {
	return Known{VLAN: vlan, MAC: ether.MAC{2, 0, 0, 0, 0, last}}
}

func placeAt(vlan uint16, last byte) place { return place{vlan, ether.MAC{2, 0, 0, 0, 0, last}} }

// Of what a bridge knows only that is changed which it was told, or has learned at the very port.
func TestDifferences(t *testing.T) {
	const ours, other = 7, 8
	a, b := placeAt(10, 1), placeAt(20, 1)
	type table = map[place]seenAt
	for name, c := range map[string]struct {
		knows        table
		told         []place
		want         []place
		forget, tell []place
	}{
		"nothing":                          {},
		"the first":                        {want: []place{a}, tell: []place{a}},
		"all as it is":                     {table{a: {ours, true, false}}, []place{a}, []place{a}, nil, nil},
		"one more, one less":               {table{a: {ours, true, false}}, []place{a}, []place{b}, []place{a}, []place{b}},
		"somebody has flushed it":          {table{}, []place{a}, []place{a}, nil, []place{a}},
		"learned here":                     {table{a: {ours, false, false}}, nil, []place{a}, nil, []place{a}},
		"learned here again, after a move": {table{a: {ours, false, false}}, []place{a}, []place{a}, nil, []place{a}},
		"seen at another port":             {table{a: {other, false, false}}, nil, []place{a}, nil, nil},
		"it has moved to another port":     {table{a: {other, false, false}}, []place{a}, []place{a}, nil, nil},
		"it has moved, and we know":        {table{a: {other, false, false}}, []place{a}, nil, nil, nil},
		"told to be at another port":       {table{a: {other, true, false}}, []place{a}, nil, nil, nil},
		"learned here, wanted no more":     {table{a: {ours, false, false}}, []place{a}, nil, nil, nil},
		"written down here":                {table{a: {ours, false, true}}, nil, []place{a}, nil, nil},
		"written down over what was told":  {table{a: {ours, true, true}}, []place{a}, nil, nil, nil},
		"the bridge's own":                 {table{a: {other, false, true}}, nil, []place{a}, nil, nil},
		"told by somebody else":            {table{a: {ours, true, false}}, nil, nil, nil, nil},
		"one address on two VLANs":         {table{a: {ours, true, false}}, []place{a}, []place{a, b}, nil, []place{b}},
		"what was refused is tried again":  {table{}, nil, []place{a}, nil, []place{a}},
	} {
		told := map[place]bool{b: false} // refused before
		for _, p := range c.told {
			told[p] = true
		}
		forget, tell := differences(c.knows, told, c.want, ours)
		if !slices.Equal(forget, c.forget) || !slices.Equal(tell, c.tell) {
			t.Errorf("%s: forget %v, tell %v; want %v, %v", name, forget, tell, c.forget, c.tell)
		}
	}
}

func TestVLANsIn(t *testing.T) {
	service := Known{VLAN: 10, Service: true, MAC: ether.MAC{2, 0, 0, 0, 0, 1}}
	many := make([]Known, 2*mostTold)
	for i := range many {
		many[i] = Known{VLAN: 10, MAC: ether.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}}
	}
	for name, c := range map[string]struct {
		service  bool
		untagged uint16
		in       []Known
		want     []place
	}{
		"tagged, and without a tag": {false, 5, []Known{knownAt(10, 1), knownAt(0, 2)}, []place{placeAt(5, 2), placeAt(10, 1)}},
		"no default VLAN":           {false, 0, []Known{knownAt(10, 1), knownAt(0, 2)}, []place{placeAt(10, 1)}},
		"another kind of tag":       {false, 5, []Known{service}, nil},
		"a bridge of 802.1ad":       {true, 5, []Known{service, knownAt(20, 1), knownAt(0, 2)}, []place{placeAt(5, 2), placeAt(10, 1)}},
		"twice":                     {false, 5, []Known{knownAt(5, 1), knownAt(0, 1)}, []place{placeAt(5, 1)}},
	} {
		if got := vlansIn(c.service, c.untagged, c.in); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	first := vlansIn(false, 0, many)
	slices.Reverse(many)
	if again := vlansIn(false, 0, many); len(first) != mostTold || !slices.Equal(first, again) {
		t.Errorf("of %d addresses %d are told, and then others: want always the same %d", len(many), len(first), mostTold)
	}
}

// An address is known by the tag with which frames for it come out of the bridge.
func TestKnown(t *testing.T) {
	mac := ether.MAC{2, 0, 0, 0, 0, 1}
	for _, c := range []struct {
		Tagging
		want Known
	}{
		{Tagging{}, Known{0, false, mac}},
		{Tagging{VLAN: 10}, Known{10, false, mac}},
		{Tagging{VLAN: 10, Native: NativeUntagged}, Known{0, false, mac}},
		{Tagging{VLAN: 10, Native: NativeTagged}, Known{10, false, mac}},
		{Tagging{VLAN: 10, Service: true}, Known{10, true, mac}},
	} {
		tag, err := c.Egress(long(t, "abcd 01", 60))
		if got := c.Known(mac); got != c.want || err != nil || tag.VLAN() != got.VLAN {
			t.Errorf("%+v: known as %+v, and Egress %v (%v); want %+v", c.Tagging, got, tag, err, c.want)
		}
	}
}

// bridgeMessage is what a kernel says of an entry (fdb_fill_info of net/bridge/br_fdb.c).
func bridgeMessage(bridge, port uint32, state uint16, flags byte, mac []byte, vlan uint16) message {
	m := make(message, ndHead)
	m[0] = unix.AF_BRIDGE
	binary.NativeEndian.PutUint32(m[4:], port)
	binary.NativeEndian.PutUint16(m[8:], state)
	m[10] = flags
	m = m.with(unix.NDA_LLADDR, mac).with(netlink.NDA_MASTER, binary.NativeEndian.AppendUint32(nil, bridge))
	if vlan != 0 {
		m = m.with(netlink.NDA_VLAN, binary.NativeEndian.AppendUint16(nil, vlan))
	}
	return m
}

func TestBridgeEntry(t *testing.T) {
	mac := []byte{2, 0, 0, 0, 0, 1}
	edit := func(f func(m message)) message {
		m := bridgeMessage(3, 7, unix.NUD_REACHABLE, 0, mac, 10)
		f(m)
		return m
	}
	for name, c := range map[string]struct {
		m    message
		at   place
		want seenAt
		is   bool
	}{
		"learned":              {bridgeMessage(3, 7, unix.NUD_REACHABLE, 0, mac, 10), placeAt(10, 1), seenAt{7, false, false}, true},
		"learned, old":         {bridgeMessage(3, 7, unix.NUD_STALE, 0, mac, 10), placeAt(10, 1), seenAt{7, false, false}, true},
		"without VLANs":        {bridgeMessage(3, 7, unix.NUD_STALE, 0, mac, 0), placeAt(0, 1), seenAt{7, false, false}, true},
		"told":                 {bridgeMessage(3, 7, unix.NUD_REACHABLE, netlink.NTF_EXT_LEARNED, mac, 10), placeAt(10, 1), seenAt{7, true, false}, true},
		"a port's own":         {bridgeMessage(3, 7, unix.NUD_PERMANENT, 0, mac, 10), placeAt(10, 1), seenAt{7, false, true}, true},
		"static":               {bridgeMessage(3, 7, unix.NUD_NOARP, 0, mac, 10), placeAt(10, 1), seenAt{7, false, true}, true},
		"sticky":               {bridgeMessage(3, 7, unix.NUD_REACHABLE, netlink.NTF_STICKY, mac, 10), placeAt(10, 1), seenAt{7, false, true}, true},
		"of another bridge":    {m: bridgeMessage(4, 7, unix.NUD_REACHABLE, 0, mac, 10)},
		"of no Ethernet":       {m: bridgeMessage(3, 7, unix.NUD_REACHABLE, 0, mac[:4], 10)},
		"of another family":    {m: edit(func(m message) { m[0] = unix.AF_INET })},
		"cut in the head":      {m: edit(func(message) {})[:ndHead-1]},
		"cut in the addresses": {m: edit(func(message) {})[:ndHead+6]},
	} {
		at, got, is := c.m.bridgeEntry(binary.NativeEndian.AppendUint32(nil, 3))
		if at != c.at || got != c.want || is != c.is {
			t.Errorf("%s: %v %+v %v, want %v %+v %v", name, at, got, is, c.at, c.want, c.is)
		}
	}
}

// FuzzBridgeEntry: no message makes reading it fail, and one that is read is about an entry of the bridge.
func FuzzBridgeEntry(f *testing.F) {
	f.Add([]byte(bridgeMessage(3, 7, unix.NUD_REACHABLE, 0, []byte{2, 0, 0, 0, 0, 1}, 10)))
	f.Add([]byte{unix.AF_BRIDGE})
	bridge := binary.NativeEndian.AppendUint32(nil, 3)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, is := message(b).bridgeEntry(bridge); is && (len(b) < ndHead || !bytes.Contains(b[ndHead:], bridge)) {
			t.Errorf("%x is taken for an entry of the bridge", b)
		}
	})
}

// A bridge that has one table for all VLANs is told nothing, and nothing is wrong with that.
func TestTellNeedsVLANs(t *testing.T) {
	s := newSite(t)
	w := s.port(t)
	if w.TellsVLANs() {
		t.Error("a bridge that does not filter is to be told of VLANs")
	}
	if err := w.Tell([]Known{knownAt(10, 7), knownAt(0, 8)}); err != nil {
		t.Error(err)
	}
	if out := s.fdb(t); strings.Contains(out, "02:00:00:00:00:0") {
		t.Errorf("the bridge was told\n%s", out)
	}
	// What it knows can be read from any bridge, and it knows the addresses of its ports.
	bridge, err := w.findBridge()
	if err != nil {
		t.Fatal(err)
	}
	table, err := w.raw.bridgeTable(bridge.Index)
	own := place{mac: ether.MAC(netlinkOf(t, s, "lan0").HardwareAddr)}
	if at, known := table[own]; err != nil || !known || !at.written || at.told {
		t.Errorf("the bridge's table is %v (%v), want %v in it", table, err, own)
	}
	if protocol, err := w.raw.vlanProtocol(bridge.Index); err != nil || protocol != uint16(ether.TypeVLAN) {
		t.Errorf("its tags are %#x (%v)", protocol, err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := w.Tell([]Known{knownAt(10, 7)}); err != nil {
		t.Errorf("once it is closed: %v", err)
	}
}

func netlinkOf(t *testing.T, s *site, name string) (a *netlink.LinkAttrs) {
	t.Helper()
	on(t, s.gate, func() error {
		link, err := netlink.LinkByName(name)
		if err == nil {
			a = link.Attrs()
		}
		return err
	})
	return a
}

// fdb is what the bridge knows.
func (s *site) fdb(t *testing.T) string {
	t.Helper()
	return s.say(t, "bridge fdb show br br7")
}

// filtering is a wire that is a port of a bridge which filters by VLAN, and whose default VLAN is 5. Not every kernel has such bridges; a
// guest has (TestInGuest).
func (s *site) filtering(t *testing.T, more ...string) *Wire {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	add := append([]string{"link", "add", "br7", "type", "bridge", "vlan_filtering", "1", "vlan_default_pvid", "5"}, more...)
	if out, err := s.gate.Run(ctx, "ip", add...); err != nil {
		t.Skip("this kernel's bridges know no VLANs: ", out)
	}
	s.run(t, "ip", "link", "set", "lan0", "master", "br7")
	s.run(t, "bridge", "vlan", "add", "dev", "lan0", "vid", "10")
	s.run(t, "ip", "link", "set", "br7", "up")
	var w *Wire
	on(t, s.gate, func() (err error) {
		w, err = NewWire(WireConfig{Bridge: "br7"})
		return err
	})
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// shows fails the test unless the bridge has these entries, and none of those. An entry is a port, a MAC's end, a VLAN and more.
func (s *site) shows(t *testing.T, when string, has, not []string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(s.fdb(t)) {
		f := strings.Fields(line)
		if last, is := strings.CutPrefix(f[0], "02:00:00:00:00:"); is { // its ports' own are on each VLAN
			lines = append(lines, fmt.Sprintf("%s %s %s", f[2], last, strings.Join(f[3:], " ")))
		}
	}
	is := func(entry string) bool {
		return slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, entry) })
	}
	for _, e := range has {
		if !is(e) {
			t.Errorf("%s the bridge has no %q:\n%s", when, e, strings.Join(lines, "\n"))
		}
	}
	for _, e := range not {
		if is(e) {
			t.Errorf("%s the bridge has %q:\n%s", when, e, strings.Join(lines, "\n"))
		}
	}
}

// A bridge that filters by VLAN is told of each VLAN by itself, until it is told otherwise; and what others say stays.
func TestTell(t *testing.T) {
	s := newSite(t)
	w := s.filtering(t)
	tell := func(want ...Known) {
		t.Helper()
		if err := w.Tell(want); err != nil {
			t.Error(err)
		}
	}
	if !w.TellsVLANs() {
		t.Error("it is not to be told")
	}
	tell(knownAt(10, 7), knownAt(0, 8), Known{VLAN: 10, Service: true, MAC: ether.MAC{2, 0, 0, 0, 0, 9}})
	s.shows(t, "told", []string{"wire0 07 vlan 10 extern_learn", "wire0 08 vlan 5 extern_learn"}, []string{"wire0 07 vlan 5", "wire0 09"})
	tell(knownAt(20, 7))
	s.shows(t, "told of another VLAN", []string{"wire0 07 vlan 20 extern_learn"}, []string{"wire0 07 vlan 10", "wire0 08"})
	s.run(t, "bridge", "fdb", "del", "02:00:00:00:00:07", "dev", "wire0", "vlan", "20", "master")
	tell(knownAt(20, 7))
	s.shows(t, "told again", []string{"wire0 07 vlan 20 extern_learn"}, nil)

	// What others have written down, and what was seen elsewhere.
	s.run(t, "bridge", "fdb", "add", "02:00:00:00:00:0a", "dev", "lan0", "vlan", "10", "master", "static")
	s.run(t, "bridge", "fdb", "add", "02:00:00:00:00:0b", "dev", "lan0", "vlan", "10", "master", "dynamic")
	s.run(t, "bridge", "fdb", "add", "02:00:00:00:00:0c", "dev", "lan0", "vlan", "10", "master", "extern_learn")
	s.run(t, "bridge", "fdb", "add", "02:00:00:00:00:0d", "dev", "wire0", "vlan", "10", "master", "extern_learn")
	others := []string{"lan0 0a vlan 10", "lan0 0b vlan 10", "lan0 0c vlan 10 extern_learn", "wire0 0d vlan 10 extern_learn"}
	tell(knownAt(10, 0xa), knownAt(10, 0xb), knownAt(10, 0xc), knownAt(10, 0xd), knownAt(10, 0xe))
	s.shows(t, "beside others'", append(others, "wire0 0e vlan 10 extern_learn"), []string{"wire0 0a", "wire0 0b", "wire0 0c", "wire0 07"})

	// A machine that speaks elsewhere on the bridge takes its entry along, and one that speaks through the wire is told.
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0x0e, 0x81, 0, 0, 10, 0x88, 0xb5}, make([]byte, 46)...)
	if err := s.cable.B.Host().SendFrames(s.cable.B.Name(), frame); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return strings.Contains(s.fdb(t), "02:00:00:00:00:0e dev lan0 vlan 10") })
	tell(knownAt(10, 0xe))
	s.shows(t, "once it has moved", append(others, "lan0 0e vlan 10"), []string{"wire0 0e"})
	if err := w.Queues()[0].NewWriter().Write(frame, ether.Offload{}); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return strings.Contains(s.fdb(t), "02:00:00:00:00:0e dev wire0 vlan 10") })
	tell(knownAt(10, 0xe))
	s.shows(t, "once it has come back", []string{"wire0 0e vlan 10 extern_learn"}, []string{"lan0 0e"})

	// A VLAN that somebody has taken off the port is refused and said; the others are told.
	s.run(t, "bridge", "vlan", "del", "dev", "wire0", "vid", "20")
	err := w.Tell([]Known{knownAt(20, 7), knownAt(10, 8)})
	if err == nil || !strings.Contains(err.Error(), "refuses 1 of") || !strings.Contains(err.Error(), "know 02:00:00:00:00:07 on VLAN 20") {
		t.Errorf("of a VLAN that the port has not: %v", err)
	}
	s.shows(t, "with a VLAN less", []string{"wire0 08 vlan 10 extern_learn"}, []string{"wire0 07"})
	s.run(t, "bridge", "vlan", "add", "dev", "wire0", "vid", "20")
	tell(knownAt(20, 7), knownAt(10, 8))
	s.shows(t, "with the VLAN again", []string{"wire0 08 vlan 10 extern_learn", "wire0 07 vlan 20 extern_learn"}, nil)

	s.run(t, "ip", "link", "set", "br7", "type", "bridge", "vlan_filtering", "0")
	if !w.TellsVLANs() {
		t.Error("a bridge that filters no more, and was told of addresses before, is not asked to forget them")
	}
	tell(knownAt(20, 7), knownAt(10, 8))
	s.shows(t, "without VLANs", []string{"wire0 0d vlan 10 extern_learn"}, []string{"wire0 07", "wire0 08"})
	if w.TellsVLANs() {
		t.Error("a bridge that filters no more is to be told")
	}
	s.run(t, "ip", "link", "set", "br7", "type", "bridge", "vlan_filtering", "1")
	tell(knownAt(20, 7))
	s.shows(t, "filtering again", []string{"wire0 07 vlan 20 extern_learn"}, nil)
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	s.shows(t, "in the end", others[:3], []string{"wire0"})
}

// Of a bridge of 802.1ad the VLANs are those of service tags.
func TestTellService(t *testing.T) {
	s := newSite(t)
	w := s.filtering(t, "vlan_protocol", "802.1ad")
	if err := w.Tell([]Known{knownAt(10, 7), {VLAN: 10, Service: true, MAC: ether.MAC{2, 0, 0, 0, 0, 8}}}); err != nil {
		t.Error(err)
	}
	s.shows(t, "told", []string{"wire0 08 vlan 10 extern_learn"}, []string{"wire0 07"})
}

// await waits until something is so.
func await(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it has not come to that within a minute")
		}
	}
}

// While the bridge is asked whom it knows, which takes long if it knows many, nobody else waits who has to do with the wire: above all not who
// asks whether it is up. Close ends it.
func TestTellHoldsUpNobody(t *testing.T) {
	w := newSite(t).port(t)
	w.told = map[place]bool{placeAt(10, 7): true} // so that there is something to ask
	kernel := w.raw.handles[unix.NETLINK_ROUTE].Socket
	kernel.Lock() // it does not answer yet
	told := make(chan error, 1)
	go func() { told <- w.Tell(nil) }()
	eventually(t, func() error {
		if w.telling.TryLock() {
			w.telling.Unlock()
			return errors.New("nobody tells the bridge anything, so that this proves nothing")
		}
		return nil
	})
	others := make(chan bool, 1)
	go func() {
		_, err := w.Follow()
		w.Problems()
		others <- err == nil && w.TellsVLANs() && w.Up()
	}()
	select {
	case up := <-others:
		if !up {
			t.Error("meanwhile the wire is not up, or cannot be followed")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("others wait for a bridge that does not answer")
	}
	closed := make(chan error, 1)
	go func() { closed <- w.Close() }()
	eventually(t, func() error {
		if !w.ended() {
			return errors.New("it is not closed")
		}
		return nil
	})
	kernel.Unlock()
	for what, ended := range map[string]chan error{"Tell": told, "Close": closed} {
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Whether a wire is up can be asked while its NIC is worked on.
func TestUpDoesNotWait(t *testing.T) {
	w := &Wire{}
	w.mu.Lock()
	defer w.mu.Unlock()
	up := make(chan bool)
	go func() { up <- w.Up() }()
	select {
	case <-up:
	case <-time.After(10 * time.Second):
		t.Error("it waits")
	}
}
