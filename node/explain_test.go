package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// explainer is a daemon that has been told something and carries its segments, but has no TAPs. A frame that left by one of
// their local ports would end the test.
func explainer(t testing.TB, s *site, expires time.Time, resources ...*controlv1.Resource) *Daemon {
	t.Helper()
	d, now := s.daemon(), time.Now()
	held, err := d.reader.Apply(nil, s.delta(told{version: 1, expires: expires, resources: resources}), now)
	must(t, err)
	d.held.Store(held)
	d.contents, err = held.State.Contents()
	must(t, err)
	must(t, d.endpoint.SetPeers(peersOf(d.contents)))
	names := map[policy.Identity]string{}
	for id, p := range d.contents.Peers {
		names[policy.Identity(id)] = p.GetName()
	}
	for vni, v := range d.viewsLocked() {
		if len(v.Around(d.self(), now)) == 0 {
			continue
		}
		seg := &segment{d: d, vni: vni, sw: vswitch.NewSegment(vni, d.self(), 1500, fdb.Limits{})}
		if v.Station(d.self()) != nil {
			seg.local = vswitch.NewPort("loom0", vswitch.Local, d.self(), nil)
			seg.sw.AddPort(seg.local)
		}
		for _, id := range slices.Sorted(maps.Keys(d.contents.Attachments)) {
			if a := d.contents.Attachments[id]; policy.VNI(a.GetVni()) == vni {
				seg.sw.AddPort(vswitch.NewPort(a.GetPort(), vswitch.Attached, policy.Identity(id), nil))
			}
		}
		seg.sw.SetPolicy(v, now)
		seg.links.Store(&map[policy.Identity]*vswitch.Port{})
		seg.setLinksLocked(v.Links(d.self(), now), names)
		d.segments[vni] = seg
	}
	return d
}

func aGrant(id, vni uint32, expires time.Time, sources ...uint32) *controlv1.Resource {
	g := &controlv1.Grant{Id: id, Vni: vni, Sources: sources}
	if !expires.IsZero() {
		g.Expires = timestamppb.New(expires)
	}
	return &controlv1.Resource{Kind: &controlv1.Resource_Grant{Grant: g}}
}

func aSegment(vni uint32, name, prefix, prefix6 string) *controlv1.Resource {
	return &controlv1.Resource{Kind: &controlv1.Resource_Segment{Segment: &controlv1.Segment{
		Vni: vni, Name: name, Mtu: 1500, Ipv4Prefix: prefix, Ipv6Prefix: prefix6,
	}}}
}

// twoSegments is a state in which this node and b, c and d are on segment one, where c speaks no IP and d's grant has ended,
// and this node and c on segment two.
func twoSegments(s *site) []*controlv1.Resource {
	never := time.Time{}
	return []*controlv1.Resource{
		netSettings(), aSegment(1, "one", "10.64.0.0/24", "fd00:1::/64"), aSegment(2, "two", "10.65.0.0/24", ""),
		self(station(1, selfID, auto, "10.64.0.7/24", "fd00:1::7/64"), station(2, selfID, auto, "10.65.0.7/24")),
		s.peer(8, "b", station(1, 8, auto, "10.64.0.8/24", "fd00:1::8/64")),
		s.peer(9, "c", station(1, 9, none), station(2, 9, auto, "10.65.0.9/24")),
		s.peer(10, "d", station(1, 10, auto, "10.64.0.10/24")),
		aGrant(3, 1, never, selfID, 8), aGrant(5, 1, never, 9), aGrant(4, 1, time.Now().Add(-time.Minute), 10), aGrant(6, 2, never, selfID, 9),
	}
}

const other ether.Type = 0x88b5

// rawFrame is one between stations as station() numbers them.
func rawFrame(dst, src byte, typ ether.Type, payload string) []byte {
	return append([]byte{2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src, byte(typ >> 8), byte(typ)}, payload...)
}

func TestExplain(t *testing.T) {
	s := newSite(t)
	d := explainer(t, s, time.Time{}, twoSegments(s)...)
	arp := "\x00\x01\x08\x00\x06\x04\x00\x02" + "\x02\x00\x00\x00\x00\x08" + "\x0a\x40\x00\x07" + "\x02\x00\x00\x00\x00\x07\x0a\x40\x00\x07"
	for _, c := range []struct {
		name  string
		ask   ExplainRequest
		check string
		on    string // whose check decides
		grant uint32
		steps string // node and whether by its own state, for each step
		fix   string // in a fix, command and text
		note  string
	}{
		{name: "to a name", ask: ExplainRequest{To: "b", Kind: "icmp"}, check: "pass", on: "b", grant: 3, steps: "self! b?", note: "a receiver judges by its own state"},
		{name: "to a whole name", ask: ExplainRequest{To: "b.etherloom.internal.", Kind: "tcp", Port: 443}, check: "pass", on: "b", grant: 3, steps: "self! b?"},
		{name: "to an address", ask: ExplainRequest{To: "10.64.0.8", Kind: "udp", Port: 53}, check: "pass", on: "b", grant: 3, steps: "self! b?", note: "its own state, which this node cannot see"},
		{name: "to an IPv6 address", ask: ExplainRequest{To: "fd00:1::8", Kind: "icmp"}, check: "pass", on: "b", grant: 3, steps: "self! b?"},
		{name: "to a link-local address", ask: ExplainRequest{To: "fe80::ff:fe00:8", Kind: "tcp", Port: 1}, check: "pass", on: "b", grant: 3, steps: "self! b?"},
		{name: "to a MAC", ask: ExplainRequest{To: "02:00:00:00:00:08", Kind: "icmp"}, check: "pass", on: "b", grant: 3, steps: "self! b?"},
		{name: "ARP", ask: ExplainRequest{To: "b", Kind: "arp"}, check: "pass", on: "b", grant: 3, steps: "self! b?"},
		{name: "from a peer", ask: ExplainRequest{From: "b", To: "self", Kind: "icmp"}, check: "pass", on: "self", grant: 3, steps: "b? self!", note: "b judges what it sends"},
		{name: "choose a segment", ask: ExplainRequest{To: "c", Kind: "icmp", Segment: "two"}, check: "pass", on: "c", grant: 6, steps: "self! c?"},
		{name: "to a group", ask: ExplainRequest{To: "224.0.0.251", Kind: "udp", Port: 5353, Segment: "one"}, check: "pass", on: "b", grant: 3, steps: "self! b? c?"},
		{name: "to everybody", ask: ExplainRequest{To: "10.64.0.255", Kind: "udp", Port: 67}, check: "pass", on: "b", grant: 3, steps: "self! b? c?"},
		{
			name: "to nobody who is known", ask: ExplainRequest{To: "x", Kind: "icmp", Segment: "one"}, check: "not-member", on: "self", steps: "self!",
			fix: "etherloom grant add --from node:self --to node:x --segment one --allow icmp", note: "told of nobody called x",
		},
		{
			name: "to nobody's address", ask: ExplainRequest{To: "10.64.0.99", Kind: "icmp"}, check: "not-member", on: "self", steps: "self!",
			fix: "etherloom grant add --from node:self --to node:NAME --segment one --allow icmp",
		},
		{
			name: "from nobody who is known", ask: ExplainRequest{From: "x", To: "self", Kind: "icmp", Segment: "one"}, check: "no-grant", on: "x", steps: "x?",
			fix: "etherloom grant add --from node:x --to node:self --segment one --allow icmp",
		},
		{
			name: "from nobody to a group", ask: ExplainRequest{From: "x", To: "224.0.0.251", Kind: "icmp", Segment: "one"}, check: "no-grant", on: "x", steps: "x?",
			fix: "node:x",
		},
		{
			name: "to one whose grant has ended", ask: ExplainRequest{To: "d", Kind: "icmp"}, check: "not-member", on: "self", steps: "self!",
			fix: "etherloom grant add --from node:d --to segment:one", note: "grant 4 of d ended",
		},
		{
			name: "from one whose grant has ended", ask: ExplainRequest{From: "d", To: "self", Kind: "icmp"}, check: "no-grant", on: "d", steps: "d?",
			fix: "etherloom grant add --from node:d --to segment:one", note: "grant 4 of d ended",
		},
		{
			name: "between others", ask: ExplainRequest{From: "b", To: "10.64.0.10", Kind: "icmp"}, check: "not-member", on: "b", steps: "b?",
			fix: "etherloom grant add --from node:d --to segment:one", note: "does not touch this node",
		},
		{
			name: "from an address that is nobody's", ask: ExplainRequest{From: "10.64.0.99", To: "b", Kind: "tcp", Port: 22}, check: "ip-source", on: "self", steps: "self!",
			fix: "etherloom node address self --segment one --mode static --address 10.64.0.7/24 --address fd00:1::7/64 --address 10.64.0.99/24", note: "this host is taken to send",
		},
		{name: "given", ask: ExplainRequest{Frame: rawFrame(8, selfID, other, ""), Segment: "one"}, check: "pass", on: "b", grant: 3, steps: "self! b?"},
		{
			name: "given, another's MAC", ask: ExplainRequest{Frame: rawFrame(8, 9, other, ""), Segment: "one"}, check: "source-mac", on: "self", steps: "self!",
			fix: "ip link set dev loom0 address 02:00:00:00:00:07",
		},
		{name: "given, reserved", ask: ExplainRequest{Frame: append([]byte{1, 0x80, 0xc2, 0, 0, 0, 2, 0, 0, 0, 0, 7}, 0, 4), Segment: "two"}, check: "reserved", on: "self", steps: "self!", fix: "no bridge forwards"},
		{name: "given, too short", ask: ExplainRequest{Frame: []byte{1}, Segment: "two"}, check: "short", on: "self", steps: "self!", fix: "the frame itself"},
		{name: "given, to itself", ask: ExplainRequest{Frame: rawFrame(selfID, selfID, other, ""), Segment: "two"}, check: "hairpin", on: "self", steps: "self!", fix: "etherloom fdb"},
		{name: "as a DHCP client", ask: ExplainRequest{To: "b", Kind: "udp", Port: 67}, check: "pass", on: "b", grant: 3, steps: "self! b?"},
		{name: "as a DHCPv6 client", ask: ExplainRequest{From: "fd00:1::7", To: "b", Kind: "udp", Port: 547}, check: "pass", on: "b", grant: 3, steps: "self! b?"},
		{
			name: "as a DHCP server", ask: ExplainRequest{To: "b", Kind: "udp", Port: 68}, check: "not-dhcp-server", on: "self", steps: "self!",
			fix: "etherloom node role self --segment one --add dhcp-server",
		},
		{name: "as a DHCPv6 server of a peer", ask: ExplainRequest{From: "b", To: "fd00:1::7", Kind: "udp", Port: 546}, check: "not-dhcp-server", on: "b", steps: "b?", fix: "etherloom node role b --segment one --add dhcp-server"},
		{name: "come from a peer", ask: ExplainRequest{Frame: rawFrame(selfID, 8, other, ""), From: "b"}, check: "pass", on: "self", grant: 3, steps: "self!"},
		{name: "come with an unknown grant", ask: ExplainRequest{Frame: rawFrame(selfID, 8, other, ""), From: "b", Grant: 99}, check: "unknown-grant", on: "self", steps: "self!", fix: "etherloom grant list"},
		{name: "come with another's grant", ask: ExplainRequest{Frame: rawFrame(selfID, 8, other, ""), From: "b", Grant: 5}, check: "wrong-grant", on: "self", steps: "self!", fix: "holds grant 3"},
		{name: "come with another's MAC", ask: ExplainRequest{Frame: rawFrame(selfID, 9, other, ""), From: "b"}, check: "source-mac", on: "self", steps: "self!", fix: "b sends from 02:00:00:00:00:08 alone"},
		{name: "come with this host's ARP", ask: ExplainRequest{Frame: rawFrame(selfID, 8, ether.TypeARP, arp), From: "10.64.0.8"}, check: "arp-sender", on: "self", steps: "self!", fix: "10.64.0.7 is self's"},
		{name: "come from one without a grant", ask: ExplainRequest{Frame: rawFrame(selfID, 10, other, ""), From: "d"}, check: "no-grant", on: "d", steps: "d?", fix: "node:d"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := d.Explain(c.ask)
			if err != nil {
				t.Fatal(err)
			}
			var steps []string
			for _, j := range e.Steps {
				steps = append(steps, j.Node+map[bool]string{true: "!", false: "?"}[j.Here])
			}
			if e.Check != c.check || e.Passes != (c.check == "pass") || e.On != c.on || e.Grant != c.grant || strings.Join(steps, " ") != c.steps {
				t.Errorf("%s on %s by grant %d, steps %v; want %s on %s by grant %d, steps %s", e.Check, e.On, e.Grant, steps, c.check, c.on, c.grant, c.steps)
			}
			if fixes := fmt.Sprint(e.Fixes); !strings.Contains(fixes, c.fix) || e.Passes != (len(e.Fixes) == 0) {
				t.Errorf("fixes are %s, want ...%s...", fixes, c.fix)
			}
			if !strings.Contains(strings.Join(e.Notes, "\n"), c.note) {
				t.Errorf("notes are %q, want ...%s...", e.Notes, c.note)
			}
			if e.Schema != Schema || e.Segment == "" || e.Text == "" || (e.Frame == "") != (e.Hex == "") {
				t.Errorf("%+v", e)
			}
		})
	}
	for _, seg := range d.segments {
		if n := len(seg.sw.FDB().Entries(time.Now())); n != 0 || len(seg.sw.Drops()) != 0 || seg.local.Stats() != (vswitch.PortStats{}) {
			t.Errorf("asking has left %d addresses, %v, %+v", n, seg.sw.Drops(), seg.local.Stats())
		}
	}
	// What this node has learned counts.
	one := d.segments[1]
	one.sw.FDB().Learn(ether.MAC{2, 0, 0, 0, 0, 8}, vswitch.Place{Port: (*one.links.Load())[8], Who: 8}, time.Now())
	e, err := d.Explain(ExplainRequest{To: "b", Kind: "icmp"})
	must(t, err)
	if j := e.Steps[0]; !e.Passes || j.Flooded || len(j.Receivers) != 1 || j.Receivers[0].Port != "b" || j.Receivers[0].Grant != 3 {
		t.Errorf("after b was heard: %+v", e)
	}
}

// Each guard's refusal comes with what would let the frame pass.
func TestGuardFixes(t *testing.T) {
	q := &question{on: place{name: "one"}}
	source := party{name: "b", mac: ether.MAC{2, 0, 0, 0, 0, 8}}
	drops := map[vswitch.Drop]string{
		vswitch.DropIsolated: "etherloom port set PORT isolated=off", vswitch.DropLocked: "etherloom fdb add one", vswitch.DropPort: "etherloom ports",
	}
	for v, want := range map[policy.Verdict]string{
		policy.PinnedMAC:     "etherloom host list",
		policy.NotDHCPServer: "etherloom node role b --segment one --add dhcp-server",
		policy.NotRouter:     "etherloom node role b --segment one --add router",
		policy.NotQuerier:    "etherloom node role b --segment one --add querier",
		policy.DHCPClient:    "02:00:00:00:00:08",
		policy.BadARP:        "RARP",
		policy.BroadcastRate: "etherloom run --limits-broadcast",
		policy.MulticastRate: "etherloom run --limits-multicast",
		policy.ControlRate:   "etherloom run --limits-control",
		policy.JoinRate:      "etherloom run --limits-joins",
	} {
		drops[vswitch.Drop(v)] = want
	}
	for drop, want := range drops {
		q.from = source
		fixes := q.fixes(drop, party{})
		if text := fmt.Sprint(fixes); len(fixes) == 0 || !strings.Contains(text, want) || strings.Contains(text, "nothing here") {
			t.Errorf("%s: %s, want ...%s...", drop.Code(), text, want)
		}
	}
}

// A question that cannot be answered says what was expected, found, and what to do.
func TestExplainErrors(t *testing.T) {
	s := newSite(t)
	_, err := s.daemon().Explain(ExplainRequest{To: "b", Kind: "icmp"})
	wantError(t, err, "no controller has told this node anything", "etherloom status")
	d := explainer(t, s, time.Time{}, twoSegments(s)...)
	frame := rawFrame(8, selfID, other, "")
	for _, c := range []struct {
		ask  ExplainRequest
		want []string
	}{
		{ExplainRequest{Kind: "icmp"}, []string{"--to NAME", "--hex"}},
		{ExplainRequest{To: "b", Kind: "sctp"}, []string{"icmp, tcp, udp or arp", `"sctp"`}},
		{ExplainRequest{To: "b", Kind: "tcp"}, []string{"1 to 65535", "found 0"}},
		{ExplainRequest{To: "b", Kind: "arp", Port: 5}, []string{"found 5 with arp"}},
		{ExplainRequest{To: "b", Kind: "icmp", Grant: 4}, []string{"--hex", "--from"}},
		{ExplainRequest{To: "b", Frame: frame}, []string{"leave --to"}},
		{ExplainRequest{Frame: make([]byte, 70000)}, []string{"70000 bytes"}},
		{ExplainRequest{Frame: append(slices.Repeat([]byte{0xff}, 6), frame[6:]...)}, []string{"more than one segment fits: one, two", "--segment"}},
		{ExplainRequest{To: "c", Kind: "icmp"}, []string{"more than one segment fits: one, two"}},
		{ExplainRequest{To: "b c", Kind: "icmp"}, []string{"expected a node's or host's name", `"b c"`, "etherloom names"}},
		{ExplainRequest{To: "self", Kind: "icmp", Segment: "one"}, []string{"self is on both ends"}},
		{ExplainRequest{From: "x", To: "y", Kind: "icmp", Segment: "one"}, []string{"neither x nor y"}},
		{ExplainRequest{To: "c", Kind: "icmp", Segment: "one"}, []string{"c speaks no IP", "address mode none", "etherloom node address c --segment one --mode auto"}},
		{ExplainRequest{From: "10.64.0.7", To: "fd00:1::8", Kind: "icmp"}, []string{"two addresses of one family", "self (10.64.0.7)"}},
		{ExplainRequest{To: "224.0.0.1", Kind: "arp", Segment: "one"}, []string{"one host's address"}},
		{ExplainRequest{From: "c", To: "c", Kind: "icmp", Segment: "two"}, []string{"c is on both ends"}},
		{ExplainRequest{Frame: frame, From: "x", Grant: 3, Segment: "one"}, []string{"no link to x"}},
	} {
		_, err := d.Explain(c.ask)
		if err == nil {
			t.Errorf("%+v is answered", c.ask)
		}
		wantError(t, err, c.want...)
	}
}

// Without a grant this node is told of no segment, and still says what is missing.
func TestExplainWithoutSegment(t *testing.T) {
	s := newSite(t)
	d := explainer(t, s, time.Time{}, netSettings(), self())
	for segment, fix := range map[string]string{"": "segment:SEGMENT", "lan": "segment:lan"} {
		for _, ask := range []ExplainRequest{{To: "b", Kind: "icmp", Segment: segment}, {Frame: rawFrame(8, selfID, other, ""), Segment: segment}} {
			e, err := d.Explain(ask)
			if err != nil || e.Passes || e.Check != "no-grant" || e.On != "self" || e.Fixes[0].Command != "etherloom grant add --from node:self --to "+fix {
				t.Errorf("%+v: %+v, %v", ask, e, err)
			}
		}
	}
}

// Past its age the policy lets nothing pass, and this is the reason that is given.
func TestExplainPolicyExpired(t *testing.T) {
	s := newSite(t)
	d := explainer(t, s, time.Now().Add(300*time.Millisecond), twoSegments(s)...)
	eventually(t, "the policy is past its age", func() bool {
		e, err := d.Explain(ExplainRequest{To: "b", Kind: "icmp"})
		return err == nil && e.Check == "policy-expired" && e.On == "self" && strings.Contains(e.Fixes[0].Text, "etherloom status")
	})
}

// The question and the answer go through the local socket, the longest frame included.
func TestLocalExplain(t *testing.T) {
	s := newSite(t)
	d := explainer(t, s, time.Time{}, twoSegments(s)...)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.serveLocal(ctx) }()
	local := Dial(s.dir)
	var e *Explained
	eventually(t, "the daemon answers", func() (ok bool) {
		var err error
		e, err = local.Explain(t.Context(), ExplainRequest{To: "b", Kind: "tcp", Port: 443})
		return err == nil
	})
	if !e.Passes || e.Grant != 3 || !strings.Contains(e.Frame, "10.64.0.7 > 10.64.0.8, TCP port 49152 > 443") {
		t.Errorf("%+v", e)
	}
	frame := rawFrame(8, selfID, other, strings.Repeat("x", 65000))
	if e, err := local.Explain(t.Context(), ExplainRequest{Frame: frame, Segment: "one"}); err != nil || e.Passes || e.Check != vswitch.DropLong.Code() ||
		e.Hex != hex.EncodeToString(frame) {
		t.Errorf("a frame longer than the segment's MTU: %v", err)
	}
	_, err := local.Explain(t.Context(), ExplainRequest{Kind: "icmp"})
	wantError(t, err, "--to NAME")
	cancel()
	must(t, <-done)
}

// FuzzExplain: every frame, from wherever, has an answer that is whole.
func FuzzExplain(f *testing.F) {
	s := newSite(f)
	d := explainer(f, s, time.Time{}, twoSegments(s)...)
	for _, kind := range []string{"icmp", "arp"} {
		for _, to := range []string{"10.64.0.8", "fd00:1::8"} {
			if e, err := d.Explain(ExplainRequest{To: to, Kind: kind}); err == nil {
				frame, _ := hex.DecodeString(e.Hex)
				f.Add(frame, "", uint32(0))
			}
		}
	}
	f.Add(rawFrame(selfID, 8, other, ""), "b", uint32(0))
	f.Add(rawFrame(selfID, 8, ether.TypeIPv6, "\x60"), "d", uint32(99))
	gateway := explainer(f, newSite(f), time.Time{}, nearSite(s)...)
	for _, from := range []string{"", "self/site", "ma", "gw-b", "self/more"} {
		f.Add(ping(f, 21, 8), from, uint32(0))
		f.Add(ping(f, 8, 41), from, uint32(9))
		f.Add(rawFrame(21, 88, other, ""), from, uint32(0))
	}
	f.Fuzz(func(t *testing.T, frame []byte, from string, grant uint32) {
		e, err := d.Explain(ExplainRequest{Frame: frame, From: from, Grant: grant, Segment: "one"})
		if there, err2 := gateway.Explain(ExplainRequest{Frame: frame, From: from, Grant: grant}); err2 == nil && (there.Text == "" || there.On == "" || len(there.Steps) == 0 || there.Passes != (len(there.Fixes) == 0)) {
			t.Errorf("%x from %q at a gateway: %+v", frame, from, there)
		}
		if err != nil {
			return
		}
		if e.Frame == "" || e.Text == "" || e.On == "" || len(e.Steps) == 0 || e.Passes != (len(e.Fixes) == 0) || e.Passes != (e.Check == "pass" || e.Check == "answered") {
			t.Errorf("%x from %q: %+v", frame, from, e)
		}
	})
}

func TestWords(t *testing.T) {
	const macs = "02:00:00:00:00:01 > 02:00:00:00:00:02, "
	ip4 := func(protocol byte, payload string) string {
		n := byte(20 + len(payload))
		return "\x45\x00\x00" + string(n) + "\x00\x00\x00\x00\x40" + string(protocol) + "\x00\x00" + "\x0a\x00\x00\x01" + "\x0a\x00\x00\x02" + payload
	}
	for _, c := range []struct {
		frame []byte
		want  string
	}{
		{[]byte{1, 2, 3}, "3 bytes that are no whole Ethernet header"},
		{rawFrame(2, 1, other, ""), macs + "EtherType 0x88b5, 14 bytes"},
		{rawFrame(2, 1, 5, "\xaa"), macs + "802.3 length"},
		{rawFrame(2, 1, ether.TypeVLAN, "\x00\x0a\x88\xb5"), macs + "VLAN tag 10, EtherType 0x88b5"},
		{rawFrame(2, 1, ether.TypeARP, "\x00"), macs + "ARP that is cut"},
		{rawFrame(2, 1, ether.TypeARP, "\x00\x01\x08\x00\x06\x04\x00\x01abcdef\x0a\x00\x00\x01ghijkl\x0a\x00\x00\x02"), "10.0.0.1 asks who has 10.0.0.2"},
		{rawFrame(2, 1, ether.TypeARP, "\x00\x01\x08\x00\x06\x04\x00\x02\x02\x00\x00\x00\x00\x01\x0a\x00\x00\x01ghijkl\x0a\x00\x00\x02"), "10.0.0.1 is at 02:00:00:00:00:01"},
		{rawFrame(2, 1, ether.TypeIPv4, "\x46"), macs + "IPv4 with a wrong header"},
		{rawFrame(2, 1, ether.TypeIPv4, ip4(1, "\x08\x00")), macs + "10.0.0.1 > 10.0.0.2, echo request"},
		{rawFrame(2, 1, ether.TypeIPv4, ip4(1, "\x00\x00")), "echo reply"},
		{rawFrame(2, 1, ether.TypeIPv4, ip4(17, "\x00\x01\x00\x02")), "UDP port 1 > 2"},
		{rawFrame(2, 1, ether.TypeIPv4, ip4(6, "")), "10.0.0.2, TCP,"},
		{rawFrame(2, 1, ether.TypeIPv4, ip4(47, "")), "IP protocol 47"},
		{rawFrame(2, 1, ether.TypeIPv6, "\x50"), macs + "IPv6 with a wrong header"},
		{rawFrame(2, 1, ether.TypeIPv6, "\x60\x00\x00\x00\x00\x01\x3a\xff"+strings.Repeat("\x00", 31)+"\x01"+strings.Repeat("\x00", 15)+"\x02\x80"), ":: > ::"},
	} {
		if got := words(c.frame); !strings.Contains(got, c.want) {
			t.Errorf("%x: %q, want ...%s...", c.frame, got, c.want)
		}
	}
}
