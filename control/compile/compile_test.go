package compile

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/identity"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var quiet = slog.New(slog.DiscardHandler)

var until = time.Unix(1_900_000_000, 0)

func settings() *model.Settings {
	return &model.Settings{
		Name: "default", Zone: "etherloom.internal", CertificateLifetime: model.Duration(24 * time.Hour),
		Grace: model.Duration(72 * time.Hour), LinkIdle: model.Duration(5 * time.Minute), Pool: model.DefaultPool(),
		ULA: netip.MustParsePrefix("fd00::/48"), Epoch: 1, CredentialsUntil: until,
	}
}

func segment(vni model.VNI) *model.Segment {
	return &model.Segment{
		VNI: vni, Name: fmt.Sprint("seg", vni), MTU: 1500,
		IPv4: netip.MustParsePrefix(fmt.Sprintf("10.64.%d.0/20", vni*16)), IPv6: netip.MustParsePrefix(fmt.Sprintf("fd00:0:0:%x::/64", vni)),
	}
}

func node(id identity.ID, labels ...string) *model.Node {
	key := func(kind byte) []byte { return append(bytes.Repeat([]byte{kind}, 30), byte(id>>8), byte(id)) }
	return &model.Node{
		ID: id, Name: fmt.Sprint("n", id), OwnStatus: model.StatusActive, Labels: labels, Sign: key('s'), Static: key('x'),
		RelaySlot: uint32(id), MaxWire: 1, AES: true, HandshakeNonce: 3,
	}
}

func facts(more ...model.Fact) model.Facts {
	f := model.Facts{}
	for _, x := range append([]model.Fact{settings()}, more...) {
		f[x.Key()] = x
	}
	return f
}

// seated derives a Model in which every member has a station.
func seated(t testing.TB, f model.Facts, version uint64, previous *model.Model) *model.Model {
	t.Helper()
	m := model.Derive(f, version, previous)
	nodes, err := m.Seat(100000, nil)
	must(t, err)
	f = maps.Clone(f)
	for _, n := range nodes {
		f[n.Key()] = n
	}
	return model.Derive(f, version, m)
}

func keys(r *Result) string { return strings.Join(slices.Sorted(maps.Keys(r.State())), " ") }

func relay(t testing.TB, wrap identity.WrapKey, name string) *model.Relay {
	r := &model.Relay{Name: name, Hosts: []string{"192.0.2.1"}, Port: 3478, ProbePort: 3479}
	must(t, WrapRelay(wrap, r, identity.RelaySecret{9}))
	return r
}

// TestCompile: a node is told what concerns it, and nothing else.
func TestCompile(t *testing.T) {
	wrap := identity.NewWrapKey()
	pending, locked, far := node(5, "g=1"), node(6, "g=1"), node(20)
	pending.OwnStatus, locked.OwnStatus = model.StatusPending, model.StatusLocked
	locked.Stations = []model.Station{{VNI: 1, MAC: model.MAC{2, 6}, Mode: model.ModeNone}}
	far.RelaySlot = maxSlot + 1
	m := seated(t, facts(segment(1), segment(2), segment(3), relay(t, wrap, "r"),
		node(1, "g=1"), node(2, "g=1", "h=1"), node(3, "h=1"), node(4), pending, locked, far,
		&model.Grant{ID: 1, Label: "g=1", VNI: 1}, &model.Grant{ID: 2, Label: "h=1", VNI: 2}, &model.Grant{ID: 3, Node: 4, VNI: 3},
		&model.Grant{ID: 4, Node: 2, VNI: 1, Expires: until},
		&model.Controller{ID: 1, Sign: make([]byte, 32), URLs: []string{"https://b", "https://a"}},
		&model.Token{ID: "x"}, &model.Admin{ID: 1}, node(7, "g=1"), &model.Lock{ID: 1, Node: 7},
	), 1, nil)
	c := New(wrap, quiet)
	for id, want := range map[identity.ID]string{
		1:  "grant/1 grant/4 peer/2 relay/r revocation/6 segment/1 self settings",
		2:  "grant/1 grant/2 grant/4 peer/1 peer/3 relay/r revocation/6 segment/1 segment/2 self settings",
		3:  "grant/2 peer/2 relay/r segment/2 self settings",
		4:  "grant/3 relay/r segment/3 self settings",
		5:  "self settings",
		7:  "self settings", // active, but for a lock
		20: "self settings", // its place at the relays is beyond the last
	} {
		r, err := c.Compile(m, id, nil)
		must(t, err)
		if got := keys(r); got != want {
			t.Errorf("node %d is told\n%s\nwant\n%s", id, got, want)
		}
		if r.Hash != r.State().Hash() {
			t.Errorf("node %d: hash is not the state's", id)
		}
		told, err := r.State().Contents()
		if err != nil {
			t.Fatalf("node %d cannot read it: %v", id, err)
		}
		if told.Self.Complete == (id == 5 || id == 7) { // of those who are pending or locked nothing follows from what they are not told
			t.Errorf("node %d is told that this is all: %t", id, told.Self.Complete)
		}
		for peer, p := range told.Peers {
			if p.Complete {
				t.Errorf("node %d is told that this is all of peer %d", id, peer)
			}
		}
	}

	r, err := c.Compile(m, 2, nil)
	must(t, err)
	told, err := r.State().Contents()
	must(t, err)
	if got := fmt.Sprint(told.Settings.Controllers); got != "[https://a https://b]" || told.Settings.Grace.AsDuration() != 72*time.Hour {
		t.Errorf("settings are %v", told.Settings)
	}
	if len(told.Self.Stations) != 2 || len(told.Peers[1].Stations) != 1 || told.Peers[1].Stations[0].Vni != 1 ||
		len(told.Peers[3].Stations) != 1 || told.Peers[3].Stations[0].Vni != 2 {
		t.Errorf("stations: self %v, peers %v", told.Self.Stations, told.Peers)
	}
	if p := told.Peers[1]; p.MaxWire != 1 || !p.Aes || p.HandshakeNonce != 3 || p.RelaySlot != 1 || p.Name != "n1" {
		t.Errorf("peer is %v", p)
	}
	if fmt.Sprint(told.Grants[1].Sources) != "[1 2]" || fmt.Sprint(told.Grants[4].Sources) != "[2]" || !told.Grants[4].Expires.AsTime().Equal(until) ||
		told.Grants[1].Expires != nil {
		t.Errorf("grants are %v", told.Grants)
	}
	slot, password, err := (identity.RelaySecret{9}).Check(told.Relays["r"].Username, until.Add(-time.Hour))
	if err != nil || slot != 2 || password != told.Relays["r"].Password || !told.Relays["r"].Expires.AsTime().Equal(until) {
		t.Errorf("relay is %v: %v", told.Relays["r"], err)
	}
	if _, err := c.Compile(m, 99, nil); err == nil {
		t.Error("a node that does not exist is told something")
	}
}

// Of a grant to nodes each end is told the other, and of its own end itself alone; who is at neither is told nothing. A grant
// to a segment with limits is told as one of a kind of its own.
func TestReach(t *testing.T) {
	locked := node(6, "web=1")
	locked.OwnStatus = model.StatusLocked
	locked.Stations = []model.Station{{VNI: 1, MAC: model.MAC{2, 6}, Mode: model.ModeNone}}
	m := seated(t, facts(segment(1), segment(2), node(1, "web=1"), node(2, "web=1"), node(3), node(4), node(5), locked,
		&model.Group{Name: "web", Labels: []string{"web=1"}},
		&model.Grant{ID: 1, Group: "web", Target: &model.Selector{Node: 3}, VNI: 1, Allow: []string{"tcp:5432"}, Expires: until},
		&model.Grant{ID: 2, Node: 3, Target: &model.Selector{Node: 4}, VNI: 2, Both: true},
		&model.Grant{ID: 3, Node: 5, Target: &model.Selector{Label: "none=1"}, VNI: 1},
		&model.Grant{ID: 4, Node: 4, VNI: 2, Allow: []string{"icmp"}},
	), 1, nil)
	c := New(identity.NewWrapKey(), quiet)
	for id, want := range map[identity.ID]string{
		1: "peer/3 reach/1 segment/1 self settings",
		2: "peer/3 reach/1 segment/1 self settings",
		3: "peer/1 peer/2 peer/4 reach/1 reach/2 revocation/6 segment/1 segment/2 self settings",
		4: "peer/3 reach/2 reach/4 segment/2 self settings",
		5: "self settings",
	} {
		r, err := c.Compile(m, id, nil)
		must(t, err)
		if got := keys(r); got != want {
			t.Errorf("node %d is told\n%s\nwant\n%s", id, got, want)
		}
		told, err := r.State().Contents()
		must(t, err)
		switch id {
		case 1:
			if g := told.Reaches[1]; fmt.Sprint(g.Sources, g.Targets, g.Allow, g.Segment) != "[1] [3] [tcp:5432] false" || !g.Expires.AsTime().Equal(until) {
				t.Errorf("node 1 is told %v", g)
			}
			if p := told.Peers[3]; len(p.Stations) != 1 || p.Stations[0].Vni != 1 {
				t.Errorf("node 1 is told of %v", p)
			}
		case 3:
			if a, b := told.Reaches[1], told.Reaches[2]; fmt.Sprint(a.Sources, a.Targets, b.Sources, b.Targets, b.Both) != "[1 2] [3] [3] [4] true" {
				t.Errorf("node 3 is told %v, %v", a, b)
			}
		case 4:
			if g := told.Reaches[4]; !g.Segment || fmt.Sprint(g.Sources, g.Allow) != "[4] [icmp]" || g.Targets != nil {
				t.Errorf("node 4 is told %v", g)
			}
		}
	}
	before, err := c.Compile(m, 1, nil)
	must(t, err)
	next := model.Derive(facts(append(slices.Collect(maps.Values(m.Facts)), &model.Token{ID: "x"})...), 2, m)
	if again, err := c.Compile(next, 1, before); err != nil || again != before {
		t.Errorf("nothing changed for node 1, yet it is told anew: %v", err)
	}
}

// TestPeerOnTwoSegments: of a peer with which a node shares two of three segments it is told two stations, and the
// peer is told of the node the same two.
func TestPeerOnTwoSegments(t *testing.T) {
	m := seated(t, facts(segment(1), segment(2), segment(3), node(1, "a=1"), node(2, "a=1", "b=1"),
		&model.Grant{ID: 1, Label: "a=1", VNI: 1}, &model.Grant{ID: 2, Label: "a=1", VNI: 2}, &model.Grant{ID: 3, Label: "b=1", VNI: 3}), 1, nil)
	c := New(identity.WrapKey{}, quiet)
	for reader, peer := range map[identity.ID]identity.ID{1: 2, 2: 1} {
		r, err := c.Compile(m, reader, nil)
		must(t, err)
		told, err := r.State().Contents()
		must(t, err)
		if s := told.Peers[peer].Stations; len(s) != 2 || s[0].Vni != 1 || s[1].Vni != 2 {
			t.Errorf("node %d knows of node %d: %v", reader, peer, s)
		}
	}
}

// TestSame: two controllers at the same version say the same, byte for byte, whatever they did before.
func TestSame(t *testing.T) {
	wrap := identity.NewWrapKey()
	more := []model.Fact{segment(1), segment(2), relay(t, wrap, "r")}
	for id := range identity.ID(40) {
		more = append(more, node(id+1, fmt.Sprint("a=", id%3), fmt.Sprint("b=", id%2)),
			&model.Grant{ID: model.GrantID(id + 1), Label: fmt.Sprint("a=", id%3), VNI: model.VNI(id%2 + 1)})
	}
	f := facts(more...)
	first := seated(t, f, 1, nil)
	a, b := New(wrap, quiet), New(wrap, quiet)
	for id := range identity.ID(40) {
		x, err := a.Compile(first, id+1, nil)
		must(t, err)
		// The other controller has just started: all facts anew, in an order of its own.
		y, err := b.Compile(model.Derive(maps.Clone(first.Facts), 1, nil), id+1, nil)
		must(t, err)
		if x.Hash != y.Hash || !maps.EqualFunc(x.State(), y.State(), bytes.Equal) {
			t.Fatalf("node %d is told two things", id+1)
		}
	}
}

// TestLast: the same Result comes back when nothing changed for a node, however much did for others.
func TestLast(t *testing.T) {
	f := facts(segment(1), segment(2), node(1, "a=1"), node(2, "a=1"), node(3, "b=1"), &model.Grant{ID: 1, Label: "a=1", VNI: 1},
		&model.Grant{ID: 2, Label: "b=1", VNI: 2})
	before := seated(t, f, 1, nil)
	c := New(identity.WrapKey{}, quiet)
	one, err := c.Compile(before, 1, nil)
	must(t, err)
	f = maps.Clone(before.Facts)
	delete(f, "grant/2")
	after := model.Derive(f, 2, before)
	if again, err := c.Compile(after, 1, one); err != nil || again != one {
		t.Errorf("node 1 was compiled again: %v", err)
	}
	f = maps.Clone(f)
	delete(f, "grant/1")
	if again, err := c.Compile(model.Derive(f, 3, after), 1, one); err != nil || again == one || keys(again) != "self settings" {
		t.Errorf("node 1 after its grant was removed: %v, %v", again, err)
	}
}

func TestWrongWrapKey(t *testing.T) {
	m := seated(t, facts(node(1), relay(t, identity.NewWrapKey(), "r")), 1, nil)
	var out bytes.Buffer
	c := New(identity.NewWrapKey(), slog.New(slog.NewTextHandler(&out, nil)))
	for range 2 {
		if r, err := c.Compile(m, 1, nil); err != nil || keys(r) != "self settings" {
			t.Errorf("a relay's secret under another key: %v, %v", r, err)
		}
	}
	if n := strings.Count(out.String(), "relay is left out"); n != 1 {
		t.Errorf("the log says so %d times:\n%s", n, &out)
	}
	wrap := identity.NewWrapKey()
	swapped := relay(t, wrap, "a")
	swapped.Name = "b"
	if _, err := OpenRelay(wrap, swapped); err == nil {
		t.Error("one relay's secret passes for another's")
	}
}

// TestScale compiles 500 nodes that all know each other, before and after a change, and shows what it costs. What a
// change costs that concerns ten of them must not grow with the network.
func TestScale(t *testing.T) {
	const n = 500
	more := []model.Fact{segment(1), segment(2)}
	for id := range identity.ID(n) {
		labels := []string{"all=1"}
		if id < 10 {
			labels = append(labels, "few=1")
		}
		more = append(more, node(id+1, labels...))
	}
	more = append(more, &model.Grant{ID: 1, Label: "all=1", VNI: 1}, &model.Grant{ID: 2, Label: "few=1", VNI: 2}, &model.Grant{ID: 3, Node: 1, VNI: 1})
	m := seated(t, facts(more...), 1, nil)
	c := New(identity.WrapKey{}, quiet)
	told := map[identity.ID]*Result{}
	round := func(name string, m *model.Model) (changed int) {
		start := time.Now()
		var g errgroup.Group
		results := make([]*Result, n)
		for i := range n {
			g.Go(func() (err error) {
				results[i], err = c.Compile(m, identity.ID(i+1), told[identity.ID(i+1)])
				return err
			})
		}
		must(t, g.Wait())
		took := time.Since(start)
		bytesSent := 0
		for i, r := range results {
			id := identity.ID(i + 1)
			if told[id] == nil || told[id].Hash != r.Hash {
				changed++
				var from state.State
				if told[id] != nil {
					from = told[id].State()
				}
				set, _ := state.Diff(from, r.State())
				for k, v := range set {
					bytesSent += len(k) + len(v)
				}
			}
			told[id] = r
		}
		t.Logf("%-40s compiled in %6.1f ms, %3d nodes changed, %8d bytes to send", name, float64(took.Microseconds())/1000, changed, bytesSent)
		return changed
	}
	derive := func(f model.Facts, version uint64) *model.Model {
		start := time.Now()
		next := model.Derive(f, version, m)
		t.Logf("%-40s derived  in %6.1f ms", "", float64(time.Since(start).Microseconds())/1000)
		return next
	}
	if got := round("from nothing", m); got != n {
		t.Errorf("%d nodes were told something", got)
	}
	edit := func(change func(model.Facts)) model.Facts {
		f := maps.Clone(m.Facts)
		change(f)
		return f
	}
	for version, c := range []struct {
		name   string
		change func(model.Facts)
		want   int
	}{
		{"grant to a segment of ten removed", func(f model.Facts) { delete(f, "grant/2") }, 10},
		{"grant among all removed", func(f model.Facts) { delete(f, "grant/3") }, n},
		{"certificate renewed", func(f model.Facts) {
			renewed := m.Nodes[7].Clone()
			renewed.Serial = "2"
			f[renewed.Key()] = renewed
		}, 0},
		{"node locked", func(f model.Facts) {
			locked := m.Nodes[499].Clone()
			locked.OwnStatus = model.StatusLocked
			f[locked.Key()] = locked
		}, n},
		{"token made", func(f model.Facts) { f["token/x"] = &model.Token{ID: "x"} }, 0},
	} {
		m = derive(edit(c.change), uint64(version+2))
		if got := round(c.name, m); got != c.want {
			t.Errorf("%s: %d nodes were told something, want %d", c.name, got, c.want)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{10, 100, 500} {
		b.Run(fmt.Sprint(n, "-peers"), func(b *testing.B) {
			more := []model.Fact{segment(1), &model.Grant{ID: 1, Label: "all=1", VNI: 1}}
			for id := range identity.ID(n) {
				more = append(more, node(id+1, "all=1"))
			}
			m := seated(b, facts(more...), 1, nil)
			c := New(identity.WrapKey{}, quiet)
			for b.Loop() {
				_, err := c.Compile(m, 1, nil)
				must(b, err)
			}
		})
	}
}
