package node

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/bridge/probe"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// What shows a VLAN's switches where somebody is reached is a whole frame from that MAC, to everybody, which gives nobody an address.
func TestRARP(t *testing.T) {
	mac := ether.MAC{2, 0, 0, 0, 0, 7}
	frame := rarpOf(mac)
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	eth, ok := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	if !ok || !bytes.Equal(eth.SrcMAC, mac[:]) || eth.DstMAC.String() != "ff:ff:ff:ff:ff:ff" || uint16(eth.EthernetType) != uint16(ether.TypeRARP) || len(frame) != 60 {
		t.Fatalf("frame is %x", frame)
	}
	arp, ok := ether.ParseARP(frame[ether.HeaderLen:])
	if !ok || arp.Op != ether.RARPRequest || arp.SenderMAC != mac || arp.TargetMAC != mac || arp.SenderIP != [4]byte{} || arp.TargetIP != [4]byte{} {
		t.Errorf("it asks %+v", arp)
	}
}

// Probes of each port have a MAC of their own, which no card has.
func TestProbeMACs(t *testing.T) {
	seen := map[ether.MAC]bool{}
	for node := range policy.Identity(40) {
		for attachment := range policy.Identity(40) {
			mac := probeMAC(node, attachment)
			if seen[mac] || mac[0]&3 != 2 || mac != probeMAC(node, attachment) {
				t.Fatalf("node %d, attachment %d: %v", node, attachment, net.HardwareAddr(mac[:]))
			}
			seen[mac] = true
		}
	}
}

// A frame of the switch's that is for the sentinels goes onto no VLAN, and one from a VLAN goes no further.
func TestProbesStayOutside(t *testing.T) {
	group := probe.Group()
	for name, c := range map[string]struct {
		frame []byte
		is    bool
	}{
		"probe":            {append(append(append([]byte{}, group[:]...), 2, 0, 0, 0, 0, 1), 0x88, 0xb5), true},
		"other type":       {append(append(append([]byte{}, group[:]...), 2, 0, 0, 0, 0, 1), 0x08, 0x00), true},
		"other group":      {[]byte{1, 0, 0x5e, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x88, 0xb5}, false},
		"too short":        {group[:], false},
		"nothing whatever": {nil, false},
	} {
		if isProbe(c.frame) != c.is {
			t.Errorf("%s: %v", name, !c.is)
		}
	}
	a := &attachment{}
	a.Send(append(append(append([]byte{}, group[:]...), 2, 0, 0, 0, 0, 1), 0x88, 0xb5), ether.Offload{}, vswitch.Tag{}, 0) // would need a wire
	if a.refused.Load() != 1 {
		t.Error("a probe of the switch's is sent to the VLAN")
	}
	(&sentinel{}).hear(a, []byte{1, 2, 3}, time.Now()) // no frame: nothing happens
}

// What went nowhere between a NIC and the segments is told.
func TestTrunkDrops(t *testing.T) {
	tr := &trunk{to: device{nic: "eth1"}, list: []*attachment{{}, {}}}
	if d := tr.drops(); d != nil {
		t.Errorf("nothing was dropped, and it tells %+v", d)
	}
	tr.foreign.Store(3)
	for _, a := range tr.list {
		a.refused.Store(2)
	}
	d := tr.drops()
	if len(d) != 2 || d[0].Where != "nic eth1" || d[0].Reason != "foreign-vlan" || d[0].Count != 3 || d[1].Reason != "tag-inside" || d[1].Count != 4 {
		t.Errorf("it tells %+v", d)
	}
}

// A port whose NIC or bridge carries nothing is a problem until it does again, and says where to look.
func TestDeadTrunk(t *testing.T) {
	gone := errors.New("there is no network device eth1")
	for _, c := range []struct {
		to    device
		fault error
		up    bool
		want  string
	}{
		{device{nic: "eth1"}, nil, true, ""},
		{device{nic: "eth1"}, nil, false, "NIC eth1 has no carrier: look at the cable"},
		{device{nic: "eth1"}, gone, false, gone.Error()},
		{device{bridge: "br0"}, nil, false, "bridge br0 has no carrier: look at its ports"},
	} {
		tr := &trunk{to: c.to, fault: c.fault, list: []*attachment{{port: vswitch.NewPort("site", vswitch.Attached, 20, nil)}}}
		got := tr.dead(c.up)
		if c.want == "" && got != nil || c.want != "" && (len(got) != 1 || got[0].About != "attachment site" || !strings.Contains(got[0].Text, c.want)) {
			t.Errorf("%+v: %+v", c, got)
		}
	}
}

// What is found twice is told once.
func TestProblemsAreToldOnce(t *testing.T) {
	gone, other := Problem{"nic eth1", "there is no network device eth1"}, Problem{"nic eth1", "it has an address"}
	if got := withProblem(withProblem(withProblem(nil, gone), other), gone); len(got) != 2 || got[0] != gone || got[1] != other {
		t.Errorf("told are %+v", got)
	}
}

// What hellos are sent with is let go when the ports are closed, by a daemon that goes on for a moment; and does no harm when there was none.
func TestSentinelLetsGo(t *testing.T) {
	d := newSite(t).daemon()
	s := d.sentinel
	s.close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	sending := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.sender != nil
	}
	eventually(t, "it can send", sending)
	s.close()
	s.step(time.Now())
	cancel()
	must(t, <-ended)
	if n, _ := d.lanes.take(0); n != 0 || sending() {
		t.Errorf("the next lane is %d; it can send: %t", n, sending())
	}
	for range 64 { // more than there are
		sender, err := d.endpoint.NewSender(0)
		if err != nil {
			t.Fatal("shards are used up:", err)
		}
		sender.Close()
	}
}

// What is sent on time does not wait for Daemon.mu, which is held while NICs are taken: what follows of what has happened does.
func TestSentinelGoesOnMeanwhile(t *testing.T) {
	s, _, g, _ := lagged(t)
	clear(s.posts)
	g.problem = "of before" // that there is none any more is what has happened
	news := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return g.news
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	s.d.mu.Lock()
	go func() { ended <- s.run(ctx) }()
	go func() { ended <- s.follow(ctx) }()
	for range 3 {
		s.look()
		eventually(t, "it looks for loops while somebody else holds the lock", func() bool { return !s.suspected.Load() })
	}
	if !news() {
		t.Error("nothing has happened, so that this proves nothing")
	}
	s.d.mu.Unlock()
	eventually(t, "what has happened is told in the end", func() bool { return !news() })
	cancel()
	must(t, <-ended)
	must(t, <-ended)
	s.close()
}
