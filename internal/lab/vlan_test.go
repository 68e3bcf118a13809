package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// needPrograms skips the test where a program is missing, or fails it where it must run.
func needPrograms(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("ETHERLOOM_E2E") == "1" {
				t.Fatalf("ETHERLOOM_E2E=1 and a program is missing (make e2e installs it): %v", err)
			}
			t.Skip(err)
		}
	}
}

// office is a site: a switch, two machines on VLAN 10 and one on VLAN 20, and a trunk of both, on which nobody has an address.
type office struct {
	*VLANSwitch
	lab     *Lab
	a, b, c *Host // 198.51.100.1 and .2 on VLAN 10, .3 on VLAN 20
	eth0    [3]*Link
	tap     *Host // at the trunk's end
	trunk   *Link
}

func newOffice(t *testing.T) *office {
	t.Helper()
	needPrograms(t, "ovs-vswitchd")
	l := newLab(t)
	o := &office{VLANSwitch: must(l.AddVLANSwitch(t.Context(), "switch"))(t), lab: l}
	for i, h := range []**Host{&o.a, &o.b, &o.c} {
		*h = must(l.AddHost(string(rune('a' + i))))(t)
		p := Plug{On: *h, Name: "eth0", Addrs: []string{fmt.Sprintf("198.51.100.%d/24", i+1)}, MAC: fmt.Sprintf("02:00:00:00:00:0%d", i+1)}
		o.eth0[i] = must(o.Access(t.Context(), p, []uint16{10, 10, 20}[i]))(t)
	}
	o.tap = must(l.AddHost("tap"))(t)
	o.trunk = must(o.Trunk(t.Context(), Plug{On: o.tap, Name: "lan"}, 10, 20))(t)
	return o
}

func TestVLANSwitchSeparates(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	wantPing(t, o.a, "198.51.100.2", true)
	wantPing(t, o.b, "198.51.100.1", true)
	for _, pair := range []struct {
		from *Host
		to   string
	}{{o.a, "198.51.100.3"}, {o.c, "198.51.100.1"}} {
		if r, err := pair.from.Ping(t.Context(), pair.to, Echo{Wait: brief}); err == nil && r.Received > 0 {
			t.Errorf("%s on one VLAN answers %s on another", pair.to, pair.from.Name())
		}
	}
	check(t, o.SetMode(t.Context(), o.eth0[2], PortMode{VLAN: 10}))
	wantPing(t, o.a, "198.51.100.3", true)
	if err := o.Configure(t.Context(), "add-port", switchBridge, "nosuch0"); err == nil {
		t.Error("a port was made of an interface that does not exist")
	}
}

// What each mode of a port lets in and sends out. A machine on VLAN 10 sees what comes in at the port, and sends what goes out.
func TestVLANPortModes(t *testing.T) {
	t.Parallel()
	needPrograms(t, "ovs-vswitchd")
	l := newLab(t)
	sw := must(l.AddVLANSwitch(t.Context(), "switch"))(t)
	ten, port := bare(t, l, "ten"), bare(t, l, "port")
	must(sw.Access(t.Context(), Plug{On: ten, Name: "eth0", MTU: 1504}, 10))(t)
	link := must(sw.Plug(t.Context(), Plug{On: port, Name: "lan", MTU: 1504}, PortMode{}))(t)
	tagged := func(vlan uint16) []Tag { return []Tag{{VLAN: vlan, Priority: 5}} }
	for _, c := range []struct {
		name string
		mode PortMode
		in   map[string][]Tag // that reach the machine on VLAN 10
		not  map[string][]Tag // that do not
		sent []Tag            // of what the machine sends
		out  []Tag            // of that as it leaves the port
	}{
		{
			"access",
			PortMode{VLAN: 10},
			map[string][]Tag{"untagged": nil, "priority": tagged(0)},
			map[string][]Tag{"its own tag": tagged(10), "another": tagged(12)},
			nil, nil,
		},
		{
			"trunk",
			PortMode{Trunk: []uint16{10, 12}},
			map[string][]Tag{"10": tagged(10)},
			map[string][]Tag{"11": tagged(11), "12": tagged(12), "untagged": nil, "4095": tagged(4095)},
			nil,
			[]Tag{{VLAN: 10}},
		},
		{
			"native untagged",
			PortMode{Mode: "native-untagged", VLAN: 10, Trunk: []uint16{12}},
			map[string][]Tag{"untagged": nil, "10": tagged(10)},
			map[string][]Tag{"12": tagged(12)},
			nil, nil,
		},
		{
			"native tagged",
			PortMode{Mode: "native-tagged", VLAN: 10},
			map[string][]Tag{"untagged": nil, "10": tagged(10)},
			map[string][]Tag{"12": tagged(12)},
			tagged(0), tagged(10),
		},
		{
			"access with priority tags",
			PortMode{VLAN: 10, Priority: "if-nonzero"},
			map[string][]Tag{"untagged": nil},
			nil, tagged(0), tagged(0),
		},
	} {
		check(t, sw.SetMode(t.Context(), link, c.mode))
		inside, outside := must(ten.CaptureArrivals("eth0"))(t), must(port.CaptureArrivals("lan"))(t)
		send := func(from *Host, dev string, tags []Tag) Train {
			t.Helper()
			tr := NewTrain(Ethernet(Broadcast(), mac(9), Experimental, tags...), 3, 0)
			must(from.SendTrain(t.Context(), dev, tr))(t)
			return tr
		}
		sent := map[string]Train{}
		for _, group := range []map[string][]Tag{c.in, c.not} {
			for what, tags := range group {
				sent[what] = send(port, "lan", tags)
			}
		}
		out := send(ten, "eth0", c.sent)
		if err := must(outside.AwaitTrain(t.Context(), out, Ethernet(Broadcast(), mac(9), Experimental, c.out...), brief))(t).Exactly(3); err != nil {
			t.Errorf("%s, out of the port: %v", c.name, err)
		}
		for what, tr := range sent {
			a := must(inside.Train(tr, Ethernet(Broadcast(), mac(9), Experimental)))(t)
			want := 0
			if _, pass := c.in[what]; pass {
				want = 3
			}
			if err := a.Exactly(want); err != nil {
				t.Errorf("%s, of 3 frames %s: %v", c.name, what, err)
			}
		}
		check(t, inside.Stop(), outside.Stop())
	}
}

// Two customers of a tunnel have VLAN 10 each; on the way they have an outer tag of 802.1ad, and at the other end again their own.
func TestVLANTunnel(t *testing.T) {
	t.Parallel()
	needPrograms(t, "ovs-vswitchd")
	l := newLab(t)
	sw := must(l.AddVLANSwitch(t.Context(), "switch"))(t)
	left, right, other, way := bare(t, l, "left"), bare(t, l, "right"), bare(t, l, "other"), bare(t, l, "way")
	must(sw.Tunnel(t.Context(), Plug{On: left, Name: "eth0"}, 100))(t)
	must(sw.Tunnel(t.Context(), Plug{On: right, Name: "eth0"}, 100))(t)
	must(sw.Tunnel(t.Context(), Plug{On: other, Name: "eth0"}, 200))(t)
	must(sw.Trunk(t.Context(), Plug{On: way, Name: "eth0", MTU: 1508}))(t)
	captures := map[*Host]*Capture{}
	for _, h := range []*Host{right, other, way} {
		captures[h] = must(h.CaptureArrivals("eth0"))(t)
	}
	inner, outer := Tag{VLAN: 10, Priority: 3}, Tag{VLAN: 100, Type: ServiceTag}
	head := Ethernet(Broadcast(), mac(1), Experimental, inner)
	tr := NewTrain(head, 20, 0)
	tr.Size = 1518
	must(left.SendTrain(t.Context(), "eth0", tr))(t)
	for _, c := range []struct {
		at   *Host
		head []byte
		want int
	}{
		{way, Ethernet(Broadcast(), mac(1), Experimental, outer, inner), 20},
		{right, head, 20},
		{other, head, 0},
	} {
		if err := must(captures[c.at].AwaitTrain(t.Context(), tr, c.head, brief))(t).Exactly(c.want); err != nil {
			t.Errorf("at %s: %v", c.at.Name(), err)
		}
	}
	// And the other way: what has both tags on the trunk has the inner one at the customers'.
	back := NewTrain(Ethernet(Broadcast(), mac(2), Experimental, outer, inner), 20, 0)
	must(way.SendTrain(t.Context(), "eth0", back))(t)
	if err := must(captures[right].AwaitTrain(t.Context(), back, Ethernet(Broadcast(), mac(2), Experimental, inner), brief))(t).Exactly(20); err != nil {
		t.Error("back:", err)
	}
}

func TestVLANSwitchLearns(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	where := func(n byte, vlan uint16) *Link {
		t.Helper()
		return must(o.Find(t.Context(), mac(n), vlan))(t)
	}
	say := func(h *Host, dev string, n byte, tags ...Tag) {
		t.Helper()
		check(t, h.SendFrames(dev, append(Ethernet(Broadcast(), mac(n), Experimental, tags...), make([]byte, 46)...)))
	}
	check(t, o.FlushFDB(t.Context()))
	say(o.a, "eth0", 0x21)
	say(o.c, "eth0", 0x21) // the same address on another VLAN is another
	wantWithin(t, "the address is at a on VLAN 10 and at c on VLAN 20", func() bool {
		return where(0x21, 10) == o.eth0[0] && where(0x21, 20) == o.eth0[2]
	})
	say(o.tap, "lan", 0x21, Tag{VLAN: 10}) // it moves
	wantWithin(t, "on VLAN 10 the address has moved, and there alone", func() bool {
		return where(0x21, 10) == o.trunk && where(0x21, 20) == o.eth0[2]
	})
	check(t, o.Unplug(t.Context(), o.trunk))
	if ten, twenty := where(0x21, 10), where(0x21, 20); ten != nil || twenty != o.eth0[2] {
		t.Errorf("after its cable is pulled the address is at %v on VLAN 10 and at %v on VLAN 20", ten, twenty)
	}
	carrier := strings.TrimSpace(must(o.tap.Run(t.Context(), "cat", "/sys/class/net/lan/carrier"))(t))
	if carrier != "0" {
		t.Errorf("the unplugged end has carrier %q", carrier)
	}
	check(t, o.Replug(t.Context(), o.trunk))
	wantWithin(t, "what is behind a cable is learned again", func() bool {
		say(o.tap, "lan", 0x21, Tag{VLAN: 10})
		return where(0x21, 10) == o.trunk
	})
	if links := o.Ports(); !slices.Equal(links, append(o.eth0[:], o.trunk)) {
		t.Errorf("the cables are %v", links)
	}
}

// The reserved addresses stop at the switch, until it is told otherwise; their neighbours pass.
func TestVLANSwitchReserved(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	capture := must(o.b.CaptureArrivals("eth0"))(t)
	const reserved = 16
	pass := func() (passed []int) {
		t.Helper()
		var trains []Train
		for last := range reserved + 1 { // the one after them is an address like any other
			tr := NewTrain(Ethernet(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, byte(last)}, mac(9), Experimental), 2, 0)
			must(o.a.SendTrain(t.Context(), "eth0", tr))(t)
			trains = append(trains, tr)
		}
		must(capture.AwaitTrain(t.Context(), trains[reserved], trains[reserved].Head, brief))(t)
		for last, tr := range trains {
			if a := must(capture.Train(tr, tr.Head))(t); a.Exactly(2) == nil {
				passed = append(passed, last)
			} else if err := a.Exactly(0); err != nil {
				t.Errorf("01:80:c2:00:00:%02x: %v", last, err)
			}
		}
		return passed
	}
	if got := pass(); !slices.Equal(got, []int{reserved}) {
		t.Errorf("what passes of 01:80:c2:00:00:00 to 10 is %x, want the last", got)
	}
	check(t, o.Configure(t.Context(), "set", "Bridge", switchBridge, "other_config:forward-bpdu=true"))
	if got := pass(); len(got) != reserved+1 {
		t.Errorf("with forward-bpdu what passes of 01:80:c2:00:00:00 to 10 is %x, want all", got)
	}
}

func wantWithin(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patient); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patient, what)
		}
	}
}

func TestParseFDB(t *testing.T) {
	t.Parallel()
	const head = " port  VLAN  MAC                Age\n"
	for _, c := range []struct {
		text string
		want []fdbLine // nil: an error
	}{
		{head, []fdbLine{}},
		{head + "    3    10  02:00:00:00:00:01    7\n", []fdbLine{{3, FDBEntry{VLAN: 10, MAC: mac(1), Age: 7 * time.Second}}}},
		{
			head + "LOCAL     0  02:00:00:00:00:02    0\n    1  4095  02:00:00:00:00:03  static\n",
			[]fdbLine{{0, FDBEntry{MAC: mac(2)}}, {1, FDBEntry{VLAN: 4095, MAC: mac(3)}}},
		},
		{head + "    3    10  02:00:00:00:00:01\n", nil},
		{head + "    3    10  02:00:00:00:00:01    7  8\n", nil},
		{head + "    x    10  02:00:00:00:00:01    7\n", nil},
		{head + "    3  4096  02:00:00:00:00:01    7\n", nil},
		{head + "    3    10  02:00:00:00:00    7\n", nil},
		{head + "    3    10  02:00:00:00:00:01    ?\n", nil},
	} {
		got, err := parseFDB(c.text)
		same := slices.EqualFunc(got, c.want, func(a, b fdbLine) bool {
			return a.port == b.port && a.VLAN == b.VLAN && bytes.Equal(a.MAC, b.MAC) && a.Age == b.Age
		})
		if (err != nil) != (c.want == nil) || !same {
			t.Errorf("%q: %v, %v, want %v", c.text, got, err, c.want)
		}
	}
}

// A stream through the switch completes, because what is plugged in sends real packets; with more it would hang.
func TestVLANSwitchCarriesStreams(t *testing.T) {
	t.Parallel()
	needPrograms(t, "iperf3")
	o := newOffice(t)
	server := must(o.b.Start(t.Context(), "iperf3", "-s", "-1", "--forceflush"))(t)
	check(t, server.WaitLog(t.Context(), "listening"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out := must(o.a.Run(ctx, "iperf3", "-J", "-t", "1", "-c", "198.51.100.2"))(t)
	var result struct {
		End struct {
			Received struct {
				Bytes float64 `json:"bytes"`
				Rate  float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	check(t, json.Unmarshal([]byte(out), &result))
	if result.End.Received.Bytes < 1<<20 {
		t.Errorf("in a second %.0f bytes went through", result.End.Received.Bytes)
	}
	t.Logf("%.0f Mbit/s", result.End.Received.Rate/1e6)
}

// A switch goes with its lab, and with the process that made the lab.
func TestVLANSwitchLeavesNothing(t *testing.T) {
	newLab(t)
	needPrograms(t, "ovs-vswitchd")
	mark := fmt.Sprint("switch", time.Now().UnixNano())
	t.Setenv(markVar, mark) // of its programs, which inherit it
	before := traces(t, mark)
	l := must(New("loomtest"))(t)
	sw := must(l.AddVLANSwitch(t.Context(), "switch"))(t)
	must(sw.Access(t.Context(), Plug{On: must(l.AddHost("a"))(t), Name: "eth0"}, 10))(t)
	if n := len(traces(t, mark)) - len(before); n < 4 {
		t.Errorf("a lab with a switch leaves %d traces: the comparison sees nothing", n)
	}
	check(t, l.Close())
	wantNoTraces(t, before, mark)

	const prefix = "loomsweep"
	must(Sweep(prefix))(t)
	cmd := exec.Command(must(os.Executable())(t), "-test.run=^$")
	cmd.Env = append(os.Environ(), victimVar+"="+prefix, switchVar+"=1")
	out := must(cmd.StdoutPipe())(t)
	check(t, cmd.Start())
	line := make([]byte, 200)
	if n := must(out.Read(line))(t); !strings.HasSuffix(string(line[:n]), " <nil>\n") {
		t.Fatalf("the victim says %q", line[:n])
	}
	check(t, cmd.Process.Kill())
	_ = cmd.Wait()
	must(Sweep(prefix))(t)
	wantNoTraces(t, before, mark)
}
