package node

import (
	"strings"
	"testing"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/node/records"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// newTransparent is a recorded segment that carries tags.
func newTransparent(t *testing.T) *recorded {
	t.Helper()
	r := newRecorded(t)
	r.s.transparent = true
	r.s.sw.SetTransparent(true)
	r.d.contents.Segments[uint32(r.s.vni)].Transparent = true
	return r
}

// sendOn sends the first packet of a TCP connection to node 8, on VLANs.
func (r *recorded) sendOn(t *testing.T, text string, port uint16) vswitch.Drop {
	t.Helper()
	vlans, err := ether.ParseVLANs(text)
	must(t, err)
	return r.s.sw.Forward(r.local, vlans.Tag(r.frame(t, port)), ether.Offload{}, vswitch.Tag{}, 0, r.now)
}

// Explain makes a frame with tags, says so, and judges it here and at the receiver as what is behind them; on an ordinary segment none passes.
func TestExplainInside(t *testing.T) {
	for _, c := range []struct {
		vlan, frame, check string
		port               uint16
		ordinary           bool
	}{
		{vlan: "10", port: 22, frame: "VLAN tag 10, 192.0.2.7 > 192.0.2.8, TCP port ", check: "pass"},
		{vlan: "s20.10", port: 22, frame: "VLAN tag s20.10, 192.0.2.7 > 192.0.2.8, TCP port ", check: "pass"},
		{vlan: "10", port: 80, frame: "VLAN tag 10, ", check: "not-allowed"},
		{port: 22, frame: " > 02:00:00:00:00:08, 192.0.2.7 > 192.0.2.8, TCP", check: "pass"},
		{vlan: "10", port: 22, frame: "VLAN tag 10, ", check: "vlan", ordinary: true},
	} {
		r := newTransparent(t)
		if c.ordinary {
			r = newRecorded(t)
		}
		e, err := r.d.Explain(ExplainRequest{To: "b", Kind: "tcp", Port: c.port, VLAN: c.vlan})
		if err != nil || e.Check != c.check || !strings.Contains(e.Frame, c.frame) || c.check == "pass" && len(e.Steps) != 2 {
			t.Errorf("to port %d on %q: %v, %+v", c.port, c.vlan, err, e)
		}
	}
	r := newTransparent(t)
	tagged, _ := ether.ParseVLANs("10")
	e, err := r.d.Explain(ExplainRequest{From: "b", Frame: tagged.Tag(rawFrame(7, 8, other, "x"))})
	if err != nil || e.Check == "vlan" {
		t.Errorf("from a peer: %v, %+v", err, e)
	}
	// A tag that no segment carries is said to be one.
	for text, want := range map[string]string{"\x81\x00\x0f\xff\x88\xb5": "VLAN tags that no segment carries", "\x88\xa8\x00": "no whole Ethernet header"} {
		if got := words(append(rawFrame(2, 1, 0, "")[:12], text...)); !strings.Contains(got, want) {
			t.Errorf("%x is %q", text, got)
		}
	}
	_, err = r.d.Explain(ExplainRequest{To: "b", Kind: "icmp", VLAN: "4095"})
	wantError(t, err, "expected a VLAN from 1 to 4094")
	_, err = r.d.Explain(ExplainRequest{Frame: rawFrame(8, 7, other, "x"), VLAN: "10"})
	wantError(t, err, "leave --to, --vlan and the kind out")
}

// A flow, its records and what was refused name the VLAN, and so must who asks about the flow.
func TestRecordsNameTheVLAN(t *testing.T) {
	r := newTransparent(t)
	if d := r.sendOn(t, "20.10", 22); d != vswitch.Forwarded {
		t.Fatalf("port 22: %q", d)
	}
	if d := r.sendOn(t, "10", 80); d != vswitch.Drop(policy.NotAllowed) {
		t.Fatalf("port 80: %q", d)
	}
	if flows := r.d.Flows(); len(flows) != 1 || flows[0].VLAN != "20.10" {
		t.Errorf("flows %+v", flows)
	}
	for vlan, note := range map[string]string{"20.10": "stands by grant 3", "": "remembers no such flow", "10": "remembers no such flow"} {
		e, err := r.d.Explain(ExplainRequest{Flow: "tcp 192.0.2.7:4242 192.0.2.8:22", VLAN: vlan})
		if err != nil || !strings.Contains(strings.Join(e.Notes, "\n"), note) {
			t.Errorf("on %q: %v, %+v", vlan, err, e)
		}
	}
	r.d.collect(r.now)
	list := r.lines(t)
	if len(list) != 2 || list[0].Type != records.Flow || list[0].VLAN != "20.10" || list[1].Type != records.Denied || list[1].VLAN != "10" || list[1].EtherType != "0x0800" {
		t.Errorf("written %+v", list)
	}
	if text := r.log.String(); !strings.Contains(text, `what="192.0.2.7 > 192.0.2.8 tcp 80 vlan 10"`) {
		t.Errorf("logged %s", text)
	}
}

// A NIC without room for tags is told of.
func TestNarrowNIC(t *testing.T) {
	for _, c := range []struct {
		transparent bool
		to          device
		mtu         int
		want        string
	}{
		{true, device{nic: "lan"}, 1500, "`ip link set lan mtu 1508`"},
		{true, device{nic: "lan"}, 1503, "its MTU is 1503"},
		{true, device{nic: "lan"}, 1504, ""},
		{true, device{bridge: "br0"}, 1500, ""},
		{false, device{nic: "lan"}, 1500, ""},
	} {
		a := &attachment{seg: &segment{name: "a", mtu: 1500, transparent: c.transparent}, trunk: &trunk{to: c.to}}
		if got := a.narrow(c.mtu); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// A segment that becomes transparent, or is no longer, is another.
func TestTransparencyIsApplied(t *testing.T) {
	for _, is := range []bool{false, true} {
		for _, becomes := range []bool{false, true} {
			s := &segment{mtu: 1500, transparent: is}
			if fits := s.fits(nil, &controlv1.Segment{Mtu: 1500, Transparent: becomes}); fits != (is == becomes) {
				t.Errorf("transparent %v, and %v is wanted: fits %v", is, becomes, fits)
			}
		}
	}
}
