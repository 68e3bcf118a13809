package node

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
	"github.com/etherloom/etherloom/transport"
)

const (
	auto = controlv1.AddressMode_ADDRESS_MODE_AUTO
	dhcp = controlv1.AddressMode_ADDRESS_MODE_DHCP
	none = controlv1.AddressMode_ADDRESS_MODE_NONE
)

// TestNewRefuses: a state directory that is damaged, or is another machine's, is an error that names the file, and what it
// holds stays as it is.
func TestNewRefuses(t *testing.T) {
	damage := func(name string, content []byte) func(*site) {
		return func(s *site) { must(s.t, os.WriteFile(s.dir.Path(name), content, 0o600)) }
	}
	type row struct {
		name, file string
		edit       func(*site)
	}
	rows := []row{
		{"another machine's certificate", "node.crt", func(s *site) {
			must(s.t, s.dir.SaveCertificate(s.issue(identity.KindNode, selfID+1, s.keys, time.Hour, time.Now())))
		}},
		{"a certificate for other keys", "node.crt", func(s *site) {
			must(s.t, s.dir.SaveCertificate(s.issue(identity.KindNode, selfID, newKeys(s.t), time.Hour, time.Now())))
		}},
		{"another network's certificate", "node.crt", func(s *site) {
			other := newSite(s.t)
			must(s.t, s.dir.SaveCertificate(other.issue(identity.KindNode, selfID, s.keys, time.Hour, time.Now())))
		}},
		{"another node's state", "state", func(s *site) {
			held, err := (&state.Reader{Verifier: s.verifier(), Node: 8}).Apply(nil, s.delta(told{version: 1, node: 8, resources: []*controlv1.Resource{netSettings()}}), time.Now())
			must(s.t, err)
			data, err := held.Marshal()
			must(s.t, err)
			must(s.t, s.dir.SaveState(data))
		}},
	}
	for _, file := range []string{"node.json", "node.key", "node.crt", "ca.crt", "state", "memory.json"} {
		rows = append(rows, row{file + " empty", file, damage(file, nil)}, row{file + " garbage", file, damage(file, []byte("\x00garbage"))},
			row{file + " unreadable", file, func(s *site) {
				must(s.t, os.RemoveAll(s.dir.Path(file)))
				must(s.t, os.Mkdir(s.dir.Path(file), 0o700))
			}})
		if file != "state" && file != "memory.json" {
			rows = append(rows, row{file + " missing", file, func(s *site) { must(s.t, os.Remove(s.dir.Path(file))) }})
		}
	}
	for _, c := range rows {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			c.edit(s)
			before := tree(t, s.dir.Path(""))
			_, err := New(config(), s.dir, quiet())
			wantError(t, err, c.file)
			if !maps.Equal(before, tree(t, s.dir.Path(""))) {
				t.Error("the directory is not as it was")
			}
		})
	}
}

func (s *site) verifier() *identity.Verifier {
	v, err := identity.NewVerifier(s.ca.Certificate())
	must(s.t, err)
	return v
}

// TestNew: what must last is kept: the port is picked once, an expired certificate can still be renewed, and handshakes are
// made to count as newer when the memory of older ones is lost or from the future.
func TestNew(t *testing.T) {
	s := newSite(t)
	m, err := s.dir.Membership()
	must(t, err)
	m.Port = 0
	must(t, s.dir.SaveMembership(m))
	port := s.daemon().member.Port
	if m, _ = s.dir.Membership(); m.Port != port || port < 49152 {
		t.Errorf("picked port %d, wrote %d", port, m.Port)
	}
	if again := s.daemon().member.Port; again != port {
		t.Errorf("picked port %d, then %d", port, again)
	}
	must(t, s.dir.SaveCertificate(s.issue(identity.KindNode, selfID, s.keys, time.Hour, time.Now().Add(-48*time.Hour))))
	d := s.daemon()
	if d.raiseNonce {
		t.Error("a node that holds nothing has nothing to outdo")
	}
	must(t, d.take(s.delta(told{version: 1, resources: []*controlv1.Resource{netSettings(), self()}})))
	must(t, d.saver.write(s.dir))
	if d = s.daemon(); !d.raiseNonce || d.held.Load() == nil || d.contents.Self.GetName() != "self" {
		t.Errorf("with a state and no memory: %v, %v", d.raiseNonce, d.contents)
	}
	must(t, s.dir.SaveMemory(transport.Remembered{Clock: uint64(time.Now().UnixNano())}))
	if s.daemon().raiseNonce {
		t.Error("with state and memory")
	}
	must(t, s.dir.SaveMemory(transport.Remembered{Clock: uint64(time.Now().Add(2 * time.Hour).UnixNano())}))
	if !s.daemon().raiseNonce {
		t.Error("with a clock that was set back")
	}
}

func TestRandomPort(t *testing.T) {
	seen := make(map[uint16]bool)
	for range 20000 {
		p := randomPort()
		if p < 49152 || p == 65535 {
			t.Fatalf("port %d", p)
		}
		seen[p] = true
	}
	if len(seen) < 1000 {
		t.Errorf("%d different ports", len(seen))
	}
}

// TestTake: a delta is taken if it leads forward and a controller has signed it for this node. What is taken is applied
// and kept on disk; after what is not, all is as before.
func TestTake(t *testing.T) {
	s := newSite(t)
	d := s.daemon()
	base := []*controlv1.Resource{netSettings(), self()}
	must(t, d.take(s.delta(told{version: 5, resources: append(base, s.peer(8, "b"))})))
	if d.contents.Peers[8].GetName() != "b" || d.endpoint.Peer(8) == nil || d.applied != 1 {
		t.Errorf("holds %v, applied %d times", d.contents, d.applied)
	}
	held := d.held.Load()
	if err := d.take(s.delta(told{version: 4, resources: base})); err != nil || d.held.Load() != held {
		t.Errorf("an older delta, which another controller was too slow with: %v", err)
	}
	forged := s.delta(told{version: 6, resources: base})
	forged.Signature[0] ^= 1
	for _, c := range []struct {
		delta *controlv1.Delta
		want  error
	}{
		{forged, state.ErrSignature},
		{s.delta(told{version: 6, node: 8, resources: base}), state.ErrForeign},
		{s.delta(told{version: 6, base: 4, resources: base}), state.ErrBase},
		{s.delta(told{version: 6, expires: time.Now().Add(-time.Second), resources: base}), state.ErrExpired},
	} {
		if err := d.take(c.delta); !errors.Is(err, c.want) || d.held.Load() != held || d.applied != 1 {
			t.Errorf("%v: %v, applied %d times", c.want, err, d.applied)
		}
	}
	must(t, d.take(s.delta(told{version: 7, resources: base})))
	if len(d.contents.Peers) != 0 || d.endpoint.Peer(8) != nil {
		t.Error("a peer that is gone is still known")
	}
	must(t, d.saver.write(s.dir))
	again := s.daemon()
	if h := again.held.Load(); h.Header.GetVersion() != 7 || again.contents.Settings.GetZone() != "etherloom.internal" {
		t.Errorf("after a restart the node holds %v", h)
	}
}

// TestSettings: what the network's settings are for.
func TestSettings(t *testing.T) {
	s := newSite(t)
	d := s.daemon()
	now := time.Now()
	leaf := func(id identity.ID, at time.Time) *identity.Certificate {
		c, err := s.verifier().Inspect(s.issue(identity.KindNode, id, newKeys(t), time.Hour, at))
		must(t, err)
		return c
	}
	locked, unlocked, free, ended := leaf(8, now), leaf(9, now.Add(-30*time.Minute)), leaf(10, now), leaf(11, now.Add(-2*time.Hour))
	must(t, d.take(s.delta(told{version: 1, resources: []*controlv1.Resource{
		netSettings(), self(), revocation(8, time.Time{}), revocation(9, now.Add(-10*time.Minute)),
	}})))
	v := d.verifier.Load()
	for _, c := range []struct {
		name string
		leaf *identity.Certificate
		want error
	}{
		{"locked", locked, identity.ErrRevoked},
		{"from before the lock", unlocked, identity.ErrRevoked},
		{"from after the lock", leaf(9, now), nil},
		{"never locked", free, nil},
		{"ended while no controller was heard", ended, nil},
	} {
		if err := v.CheckTime(c.leaf, now); !errors.Is(err, c.want) {
			t.Errorf("certificate %s: %v, want %v", c.name, err, c.want)
		}
	}
	if v.Grace != 72*time.Hour || d.reader.Verifier.Grace != 0 {
		t.Errorf("grace is %v for peers, %v for controllers", v.Grace, d.reader.Verifier.Grace)
	}
	// The settling time is ten seconds, and less where certificates live shorter than forty.
	for life, want := range map[time.Duration]time.Duration{time.Hour: settleMost, 20 * time.Second: 5 * time.Second} {
		must(t, d.take(s.delta(told{version: d.held.Load().Header.GetVersion() + 1, resources: []*controlv1.Resource{
			netSettings(func(s *controlv1.Settings) { s.CertificateLifetime.Seconds = int64(life.Seconds()) }), self(),
		}})))
		if got := time.Duration(d.settle.Load()); got != want {
			t.Errorf("settling time is %v for a life of %v, want %v", got, life, want)
		}
	}
	// A later start finds the controllers where they are now.
	must(t, d.saver.write(s.dir))
	m, err := s.dir.Membership()
	must(t, err)
	if !slices.Equal(m.Controllers, []string{"https://192.0.2.1:443"}) || m.Zone != "etherloom.internal" || m.Name != "self" || m.Port != 50000 {
		t.Errorf("membership is %+v", m)
	}
	if st := d.client.Status(); len(st) != 1 || st[0].URL != "https://192.0.2.1:443" {
		t.Errorf("the client is told of %v", st)
	}
	must(t, d.take(s.delta(told{version: d.held.Load().Header.GetVersion() + 1, resources: []*controlv1.Resource{
		netSettings(func(s *controlv1.Settings) { s.Controllers = nil }), self(),
	}})))
	if len(d.member.Controllers) != 1 {
		t.Error("a state without controllers makes the node forget them")
	}
}

// TestHello: the node says what it holds, or nothing to be told everything.
func TestHello(t *testing.T) {
	s := newSite(t)
	d := s.daemon()
	must(t, d.take(s.delta(told{version: 5, resources: []*controlv1.Resource{netSettings(), self()}})))
	for fresh, want := range map[bool]uint64{false: 5, true: 0} {
		h := new(controlv1.Hello)
		d.hello(h, fresh)
		if h.GetVersion() != want || h.GetAgent() != Version || h.GetMaxWire() != transport.MaxWire {
			t.Errorf("fresh %v: %v", fresh, h)
		}
	}
}

// TestViews: grants and stations become policy, on the segment that they are for, until they end.
func TestViews(t *testing.T) {
	s := newSite(t)
	d := s.daemon()
	now := time.Now()
	grant := func(id, vni uint32, expires time.Time, sources ...uint32) *controlv1.Resource {
		g := &controlv1.Grant{Id: id, Vni: vni, Sources: sources}
		if !expires.IsZero() {
			g.Expires = timestamppb.New(expires)
		}
		return &controlv1.Resource{Kind: &controlv1.Resource_Grant{Grant: g}}
	}
	segment := func(vni uint32, name string) *controlv1.Resource {
		return &controlv1.Resource{Kind: &controlv1.Resource_Segment{Segment: &controlv1.Segment{Vni: vni, Name: name, Mtu: 1400, Ipv4Prefix: "10.64.0.0/24"}}}
	}
	void := now.Add(time.Hour).Truncate(time.Microsecond)
	// This node is a member of no segment, so that no TAP is made.
	must(t, d.take(s.delta(told{version: 1, expires: void, resources: []*controlv1.Resource{
		netSettings(), self(), segment(1, "one"), segment(2, "two"), s.peer(8, "b", station(1, 8, auto, "10.64.0.8/24")),
		s.peer(9, "c", station(1, 9, dhcp), station(2, 9, none)), grant(1, 1, time.Time{}, 8), grant(2, 1, now.Add(time.Minute), 9), grant(3, 2, time.Time{}, 9),
		grant(4, 99, time.Time{}, 8),
	}})))
	views := d.viewsLocked()
	if len(views) != 2 || len(d.segments) != 0 {
		t.Fatalf("views of %v, segments %v", slices.Collect(maps.Keys(views)), d.segments)
	}
	for _, c := range []struct {
		vni  policy.VNI
		at   time.Time
		want []policy.Identity
	}{
		{1, now, []policy.Identity{8, 9}}, {1, now.Add(2 * time.Minute), []policy.Identity{8}}, {2, now, []policy.Identity{9}},
	} {
		got := views[c.vni].Members(c.at)
		if slices.Sort(got); !slices.Equal(got, c.want) {
			t.Errorf("members of %d in %v are %v, want %v", c.vni, c.at.Sub(now), got, c.want)
		}
	}
	for at, want := range map[time.Time]policy.Verdict{now: policy.Pass, void: policy.PolicyExpired} {
		if got := views[1].Between(8, 9, at); got != want {
			t.Errorf("in %v b's frames: %v, want %v", at.Sub(now), got, want)
		}
	}
	if views[1].Station(8) == nil || views[2].Station(8) != nil || views[1].Generation() != d.applied {
		t.Error("stations are not where they belong")
	}
	// The state is applied again when the next grant ends.
	if d.expiry == nil || !d.expiry.Stop() {
		t.Error("nothing waits for the end of a grant")
	}
}

// TestRolesAreApplied: roles become policy on the segment that they are for, unknown ones nothing, and a router may forward from
// what is neither in the segment's prefixes nor a neighbour's.
func TestRolesAreApplied(t *testing.T) {
	s := newSite(t)
	d := s.daemon()
	router, helper := station(1, 8, auto, "10.64.0.8/24"), station(1, 9, auto, "198.51.100.9/24")
	router.Roles, helper.Roles = []string{"router", "oracle"}, []string{"dhcp-server", "querier"}
	must(t, d.take(s.delta(told{version: 1, resources: []*controlv1.Resource{
		netSettings(), self(), aSegment(1, "one", "10.64.0.0/24", "fd00:1::/64"), aSegment(2, "two", "10.65.0.0/24", ""),
		s.peer(8, "r", router, station(2, 8, auto, "10.65.0.8/24")), s.peer(9, "h", helper),
		aGrant(1, 1, time.Time{}, 8, 9), aGrant(2, 2, time.Time{}, 8),
	}})))
	views := d.viewsLocked()
	one, two := views[1].Station(8), views[2].Station(8)
	if one.Roles != policy.Router || two.Roles != 0 || views[1].Station(9).Roles != policy.DHCPServer|policy.Querier {
		t.Errorf("roles are %b, %b, %b", one.Roles, two.Roles, views[1].Station(9).Roles)
	}
	from := func(st *policy.Station, a string) policy.Verdict {
		addr := netip.MustParseAddr(a)
		typ, packet := ether.TypeIPv4, append([]byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0}, append(addr.AsSlice(), 192, 0, 2, 1)...)
		if addr.Is6() {
			typ, packet = ether.TypeIPv6, append([]byte{0x60, 0, 0, 0, 0, 0, 59, 64}, append(addr.AsSlice(), make([]byte, 16)...)...)
		}
		f, err := ether.Parse(rawFrame(7, st.MAC[5], typ, string(packet)))
		must(t, err)
		_, v := st.Check(&f, false)
		return v
	}
	for _, c := range []struct {
		station *policy.Station
		addr    string
		want    policy.Verdict
	}{
		{one, "203.0.113.1", policy.Pass},
		{one, "2001:db8::1", policy.Pass},
		{one, "10.64.0.8", policy.Pass},
		{one, "10.64.0.77", policy.IPSource},
		{one, "fd00:1::77", policy.IPSource},
		{one, "198.51.100.9", policy.IPSource},
		{two, "203.0.113.1", policy.IPSource},
		{views[1].Station(9), "203.0.113.1", policy.IPSource},
	} {
		if got := from(c.station, c.addr); got != c.want {
			t.Errorf("from %s: %q, want %q", c.addr, got, c.want)
		}
	}
}

// TestExpiryIsApplied: nobody need say that a grant, or the state, has ended.
func TestExpiryIsApplied(t *testing.T) {
	for name, until := range map[string]func(time.Time) told{
		"state": func(soon time.Time) told {
			return told{version: 1, expires: soon, resources: []*controlv1.Resource{netSettings(), self()}}
		},
		"grant": func(soon time.Time) told {
			segment := &controlv1.Segment{Vni: 1, Name: "one", Mtu: 1400}
			grant := &controlv1.Grant{Id: 1, Vni: 1, Sources: []uint32{8}, Expires: timestamppb.New(soon)}
			return told{version: 1, resources: []*controlv1.Resource{
				netSettings(), self(), {Kind: &controlv1.Resource_Segment{Segment: segment}}, {Kind: &controlv1.Resource_Grant{Grant: grant}},
			}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			d := s.daemon()
			must(t, d.take(s.delta(until(time.Now().Add(500*time.Millisecond)))))
			eventually(t, "it is applied again", func() bool {
				d.mu.Lock()
				defer d.mu.Unlock()
				return d.applied == 2
			})
		})
	}
}

// TestNothingIsAppliedAfterTheEnd: what comes while the daemon stops is kept for the next start, and opens nothing: nobody would close it.
func TestNothingIsAppliedAfterTheEnd(t *testing.T) {
	s := newSite(t)
	d := s.daemon()
	ctx, end := context.WithCancel(d.ctx)
	d.ctx = ctx
	site := []*controlv1.Resource{
		netSettings(), self(),
		{Kind: &controlv1.Resource_Segment{Segment: &controlv1.Segment{Vni: 1, Name: "lan", Mtu: 1500}}},
		signedPort(20, "lan", func(a *controlv1.Attachment) { a.Declared = false }),
	}
	must(t, d.take(s.delta(told{version: 1, resources: site})))
	if len(d.segments) != 1 || d.problems["nic no-such-nic"] == "" {
		t.Fatalf("before the end there are %d segments, problems %v", len(d.segments), d.problems)
	}
	end()
	d.stop()
	clear(d.problems)
	must(t, d.take(s.delta(told{version: 2, resources: site})))
	d.applyTrunksLocked() // as a command does that has waited for the lock
	if len(d.segments) != 0 || len(d.problems) != 0 {
		t.Errorf("after the end there are %d segments, problems %v", len(d.segments), d.problems)
	}
	must(t, d.saver.write(s.dir))
	if v := s.daemon().held.Load().Header.GetVersion(); v != 2 {
		t.Errorf("the next start holds version %d", v)
	}
}

// TestTranslations: what the signed state says, in the words of each world.
func TestTranslations(t *testing.T) {
	s := newSite(t)
	peer := s.peer(8, "b", station(1, 8, auto, "10.64.0.8/24", "fd00::8/64"), station(2, 8, none, "10.65.0.8/24"), station(3, 8, auto, "10.66.0.8/24")).GetPeer()
	c := &state.Contents{
		Self: self().GetSelf(), Peers: map[identity.ID]*controlv1.Peer{8: peer},
		Relays: map[string]*controlv1.Relay{"r": {Name: "r", Hosts: []string{"192.0.2.5"}, Port: 3478, ProbePort: 3479, Username: "u", Password: "p"}},
	}
	want := transport.PeerConfig{
		ID: 8, Name: "b", Static: identity.StaticPublicKey(peer.GetStaticKey()), AES: true, HandshakeNonce: 3, RelaySlot: 80,
	}
	if got := peersOf(c); len(got) != 1 || got[0] != want {
		t.Errorf("peers are %+v, want %+v", got, want)
	}
	if got := relaysOf(c); len(got) != 1 || got[0].Name != "r" || got[0].Port != 3478 || got[0].ProbePort != 3479 || got[0].Username != "u" ||
		got[0].Password != "p" || got[0].Slot != 70 || !slices.Equal(got[0].Hosts, []string{"192.0.2.5"}) {
		t.Errorf("relays are %+v", got)
	}
	if memberOf(c, selfID) != c.Self || memberOf(c, 8) != peer || memberOf(c, 9) != nil {
		t.Error("members are not found")
	}
	if got := addressesOn(peer, 1); !slices.Equal(got, []netip.Addr{netip.MustParseAddr("10.64.0.8"), netip.MustParseAddr("fd00::8")}) {
		t.Errorf("addresses on 1 are %v", got)
	}
	if got := addressesOn(peer, 2); len(got) != 0 {
		t.Errorf("a station without IP has addresses %v", got)
	}
	for mode, want := range map[controlv1.AddressMode]string{auto: "auto", controlv1.AddressMode_ADDRESS_MODE_STATIC: "static", dhcp: "dhcp", none: "none", 99: "unknown"} {
		if got := modeName(mode); got != want {
			t.Errorf("%v is called %q", mode, got)
		}
	}
}

// TestProblems: a problem is there until it is not.
func TestProblems(t *testing.T) {
	d := &Daemon{log: quiet(), problems: make(map[string]string)}
	d.problemLocked("disk", errTest)
	if d.problems["disk"] != "reason" {
		t.Errorf("problems are %v", d.problems)
	}
	d.problemLocked("disk", nil)
	if len(d.problems) != 0 {
		t.Errorf("problems are %v", d.problems)
	}
}

// TestSaver: only the newest is written, and what could not be written waits on unless something newer has come.
func TestSaver(t *testing.T) {
	s := newSite(t)
	d := s.daemon()
	d.saver.put(func() { d.saver.state = []byte("one") })
	d.saver.put(func() { d.saver.state = []byte("two") }) // does not wait for the first
	d.remember(transport.Remembered{Clock: 1})
	m := d.member
	m.Zone = "new.internal"
	d.saver.put(func() { d.saver.member = &m })
	if len(d.saver.wake) != 1 {
		t.Error("nobody is woken")
	}
	for _, name := range []string{"state", "memory.json", "node.json"} {
		must(t, os.RemoveAll(s.dir.Path(name)))
		must(t, os.MkdirAll(filepath.Join(s.dir.Path(name), "x"), 0o700))
	}
	wantError(t, d.saver.write(s.dir), "state: ", "memory.json: ", "node.json: ")
	d.remember(transport.Remembered{Clock: 2})
	for _, name := range []string{"state", "memory.json", "node.json"} {
		must(t, os.RemoveAll(s.dir.Path(name)))
	}
	must(t, d.saver.write(s.dir))
	data, err := s.dir.State()
	r, _, err2 := s.dir.Memory()
	got, err3 := s.dir.Membership()
	if err := errors.Join(err, err2, err3); err != nil || string(data) != "two" || r.Clock != 2 || got.Zone != "new.internal" {
		t.Errorf("wrote %q, %v, %v, %v", data, r, got, err)
	}
	must(t, os.Remove(s.dir.Path("state")))
	must(t, d.saver.write(s.dir))
	if data, _ := s.dir.State(); data != nil {
		t.Error("what has been written is written again")
	}
}
