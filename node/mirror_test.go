package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/bridge"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// elsewhere runs a test in a network namespace of its own, in which it may make devices.
func elsewhere(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root makes devices")
	}
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		f()
	}()
	if err := <-done; err != nil {
		t.Skip(err)
	}
}

// mirrored are shelves whose ports on segment lan can be mirrored: loom, link b, and VLANs v10 and v20 of one NIC.
type mirrored struct {
	*shelves

	seg      *segment
	link     *link
	v10, v20 *attachment
}

func newMirrored(t *testing.T) *mirrored {
	x := &mirrored{shelves: newShelves(t, fdb.Limits{})}
	x.furnish(x.d)
	return x
}

// furnish gives a daemon these ports.
func (x *mirrored) furnish(d *Daemon) {
	s := &segment{d: d, vni: 1, name: "lan", sw: vswitch.NewSegment(1, selfID, 1500, fdb.Limits{})}
	x.seg, x.link = s, &link{lanes: &d.lanes}
	trunk := &trunk{d: d, to: device{nic: "eth1"}}
	s.sw.AddPort(vswitch.NewPort("loom", vswitch.Local, selfID, s))
	s.sw.AddPort(vswitch.NewPort("b", vswitch.Link, 8, x.link))
	for _, name := range []string{"v10", "v20"} {
		a := &attachment{id: 20, seg: s, trunk: trunk}
		a.port = vswitch.NewPort(name, vswitch.Attached, 20, a)
		s.sw.AddPort(a.port)
		trunk.list = append(trunk.list, a)
	}
	x.v10, x.v20 = trunk.list[0], trunk.list[1]
	d.segments[1], d.trunks[trunk.to] = s, trunk
}

// watch sees what is sent out of a device.
type watch struct {
	t  *testing.T
	fd int
}

func newWatch(t *testing.T, name string) *watch {
	t.Helper()
	dev, err := net.InterfaceByName(name)
	must(t, err)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: dev.Index}))
	return &watch{t, fd}
}

// saw is what has come since it was asked last: the EtherType and the byte behind it of each frame.
func (w *watch) saw() string {
	w.t.Helper()
	var out []string
	for buf := make([]byte, 2000); ; {
		n, _, err := unix.Recvfrom(w.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			return strings.Join(out, " ")
		}
		must(w.t, err)
		if n > 16 {
			out = append(out, fmt.Sprintf("%x", buf[12:17]))
		}
	}
}

func sampleFrame(tag, mark byte) []byte {
	f := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}
	if tag != 0 {
		f = append(f, 0x81, 0, 0, tag)
	}
	return append(f, append([]byte{0x88, 0xb5, mark}, make([]byte, 50)...)...)
}

// Frames of a port come to its mirror as they are on the port, in the directions that were asked for, and no others.
func TestMirror(t *testing.T) {
	x := newMirrored(t)
	elsewhere(t, func() {
		for _, spec := range []MirrorSpec{
			{From: "v10", Segment: "lan", Direction: "both", To: "span0"},
			{From: "b", Segment: "lan", Direction: "in", To: "span0"},
			{From: "loom", Segment: "lan", Direction: "out", To: "span0"},
			{From: "loom", Segment: "lan", Direction: "in", To: "span1"},
		} {
			change, err := x.d.AddMirror(spec)
			must(t, err)
			if m := change.Mirrors[0]; len(change.Mirrors) != 1 || m.MirrorSpec != spec || !m.Made || m.State != "copies" {
				t.Errorf("added is %+v", change)
			}
		}
		span0, span1 := newWatch(t, "span0"), newWatch(t, "span1")
		if !x.v10.trunk.copied.Load() {
			t.Error("the wire does not look whose a frame is")
		}
		all := func() {
			for i, c := range []*copies{&x.v10.copies, &x.v20.copies, &x.link.copies, &x.seg.copies} {
				mark := byte(0x10 * (i + 1))
				tag := byte(0)
				if i < 2 {
					tag = 10
				}
				c.enter(sampleFrame(tag, mark), ether.Offload{}, 0)
				c.leave(sampleFrame(0, mark+1), ether.Offload{}, 1)
				c.leaveTagged(sampleFrame(0, mark+2), ether.MakeTag(ether.TypeVLAN, 10), ether.Offload{}, 2)
			}
		}
		all()
		// v10: in with its tag, out without, out with a tag. b: in. loom: out, out with a tag (nobody does).
		if got, want := span0.saw(), "8100000a88 88b5110000 8100000a88 88b5300000 88b5410000 8100000a88"; got != want {
			t.Errorf("span0 saw\n%s, want\n%s", got, want)
		}
		if got := span1.saw(); got != "88b5400000" {
			t.Errorf("span1 saw %s", got)
		}
		list := x.d.Mirrors()
		if len(list) != 4 || list[0].Copied != 3 || list[1].Copied != 1 || list[2].Copied != 2 || list[3].Copied != 1 || list[0].Lost != 0 {
			t.Errorf("mirrors are %+v", list)
		}
		frame := sampleFrame(10, 1)
		if n := testing.AllocsPerRun(100, func() {
			x.v10.copies.enter(frame, ether.Offload{}, 0)
			x.v20.copies.enter(frame, ether.Offload{}, 0)
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
		span0.saw()
		x.restarts(t)
		if _, err := x.d.RemoveMirror(MirrorRemove{}); err == nil {
			t.Error("all mirrors were removed by no word")
		}
		_, err := x.d.RemoveMirror(MirrorRemove{From: "v10", To: "span1"})
		wantError(t, err, "no such mirror", "mirror list")
	})
}

// restarts checks that mirrors are there again in a daemon that starts with the state directory, and end when they are removed.
func (x *mirrored) restarts(t *testing.T) {
	t.Helper()
	for _, s := range x.d.sinks {
		s.close()
	}
	d := &Daemon{
		dir: x.d.dir, log: quiet(), cfg: x.d.cfg, segments: map[policy.VNI]*segment{}, trunks: map[device]*trunk{}, problems: map[string]string{},
	}
	must(t, d.loadMirrors())
	if m := d.Mirrors(); len(m) != 4 || m[0].State != "no-device" || m[0].Why == "" {
		t.Errorf("before it runs, mirrors are %+v", m)
	}
	d.openMirrors()
	d.applyMirrorsLocked()
	if m := d.Mirrors(); m[0].State != "no-port" || !m[0].Made {
		t.Errorf("before there are ports, mirrors are %+v", m)
	}
	x.furnish(d)
	d.applyMirrorsLocked()
	span0 := newWatch(t, "span0")
	x.v10.copies.enter(sampleFrame(10, 1), ether.Offload{}, 0)
	if got := span0.saw(); got != "8100000a88" {
		t.Errorf("after a restart span0 saw %s", got)
	}
	change, err := d.RemoveMirror(MirrorRemove{To: "span0"})
	must(t, err)
	if len(change.Mirrors) != 3 || len(d.Mirrors()) != 1 || len(d.sinks) != 1 || d.segments[1].copies.to.Load() == nil || x.v10.trunk.copied.Load() {
		t.Errorf("removed are %+v, left %+v", change, d.Mirrors())
	}
	if _, err := net.InterfaceByName("span0"); err == nil {
		t.Error("span0 is still there")
	}
	_, err = d.RemoveMirror(MirrorRemove{From: "local", Segment: "lan"})
	must(t, err)
	if d.segments[1].copies.to.Load() != nil || len(d.sinks) != 0 {
		t.Error("the last one goes on")
	}
	data, err := os.ReadFile(d.dir.Path("mirrors.json"))
	must(t, err)
	var f mirrorsFile
	if err := json.Unmarshal(data, &f); err != nil || f.Schema != Schema || len(f.Mirrors) != 0 {
		t.Errorf("stored is %s, %v", data, err)
	}
}

// What cannot be says why, and changes nothing.
func TestMirrorRefuses(t *testing.T) {
	x := newMirrored(t)
	elsewhere(t, func() {
		for _, c := range []struct {
			spec MirrorSpec
			says []string
		}{
			{MirrorSpec{"v99", "lan", "both", "span0"}, []string{`called "v99"`}},
			{MirrorSpec{"v10", "lan", "sideways", "span0"}, []string{"in, out or both", `"sideways"`}},
			{MirrorSpec{"v10", "lan", "both", ""}, []string{"name of a network device"}},
			{MirrorSpec{"v10", "lan", "both", "span%d"}, []string{"name of a network device"}},
			{MirrorSpec{"v10", "lan", "both", "a/b"}, []string{"name of a network device"}},
			{MirrorSpec{"v10", "lan", "both", "sixteen-letters-"}, []string{"name of a network device"}},
			{MirrorSpec{"v10", "lan", "both", "lo"}, []string{"loopback"}},
			{MirrorSpec{"v10", "lan", "both", "eth1"}, []string{"nic eth1 leads to VLANs of this gateway"}},
		} {
			_, err := x.d.AddMirror(c.spec)
			wantError(t, err, c.says...)
		}
		if len(x.d.mirrors)+len(x.d.sinks) != 0 || x.v10.copies.to.Load() != nil {
			t.Errorf("refused, and there are %+v", x.d.Mirrors())
		}
		good := MirrorSpec{"v10", "lan", "both", "span0"}
		_, err := x.d.AddMirror(good)
		must(t, err)
		_, err = x.d.AddMirror(good)
		wantError(t, err, "port v10 is mirrored to span0 already (both)", "mirror remove --from v10 --to span0")
		for i := range mostMirrors - 1 {
			x.d.mirrors = append(x.d.mirrors, &mirror{key: fmt.Sprint(i), sink: x.d.sinks["span0"]})
		}
		_, err = x.d.AddMirror(MirrorSpec{"v20", "lan", "both", "span0"})
		wantError(t, err, "there are 16 mirrors")
		// What copies go to is no NIC for VLANs.
		cert := *x.d.cert.Load()
		cert.Roles = append(slices.Clone(cert.Roles), identity.RoleGateway)
		x.d.cert.Store(&cert)
		wantError(t, x.d.applyTrunkLocked(device{nic: "span0"}, []*controlv1.Attachment{{Id: 20}}), "copies of frames go to nic span0", "mirror remove --to span0")
		for _, s := range x.d.sinks {
			s.close()
		}
	})
}

// A device that is gone is a problem that says so, and no frame waits for it; a NIC that comes back is used again.
func TestMirrorFollows(t *testing.T) {
	x := newMirrored(t)
	elsewhere(t, func() {
		x.d.sinks["eth9"] = &sink{name: "eth9"}
		x.d.mirrors = []*mirror{{spec: MirrorSpec{"v10", "lan", "both", "eth9"}, key: "lan/attached:v10", sink: x.d.sinks["eth9"]}}
		x.d.openMirrors()
		x.d.applyMirrorsLocked()
		if m := x.d.Mirrors()[0]; m.State != "no-device" || !strings.Contains(m.Why, "no network device eth9") || !strings.Contains(x.d.problems["mirror eth9"], "eth9") {
			t.Errorf("mirror is %+v, problems %v", m, x.d.problems)
		}
		x.v10.copies.enter(sampleFrame(10, 1), ether.Offload{}, 0)
		nic, err := bridge.NewTAP(bridge.TAPConfig{Name: "eth8", MAC: ether.MAC{2, 0, 0, 0, 0, 9}, MTU: 1500})
		must(t, err)
		defer nic.Close()
		x.d.followMirrorsLocked()
		if m := x.d.Mirrors()[0]; m.State != "no-device" {
			t.Errorf("another device came: %+v", m)
		}
	})
}

// A file that is damaged, or newer, is not overwritten: the daemon does not start without it.
func TestMirrorsFileDamaged(t *testing.T) {
	const good = `{"schema":1,"mirrors":[{"from":"v10","segment":"lan","direction":"both","to":"span0","key":"lan/attached:v10","made":true}]}`
	for _, c := range []struct{ text, says string }{
		{good, ""},
		{`{"schema":1}`, ""},
		{`{"schema":2}`, "expected schema 1, found 2"},
		{``, "unexpected end of JSON"},
		{strings.Replace(good, "both", "some", 1), "in, out or both"},
		{strings.Replace(good, "span0", "../x", 1), "name of a network device"},
	} {
		s := newSite(t)
		path := s.dir.Path("mirrors.json")
		must(t, os.WriteFile(path, []byte(c.text), 0o600))
		_, err := New(config(), s.dir, quiet())
		if c.says == "" {
			must(t, err)
			continue
		}
		wantError(t, err, c.says, path, "move it away")
	}
}

// What was set on a port that the controllers have removed is forgotten; on one that is only not here now, it stays.
func TestRemovedPortsAreForgotten(t *testing.T) {
	x := newSite(t)
	d := x.daemon()
	set := map[string]string{"shut": "on"}
	d.portValues = map[string]map[string]string{"lan/attached:site": set, "lan/attached:other": set, "lan/link:site": set, "lan/local": set, "dmz/attached:site": set}
	for key := range d.portValues {
		d.mirrors = append(d.mirrors, &mirror{spec: MirrorSpec{"p", "lan", "in", "eth9"}, key: key, sink: &sink{name: "eth9"}})
	}
	attachment := func(id uint32, port string) *controlv1.Resource {
		return &controlv1.Resource{Kind: &controlv1.Resource_Attachment{Attachment: &controlv1.Attachment{
			Id: id, Vni: 1, Port: port, Nic: "no-such-nic", ProbeKey: make([]byte, 32),
		}}}
	}
	lan := &controlv1.Resource{Kind: &controlv1.Resource_Segment{Segment: &controlv1.Segment{Vni: 1, Name: "lan", Mtu: 1500, Ipv4Prefix: "192.0.2.0/24"}}}
	complete := self()
	complete.GetSelf().Complete = true
	for i, c := range []struct {
		name string
		told []*controlv1.Resource
		left string
	}{
		{"by a controller that does not say whether it is all", []*controlv1.Resource{self(), lan, attachment(20, "site")}, "dmz/attached:site lan/attached:other lan/attached:site lan/link:site lan/local"},
		{"with a NIC that is not there", []*controlv1.Resource{complete, lan, attachment(20, "site")}, "lan/attached:site lan/link:site lan/local"},
		{"while it is locked", []*controlv1.Resource{self()}, "lan/attached:site lan/link:site lan/local"},
		{"unlocked", []*controlv1.Resource{complete, lan, attachment(20, "site")}, "lan/attached:site lan/link:site lan/local"},
		{"removed", []*controlv1.Resource{complete, lan, attachment(20, "more")}, "lan/link:site lan/local"},
		{"with its segment", []*controlv1.Resource{complete}, "lan/link:site lan/local"},
	} {
		must(t, d.take(x.delta(told{version: uint64(i + 1), resources: append([]*controlv1.Resource{netSettings()}, c.told...)})))
		var left, mirrors []string
		for key := range d.portValues {
			left = append(left, key)
		}
		for _, m := range d.mirrors {
			mirrors = append(mirrors, m.key)
		}
		slices.Sort(left)
		slices.Sort(mirrors)
		if got := strings.Join(left, " "); got != c.left {
			t.Errorf("%s: kept is what was set on %s, want %s", c.name, got, c.left)
		}
		if got := strings.Join(mirrors, " "); got != c.left {
			t.Errorf("%s: kept are mirrors of %s, want %s", c.name, got, c.left)
		}
		if i < 1 {
			continue
		}
		again := &Daemon{dir: x.dir, log: quiet()}
		must(t, again.loadPorts())
		must(t, again.loadMirrors())
		if len(again.portValues) != len(left) || len(again.mirrors) != len(left) {
			t.Errorf("%s: on disk are %v, %d mirrors", c.name, again.portValues, len(again.mirrors))
		}
	}
}
