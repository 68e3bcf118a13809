package node

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/internal/sample"
	"github.com/etherloom/etherloom/node/records"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// nowhere takes frames.
type nowhere struct{}

func (nowhere) Send([]byte, ether.Offload, vswitch.Tag, vswitch.Lane) {}

// recorded is a daemon with a segment that has no TAP: this node, 7, may reach port 22 of node 8, and port 80 is observed.
type recorded struct {
	d     *Daemon
	s     *segment
	local *vswitch.Port
	log   bytes.Buffer
	file  string
	now   time.Time
}

func newRecorded(t *testing.T) *recorded {
	t.Helper()
	r := &recorded{file: filepath.Join(t.TempDir(), "flows.json"), now: time.Now()}
	s := newSite(t)
	cfg := config()
	cfg.Records.File = r.file
	var err error
	r.d, err = New(cfg, s.dir, slog.New(slog.NewTextHandler(&r.log, nil)))
	must(t, err)
	r.d.ctx = t.Context()
	const vni = 5
	must(t, r.d.take(s.delta(told{version: 5, resources: []*controlv1.Resource{
		netSettings(), self(), s.peer(8, "b", station(vni, 8, controlv1.AddressMode_ADDRESS_MODE_STATIC, "192.0.2.8/24")),
		{Kind: &controlv1.Resource_Segment{Segment: &controlv1.Segment{Vni: vni, Name: "lan", Mtu: 1500, Ipv4Prefix: "192.0.2.0/24"}}},
		{Kind: &controlv1.Resource_Reach{Reach: &controlv1.Reach{Id: 3, Vni: vni, Sources: []uint32{selfID}, Targets: []uint32{8}, Allow: []string{"tcp:22"}}}},
		{Kind: &controlv1.Resource_Reach{Reach: &controlv1.Reach{Id: 4, Vni: vni, Sources: []uint32{selfID}, Targets: []uint32{8}, Allow: []string{"tcp:80"}, Observe: true}}},
	}})))
	r.d.mu.Lock()
	defer r.d.mu.Unlock()
	// A TAP is what a test cannot have, so the station and the ports are made here.
	r.d.contents.Self.Stations = append(r.d.contents.Self.Stations, station(vni, 7, controlv1.AddressMode_ADDRESS_MODE_STATIC, "192.0.2.7/24"))
	r.s = &segment{d: r.d, vni: vni, name: "lan", mtu: 1500, sw: vswitch.NewSegment(vni, selfID, 1500, fdb.Limits{})}
	links := map[policy.Identity]*vswitch.Port{8: vswitch.NewPort("b", vswitch.Link, 8, nowhere{})}
	r.s.links.Store(&links)
	r.local = vswitch.NewPort("host", vswitch.Local, selfID, nowhere{})
	r.s.local = r.local
	r.s.sw.AddPort(r.local)
	r.s.sw.AddPort(links[8])
	r.d.applied++
	r.s.sw.SetPolicy(r.d.viewsLocked()[vni], r.now)
	r.d.segments[vni] = r.s
	t.Cleanup(func() { delete(r.d.segments, vni) })
	return r
}

// frame is the first packet of a TCP connection to node 8.
func (r *recorded) frame(t *testing.T, port uint16) []byte {
	t.Helper()
	p := sample.Packet{
		From: ether.MAC{2, 0, 0, 0, 0, 7}, To: ether.MAC{2, 0, 0, 0, 0, 8}, Src: netip.MustParseAddr("192.0.2.7"), Dst: netip.MustParseAddr("192.0.2.8"),
		Protocol: ether.ProtoTCP, SrcPort: 4242, DstPort: port,
	}
	b, err := p.Frame()
	must(t, err)
	return b
}

func (r *recorded) send(t *testing.T, port uint16) vswitch.Drop {
	t.Helper()
	return r.s.sw.Forward(r.local, r.frame(t, port), ether.Offload{}, vswitch.Tag{}, 0, r.now)
}

func (r *recorded) lines(t *testing.T) (out []records.Record) {
	t.Helper()
	data, err := os.ReadFile(r.file)
	must(t, err)
	for line := range strings.Lines(string(data)) {
		var one records.Record
		must(t, json.Unmarshal([]byte(line), &one))
		out = append(out, one)
	}
	return out
}

// What passes and what is refused is written with the names of both ends, counted for its grant, and shown.
func TestRecorder(t *testing.T) {
	r := newRecorded(t)
	size := uint64(len(r.frame(t, 22)))
	for port, want := range map[uint16]vswitch.Drop{22: vswitch.Forwarded, 80: vswitch.Drop(policy.NotAllowed)} {
		if d := r.send(t, port); d != want {
			t.Fatalf("port %d: %q", port, d)
		}
	}
	r.d.collect(r.now)
	list := r.lines(t)
	if len(list) != 2 {
		t.Fatalf("written %+v", list)
	}
	flow, denied := list[0], list[1]
	if flow.Type != records.Flow || flow.Segment != "lan" || flow.VNI != 5 || flow.Node.Name != "self" || flow.Source.Name != "self" || flow.Target.Name != "b" || flow.Grant != 3 ||
		flow.Verdict != "pass" || flow.Frames != 1 || flow.Octets != size || flow.DstPort != 22 || flow.Dst.String() != "192.0.2.8" || flow.End != "active" {
		t.Errorf("flow %+v", flow)
	}
	if denied.Type != records.Denied || denied.Verdict != "not-allowed" || denied.Observed != 4 || denied.Source.Name != "self" || denied.Target.Name != "b" ||
		denied.DstPort != 80 || denied.Frames != 1 || denied.SrcPort != 0 || denied.EtherType != "0x0800" || denied.Protocol != 6 {
		t.Errorf("denied %+v", denied)
	}
	if text := r.log.String(); strings.Count(text, "frames were refused") != 1 || !strings.Contains(text, `what="192.0.2.7 > 192.0.2.8 tcp 80"`) || !strings.Contains(text, "observed=4") {
		t.Errorf("logged %s", text)
	}
	r.d.collect(r.now)
	if list := r.lines(t); len(list) != 2 {
		t.Errorf("written twice: %+v", list)
	}
	if l := r.d.Flows(); len(l) != 1 || l[0].From != "self" || l[0].To != "b" || l[0].Protocol != "tcp" || l[0].Grant != 3 || l[0].Octets != size {
		t.Errorf("flows %+v", l)
	}
	l := r.d.Grants()
	if len(l) != 2 || l[0].ID != 3 || l[0].Frames != 1 || l[0].Octets != size || l[0].Flows != 1 || l[0].Last.IsZero() || l[0].To[0] != "b" || l[0].From[0] != "self" ||
		l[1].ID != 4 || !l[1].Observe || l[1].Frames != 1 || l[1].Flows != 0 {
		t.Errorf("grants %+v", l)
	}
	r.d.mu.Lock()
	r.d.lastRecordsLocked(r.s)
	r.d.mu.Unlock()
	r.d.collect(r.now)
	if list := r.lines(t); len(list) != 3 || list[2].End != "cut" {
		t.Errorf("the segment's end: %+v", list)
	}
}

// A scan makes a bounded number of lines in the log, and the records say how much more there was.
func TestDenyLogIsBounded(t *testing.T) {
	r := newRecorded(t)
	frame := r.frame(t, 80)
	for port := range 2000 {
		binary.BigEndian.PutUint16(frame[14+20+2:], uint16(1000+port))
		r.s.sw.Forward(r.local, frame, ether.Offload{}, vswitch.Tag{}, 0, r.now)
	}
	group := r.frame(t, 80)
	copy(group, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	r.s.sw.Forward(r.local, group, ether.Offload{}, vswitch.Tag{}, 0, r.now)
	r.d.collect(r.now)
	text := r.log.String()
	if n := strings.Count(text, `msg="frames were refused"`); n != maxDeniedLines {
		t.Errorf("%d lines", n)
	}
	if n := strings.Count(text, `msg="more frames were refused"`); n != 1 || !strings.Contains(text, "kinds=1015 frames=1991") {
		t.Errorf("%d lines of the rest: %s", n, text)
	}
	total := uint64(0)
	for _, one := range r.lines(t) {
		total += one.Frames
	}
	if total != 2001 {
		t.Errorf("%d frames in the records", total)
	}

	r.log.Reset()
	r.d.cfg.Records.LogDenied = false
	r.send(t, 80)
	r.d.collect(r.now)
	if text := r.log.String(); strings.Contains(text, "refused") {
		t.Errorf("logged %s", text)
	}
}

// The controllers are told of each use once.
func TestNewUses(t *testing.T) {
	r := newRecorded(t)
	told := map[policy.GrantID]time.Time{}
	if l := r.d.newUses(told); len(l) != 0 {
		t.Errorf("of nothing: %v", l)
	}
	r.send(t, 22)
	l := r.d.newUses(told)
	if len(l) != 1 || l[0].GetGrant() != 3 || l[0].GetLast().AsTime().Unix() != r.now.Unix() {
		t.Errorf("%v", l)
	}
	r.d.reportUse(told)
	if len(told) != 0 {
		t.Error("nobody was there to be told")
	}
	told[3] = l[0].GetLast().AsTime()
	r.send(t, 22)
	if l := r.d.newUses(told); len(l) != 0 {
		t.Errorf("again: %v", l)
	}
	r.now = r.now.Add(time.Second)
	r.send(t, 22)
	r.send(t, 80)
	if l := r.d.newUses(told); len(l) != 2 || l[1].GetGrant() != 4 {
		t.Errorf("later: %v", l)
	}
}

// Counts outlive changes of policy, and go with the grant.
func TestUsesAreKept(t *testing.T) {
	r := newRecorded(t)
	r.send(t, 22)
	r.d.mu.Lock()
	r.d.applied++
	r.s.sw.SetPolicy(r.d.viewsLocked()[5], r.now)
	r.d.retainUsesLocked()
	r.d.mu.Unlock()
	r.send(t, 22)
	if l := r.d.Grants(); l[0].Frames != 2 {
		t.Errorf("%+v", l[0])
	}
	r.d.mu.Lock()
	delete(r.d.contents.Reaches, 3)
	r.d.retainUsesLocked()
	list := r.d.uses[5].List()
	r.d.mu.Unlock()
	if len(list) != 1 || list[0].Grant != 4 {
		t.Errorf("%+v", list)
	}
}
