package node

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// attach adds a port to VLANs.
func (x *shelves) attach(vni policy.VNI, name string) *vswitch.Port {
	p := vswitch.NewPort(name, vswitch.Attached, 20, nil)
	s := x.d.segments[vni]
	x.d.dressLocked(s, p)
	s.sw.AddPort(p)
	return p
}

func (x *shelves) set(t *testing.T, port string, pairs ...string) error {
	t.Helper()
	ask := PortSet{Port: port, Segment: "lan", Set: map[string]string{}}
	for _, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		ask.Set[key] = value
	}
	_, err := x.local.SetPort(t.Context(), ask)
	return err
}

// stored is the file of what was set.
func (x *shelves) stored(t *testing.T) (f portsFile) {
	t.Helper()
	data, err := os.ReadFile(x.d.dir.Path("ports.json"))
	must(t, err)
	must(t, json.Unmarshal(data, &f))
	return f
}

// again is what a daemon that starts with the same state directory sets on the port.
func (x *shelves) again(t *testing.T, vni policy.VNI, name string, kind vswitch.Kind) (vswitch.Attributes, string) {
	t.Helper()
	var log bytes.Buffer
	d := &Daemon{dir: x.d.dir, log: slog.New(slog.NewTextHandler(&log, nil))}
	must(t, d.loadPorts())
	s := &segment{d: d, name: x.d.segments[vni].name}
	p := vswitch.NewPort(name, kind, 20, nil)
	d.dressLocked(s, p)
	return p.Attributes(), log.String()
}

// What is set on a port is told, kept, and there again after a restart; what is as by default is not kept.
func TestPortSetStays(t *testing.T) {
	x := newShelves(t, fdb.Limits{})
	v10 := x.attach(1, "v10")
	ask := PortSet{Port: "v10", Set: map[string]string{"guard": "on", "description": "to sw1", "storm_broadcast": "500"}}
	detail, err := x.local.SetPort(t.Context(), ask)
	must(t, err)
	if detail.Schema != Schema || detail.Attributes["guard"] != "on" || detail.Attributes["storm_broadcast"] != "500" || detail.Attributes["learning"] != "on" ||
		detail.Port.Port != "v10" || detail.Port.Description != "to sw1" || detail.Port.State != "on" {
		t.Errorf("set says %+v", detail)
	}
	want := vswitch.DefaultAttributes()
	want.Guard, want.Description, want.StormBroadcast = true, "to sw1", 500
	if v10.Attributes() != want {
		t.Errorf("the port has %+v", v10.Attributes())
	}
	if f := x.stored(t); f.Schema != Schema || len(f.Ports) != 1 || !maps.Equal(f.Ports["lan/attached:v10"], ask.Set) {
		t.Errorf("stored is %+v", f)
	}
	if a, log := x.again(t, 1, "v10", vswitch.Attached); a != want || log != "" {
		t.Errorf("after a restart the port has %+v; %s", a, log)
	}
	for name, kind := range map[string]vswitch.Kind{"v10": vswitch.Link, "v20": vswitch.Attached, "loom": vswitch.Local} {
		if a, _ := x.again(t, 1, name, kind); a != vswitch.DefaultAttributes() {
			t.Errorf("another port, %s %v, has %+v", name, kind, a)
		}
	}
	if a, _ := x.again(t, 2, "v10", vswitch.Attached); a != vswitch.DefaultAttributes() {
		t.Errorf("one of another segment has %+v", a)
	}
	must(t, x.set(t, "loom", "shut=on"))
	if a, _ := x.again(t, 1, "loom7", vswitch.Local); !a.Shut {
		t.Error("a TAP with another name has lost what was set")
	}
	must(t, x.set(t, "loom", "shut=off"))
	must(t, x.set(t, "v10", "guard=off", "description=", "storm_broadcast=0"))
	if f := x.stored(t); len(f.Ports) != 0 {
		t.Errorf("stored is %+v, and all is as by default", f)
	}
	info, err := os.Stat(x.d.dir.Path("ports.json"))
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("others may read it: %v", info.Mode())
	}
}

// Of one command all is done or nothing; what cannot be says why.
func TestPortSetRefuses(t *testing.T) {
	x := newShelves(t, fdb.Limits{})
	v10 := x.attach(1, "v10")
	x.attach(1, "b")
	for _, c := range []struct {
		port string
		set  string
		says []string
	}{
		{"v10", "guard=on speed=1", []string{`no attribute "speed"`}},
		{"v10", "guard=on recovery=soon", []string{"recovery is", `"soon"`}},
		{"v10", "hairpin=on", []string{"hairpin is not an attribute here", "site's switch"}},
		{"v10", "fastleave=on", []string{"fastleave is not", "mcast_flood"}},
		{"link:b", "locked=on", []string{"port link:b: it is a link", "nothing to lock"}},
		{"link:b", "guard=on", []string{"port link:b: it is a link", "nothing to guard"}},
		{"link:b", "neigh_suppress=on", []string{"port link:b: it is a link"}},
		{"loom", "locked=on", []string{"port loom: it leads to this machine"}},
		{"v10", "isolated=on community=a", []string{"port v10: it is isolated or of a community, not both"}},
		{"v10", "backup_port=v11", []string{"backup_port", `called "v11"`, "etherloom ports"}},
		{"v10", "backup_port=v10", []string{"another port than this"}},
		{"v10", "backup_port=loom", []string{"leads to this machine alone"}},
		{"v10", "backup_port=b", []string{"2 ports that are called b", "link:b"}},
		{"link:b", "backup_port=v10", []string{"only a port onto a VLAN"}},
		{"v10", "rate_in=fast", []string{"tc(8)", `"fast"`}},
		{"v11", "guard=on", []string{`called "v11"`, "etherloom ports"}},
	} {
		wantError(t, x.set(t, c.port, strings.Fields(c.set)...), c.says...)
	}
	if v10.Attributes() != vswitch.DefaultAttributes() || len(x.d.portValues) != 0 {
		t.Errorf("refused, and the port has %+v", v10.Attributes())
	}
	if _, err := os.Stat(x.d.dir.Path("ports.json")); err == nil {
		t.Error("refused, and something is stored")
	}
	must(t, x.set(t, "loom", "guard=on"))
	must(t, x.set(t, "link:b", "shut=on", "storm_broadcast=9"))
	must(t, x.set(t, "v10", "backup_port=link:b", "rate_out=10M"))
	if got := x.d.portValues["lan/attached:v10"]; got["backup_port"] != "link:b" || got["rate_out"] != "10mbit" || x.d.segments[1].sw.Backup(v10) == nil {
		t.Errorf("set is %v", got)
	}
	// A file that cannot be written leaves the port as it was.
	path := x.d.dir.Path("ports.json")
	must(t, os.Remove(path))
	must(t, os.Mkdir(path, 0o700))
	if err := x.set(t, "v10", "guard=on"); err == nil || v10.Attributes().Guard {
		t.Errorf("it could not be stored: %v, and the port has %+v", err, v10.Attributes())
	}
}

// A name that several ports have is an error that says how to choose.
func TestAmbiguousPorts(t *testing.T) {
	x := newShelves(t, fdb.Limits{})
	show := func(segment, port string) (string, error) {
		d, err := x.local.ShowPort(t.Context(), PortSet{Segment: segment, Port: port})
		if err != nil {
			return "", err
		}
		return d.Port.Segment + " " + d.Port.Kind + " " + d.Port.Port, nil
	}
	_, err := show("", "b")
	wantError(t, err, "segments lan and dmz both have a port b", "--segment")
	_, err = show("lab", "b")
	wantError(t, err, `no segment "lab"`)
	_, err = show("", "nobody")
	wantError(t, err, `no port of this node is called "nobody"`)
	x.attach(1, "b")
	_, err = show("lan", "b")
	wantError(t, err, "segment lan has 2 ports that are called b", "link:b or attached:b")
	for _, c := range []struct{ segment, port, want string }{
		{"dmz", "b", "dmz link b"},
		{"lan", "c", "lan link c"},
		{"lan", "link:b", "lan link b"},
		{"lan", "attached:b", "lan attached b"},
		{"", "attached:b", "lan attached b"},
	} {
		if got, err := show(c.segment, c.port); got != c.want || err != nil {
			t.Errorf("%s of %q is %q, %v; want %q", c.port, c.segment, got, err, c.want)
		}
	}
	_, err = x.local.SetPort(t.Context(), PortSet{Port: "attached:b", Set: map[string]string{"shut": "on"}})
	must(t, err)
	if a, _ := x.again(t, 1, "b", vswitch.Link); a.Shut {
		t.Error("what was set on a port is on the link of that name, too")
	}
}

// A file that is damaged, or newer, keeps the daemon from starting without what was set: a port that was shut must not open.
func TestPortsFileDamaged(t *testing.T) {
	for _, c := range []struct {
		text string
		says []string // none: it is taken
	}{
		{`{"schema":1,"ports":{"lan/attached:v10":{"shut":"on"}}}`, nil},
		{`{"schema":1}`, nil},
		{`{"schema":1,"ports":null}`, nil},
		{``, []string{"unexpected end of JSON"}},
		{`{"schema":1,"ports":{"lan/`, []string{"unexpected end of JSON"}},
		{`{"schema":2,"ports":{}}`, []string{"expected schema 1, found 2"}},
		{`{}`, []string{"expected schema 1, found 0"}},
		{`{"schema":1,"ports":{"lan/":{"shut":true}}}`, []string{"bool"}},
	} {
		x := newSite(t)
		path := x.dir.Path("ports.json")
		must(t, os.WriteFile(path, []byte(c.text), 0o600))
		d, err := New(config(), x.dir, quiet())
		if c.says == nil {
			must(t, err)
			d.portValues["it"] = nil // may be written
			continue
		}
		wantError(t, err, append(c.says, path, "move it away")...)
		if err != nil && strings.Contains(err.Error(), "%!") {
			t.Errorf("%v", err)
		}
	}
}

// What a newer version has set and this one does not know is told, has no effect, and stays in the file.
func TestNewerAttributes(t *testing.T) {
	x := newShelves(t, fdb.Limits{})
	x.d.portValues = map[string]map[string]string{"lan/attached:v10": {"shut": "on", "teleport": "on"}, "lan/attached:gone": {"flood": "off"}}
	var log bytes.Buffer
	x.d.log = slog.New(slog.NewTextHandler(&log, nil))
	p := x.attach(1, "v10")
	if !p.Attributes().Shut || !strings.Contains(log.String(), "teleport") {
		t.Errorf("the port has %+v; %s", p.Attributes(), log.String())
	}
	must(t, x.set(t, "v10", "shut=off", "guard=on"))
	want := map[string]map[string]string{"lan/attached:v10": {"guard": "on", "teleport": "on"}, "lan/attached:gone": {"flood": "off"}}
	for key, values := range x.stored(t).Ports {
		if !maps.Equal(values, want[key]) {
			t.Errorf("stored for %s is %v, want %v", key, values, want[key])
		}
		delete(want, key)
	}
	if len(want) > 0 {
		t.Errorf("not stored: %v", want)
	}
}

// A port that is shut forgets who is behind it.
func TestShutForgets(t *testing.T) {
	x := newShelves(t, fdb.Limits{})
	x.learn("lan", 1, "b")
	x.learn("lan", 2, "c")
	must(t, x.set(t, "b", "description=a peer"))
	x.want(t, "described", "lan 01 b dynamic", "lan 02 c dynamic")
	must(t, x.set(t, "b", "shut=on"))
	x.want(t, "shut", "lan 02 c dynamic")
}

// A port that a fault has disabled is a problem that says why and what to do, is logged once, and so is its end.
func TestFaultsAreTold(t *testing.T) {
	x := newShelves(t, fdb.Limits{})
	var log bytes.Buffer
	x.d.log = slog.New(slog.NewTextHandler(&log, nil))
	p, s := x.attach(1, "v10"), x.d.segments[1]
	problems := func() (out []Problem) {
		for _, p := range x.d.Status().Problems {
			if strings.HasPrefix(p.About, "port ") {
				out = append(out, p)
			}
		}
		return out
	}
	logged := func(want string) {
		t.Helper()
		s.tellFaults(time.Now())
		s.tellFaults(time.Now())
		if got := log.String(); strings.Count(got, "\n") != strings.Count(want, "|") || !strings.Contains(got, strings.Trim(want, "|")) {
			t.Errorf("logged is %q, want %q", got, want)
		}
		log.Reset()
	}
	logged("")
	if got := problems(); len(got) != 0 {
		t.Errorf("before: %v", got)
	}
	p.Disable("a BPDU came", time.Now())
	got := problems()
	if len(got) != 1 || got[0].About != "port v10" {
		t.Fatalf("problems are %v", got)
	}
	for _, text := range []string{"a BPDU came", "carries nothing", "enabled again at", "`etherloom port enable v10 --segment lan`"} {
		if !strings.Contains(got[0].Text, text) {
			t.Errorf("the problem is %q, want ...%s...", got[0].Text, text)
		}
	}
	logged("port=v10 reason=\"a BPDU came\"|")
	d, err := x.local.ShowPort(t.Context(), PortSet{Port: "v10"})
	must(t, err)
	if d.Port.State != "disabled" || d.Port.Why != "a BPDU came" || d.Fault == nil || d.Fault.Reason != "a BPDU came" || d.Fault.Until == nil || d.Fault.Since.IsZero() {
		t.Errorf("show says %+v", d)
	}
	must(t, x.set(t, "v10", "shut=on"))
	if d, err = x.local.ShowPort(t.Context(), PortSet{Port: "v10"}); err != nil || d.Port.State != "shut" || d.Port.Why != "" || d.Fault == nil {
		t.Errorf("shut: show says %+v, %v", d, err)
	}
	must(t, x.set(t, "v10", "shut=off", "recovery=0s"))
	log.Reset()
	d, err = x.local.SetPort(t.Context(), PortSet{Port: "v10", Enable: true})
	must(t, err)
	if d.Port.State != "on" || d.Fault != nil || len(problems()) != 0 || !strings.Contains(log.String(), "enabled by command") {
		t.Errorf("enabled: %+v, %v; %s", d, problems(), log.String())
	}
	log.Reset()
	logged("a port is enabled again|")
	p.Disable("another", time.Now().Add(-time.Hour))
	if got := problems(); len(got) != 1 || strings.Contains(got[0].Text, "enabled again at") {
		t.Errorf("without recovery: %v", got)
	}
	logged("reason=another|")
}

// What neighbours have said by BPDUs and LLDP is shown.
func TestPortShowsNeighbours(t *testing.T) {
	x := newShelves(t, fdb.Limits{})
	p := x.attach(1, "v10")
	say := func(dst [6]byte, rest string) {
		frame := append(append(dst[:], 2, 0, 0, 0, 8, 1), rest...)
		x.d.segments[1].sw.Forward(p, frame, ether.Offload{}, vswitch.Tag{}, 0, time.Now())
	}
	say([6]byte{1, 0x80, 0xc2}, "\x00\x07\x42\x42\x03\x00\x00\x00\x80")
	say([6]byte{1, 0x80, 0xc2, 5: 0x0e}, "\x88\xcc"+lldpdu(120, "sw1"))
	d, err := x.local.ShowPort(t.Context(), PortSet{Port: "v10"})
	must(t, err)
	if n := d.Neighbour; d.BPDUs != 1 || d.Changes != 1 || n == nil || n.System != "sw1" || n.Chassis != "02:00:00:00:08:01" || n.Port != "ge-0/0/1" {
		t.Errorf("show says %+v, %+v", d, n)
	}
}
