package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/internal/sample"
	"github.com/etherloom/etherloom/node/statedir"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

func aMachine(m *controlv1.Machine) *controlv1.Resource {
	m.Vni = 2
	return &controlv1.Resource{Kind: &controlv1.Resource_Machine{Machine: m}}
}

func onOffice(id, source, target uint32, allow ...string) *controlv1.Resource {
	return &controlv1.Resource{Kind: &controlv1.Resource_Reach{Reach: &controlv1.Reach{
		Id: id, Vni: 2, Sources: []uint32{source}, Targets: []uint32{target}, Allow: allow,
	}}}
}

func anAttachment(id uint32, port string) *controlv1.Resource {
	return &controlv1.Resource{Kind: &controlv1.Resource_Attachment{Attachment: &controlv1.Attachment{
		Id: id, Vni: 2, Port: port, Nic: "no-such-nic", ProbeKey: make([]byte, 32),
	}}}
}

// farSite is a state in which this node and b are on lan and office, and mb, a host, is on office behind gateway 9, as are others
// whom nobody named. This node may ping mb.
func farSite(s *site) []*controlv1.Resource {
	mac := func(last byte) []byte { return []byte{2, 0, 0, 0, 0, last} }
	return []*controlv1.Resource{
		netSettings(), aSegment(1, "lan", "10.64.0.0/24", ""), aSegment(2, "office", "10.65.0.0/24", ""),
		self(station(1, selfID, auto, "10.64.0.7/24"), station(2, selfID, auto, "10.65.0.7/24")),
		s.peer(8, "b", station(1, 8, auto, "10.64.0.8/24"), station(2, 8, auto, "10.65.0.8/24")), s.peer(9, "gw-b"),
		aMachine(&controlv1.Machine{Id: 20, Name: "gw-b/site", Gateways: []uint32{9}, Attachments: []uint32{20}}),
		aMachine(&controlv1.Machine{Id: 21, Name: "mb", Mac: mac(21), Addresses: []string{"10.65.0.21/24"}, Gateways: []uint32{9}, Attachments: []uint32{20}}),
		aMachine(&controlv1.Machine{Id: 22, Name: "free", Mac: mac(22), Gateways: []uint32{9}, Attachments: []uint32{20}}),
		aGrant(3, 1, time.Time{}, selfID, 8), onOffice(7, selfID, 21, "icmp"), onOffice(8, selfID, 8, "icmp"),
	}
}

// nearSite is a state in which this node is gateway of office and has no TAP there. ma is behind port site, others are behind that and
// behind port more, which is isolated, and so is mi behind port yard. b is on office, too, and may ping ma, as ma may ping b.
func nearSite(s *site) []*controlv1.Resource {
	isolated := &controlv1.SecondaryVLAN{Isolated: true}
	mac := func(last byte) []byte { return []byte{2, 0, 0, 0, 0, last} }
	here := []uint32{selfID}
	return []*controlv1.Resource{
		netSettings(), aSegment(2, "office", "10.65.0.0/24", ""), self(), s.peer(8, "b", station(2, 8, auto, "10.65.0.8/24")), s.peer(9, "gw-b"),
		anAttachment(20, "site"), anAttachment(30, "more"), anAttachment(40, "yard"),
		aMachine(&controlv1.Machine{Id: 20, Name: "self/site", Gateways: here, Attachments: []uint32{20}}),
		aMachine(&controlv1.Machine{Id: 21, Name: "ma", Mac: mac(21), Addresses: []string{"10.65.0.21/24"}, Gateways: here, Attachments: []uint32{20}}),
		aMachine(&controlv1.Machine{Id: 30, Name: "self/more", Gateways: here, Attachments: []uint32{30}, Secondary: isolated}),
		aMachine(&controlv1.Machine{Id: 40, Name: "self/yard", Gateways: here, Attachments: []uint32{40}, Secondary: isolated}),
		aMachine(&controlv1.Machine{
			Id: 41, Name: "mi", Mac: mac(41), Addresses: []string{"10.65.0.41/24"}, Gateways: here, Attachments: []uint32{40}, Secondary: isolated,
		}),
		aMachine(&controlv1.Machine{Id: 50, Name: "gw-b/site", Gateways: []uint32{9}, Attachments: []uint32{50}}),
		aMachine(&controlv1.Machine{Id: 51, Name: "mb", Mac: mac(51), Addresses: []string{"10.65.0.51/24"}, Gateways: []uint32{9}, Attachments: []uint32{50}}),
		onOffice(7, 8, 21, "icmp"), onOffice(8, 21, 8, "icmp"), onOffice(9, 51, 21, "icmp"), onOffice(10, 30, 41, "icmp"), onOffice(11, 20, 8, "icmp"), onOffice(12, 21, 51, "tcp:22"),
	}
}

// ping is an echo request between stations as station() numbers them, on office.
func ping(t testing.TB, from, to byte) []byte {
	t.Helper()
	p := sample.Packet{
		From: ether.MAC{2, 0, 0, 0, 0, from}, To: ether.MAC{2, 0, 0, 0, 0, to}, Src: addr4(fmt.Sprint("10.65.0.", from)), Dst: addr4(fmt.Sprint("10.65.0.", to)),
		Protocol: ether.ProtoICMP, SrcPort: 1,
	}
	b, err := p.Frame()
	must(t, err)
	return b
}

// behind is a question about machines, and what must be answered.
type behindCase struct {
	ask   ExplainRequest
	check string
	on    string
	grant uint32
	steps string
	text  string // in the whole answer
	not   string // in no fix
}

func explainAll(t *testing.T, d *Daemon, cases []behindCase) {
	t.Helper()
	for _, c := range cases {
		e, err := d.Explain(c.ask)
		if err != nil {
			t.Errorf("%+v: %v", c.ask, err)
			continue
		}
		var steps []string
		for _, j := range e.Steps {
			step := j.Node + map[bool]string{true: "!", false: "?"}[j.Here]
			if j.In != "" {
				step += j.In
			}
			steps = append(steps, step)
		}
		if e.Check != c.check || e.Passes != (c.check == "pass" || c.check == "answered") || e.On != c.on || e.Grant != c.grant || strings.Join(steps, " ") != c.steps {
			t.Errorf("%+v: %s on %s by grant %d, steps %v; want %s on %s by grant %d, steps %s", c.ask, e.Check, e.On, e.Grant, steps, c.check, c.on, c.grant, c.steps)
		}
		if all := fmt.Sprintf("%+v", e); !strings.Contains(all, c.text) {
			t.Errorf("%+v: %s, want ...%s...", c.ask, all, c.text)
		}
		if fixes := fmt.Sprint(e.Fixes); c.not != "" && strings.Contains(fixes, c.not) {
			t.Errorf("%+v: fixes are %s, want none with %s", c.ask, fixes, c.not)
		}
	}
}

// A machine behind another gateway is found by everything by which it is known, on the segment on which it is, and what lets it be reached is the
// narrow grant.
func TestExplainFarMachines(t *testing.T) {
	s := newSite(t)
	d := explainer(t, s, time.Time{}, append(farSite(s), onOffice(13, selfID, 22, "udp:53"))...)
	var cases []behindCase
	for _, to := range []string{"mb", "host:mb", "mb.etherloom.internal", "10.65.0.21", "02:00:00:00:00:15"} {
		cases = append(cases, behindCase{ask: ExplainRequest{To: to, Kind: "icmp"}, check: "pass", on: "gw-b", grant: 7, steps: "self! gw-b?", text: "Node:mb"})
	}
	cases = append(cases, []behindCase{
		{ask: ExplainRequest{To: "mb", Kind: "arp"}, check: "answered", on: "self", steps: "self!"},
		{
			ask: ExplainRequest{To: "mb", Kind: "tcp", Port: 22}, check: "not-allowed", on: "self", steps: "self!",
			text: "etherloom grant add --from node:self --to host:mb --allow tcp:22", not: "segment:",
		},
		{
			ask: ExplainRequest{To: "10.65.0.99", Kind: "udp", Port: 53}, check: "pass", on: "gw-b", grant: 13, steps: "self! gw-b?",
			text: "so it is taken to be of free",
		},
		{
			ask: ExplainRequest{To: "host:free", Kind: "icmp"}, check: "not-allowed", on: "self", steps: "self!",
			text: "etherloom grant add --from node:self --to host:free --allow icmp", not: "segment:",
		},
		{
			ask: ExplainRequest{From: "mb", To: "self", Kind: "icmp"}, check: "not-allowed", on: "gw-b", steps: "gw-b?gw-b/site",
			text: "etherloom grant add --from host:mb --to node:self --allow icmp",
		},
		{
			ask: ExplainRequest{To: "gw-b/site", Kind: "icmp"}, check: "no-grant", on: "self", steps: "self!",
			text: "etherloom grant add --from node:self --to attachment:gw-b/site --allow icmp", not: "segment:",
		},
		{
			ask: ExplainRequest{To: "attachment:gw-b/site", Kind: "icmp"}, check: "no-grant", on: "self", steps: "self!",
			text: "--to attachment:gw-b/site",
		},
		{ask: ExplainRequest{Frame: ping(t, selfID, 21)}, check: "pass", on: "gw-b", grant: 7, steps: "self! gw-b?"},
		{
			ask: ExplainRequest{Frame: ping(t, 21, selfID), From: "gw-b"}, check: "not-allowed", on: "gw-b", steps: "gw-b?",
			text: "etherloom grant add --from host:mb --to node:self --allow icmp",
		},
		{
			ask: ExplainRequest{To: "c", Kind: "icmp", Segment: "office"}, check: "no-grant", on: "self", steps: "self!",
			text: "Text:this node is told of nobody called c", not: "segment:",
		},
		{
			ask: ExplainRequest{To: "x/y", Kind: "icmp", Segment: "office"}, check: "no-grant", on: "self", steps: "self!",
			text: "Text:this node is told of no attachment x/y", not: "host:",
		},
	}...)
	explainAll(t, d, cases)
	_, err := d.Explain(ExplainRequest{To: "c", Kind: "icmp"})
	wantError(t, err, "this node is told of nobody called c", "--segment")
}

// What a machine behind this gateway sends comes in by the port behind which it is; where that cannot be told, the port must be named.
func TestExplainNearMachines(t *testing.T) {
	s := newSite(t)
	d := explainer(t, s, time.Time{}, nearSite(s)...)
	seg := d.segments[2]
	ports := map[string]*vswitch.Port{}
	for _, p := range seg.sw.Ports() {
		ports[p.Name] = p
	}
	seg.sw.FDB().Learn(ether.MAC{2, 0, 0, 0, 0, 77}, vswitch.Place{Port: ports["site"], Who: 20}, time.Now())
	explainAll(t, d, []behindCase{
		{ask: ExplainRequest{Frame: ping(t, 21, 8)}, check: "pass", on: "b", grant: 8, steps: "self!site b?"},
		{ask: ExplainRequest{Frame: ping(t, 21, 8), From: "self/site"}, check: "pass", on: "b", grant: 8, steps: "self!site b?"},
		{ask: ExplainRequest{Frame: ping(t, 77, 8)}, check: "pass", on: "b", grant: 11, steps: "self!site b?"},
		{
			ask: ExplainRequest{Frame: ping(t, 88, 8), From: "self/more"}, check: "no-grant", on: "self", steps: "self!more",
			text: "etherloom grant add --from attachment:self/more --to node:b --allow icmp",
		},
		{ask: ExplainRequest{Frame: ping(t, 21, 8), From: "self/more"}, check: "pinned-mac", on: "self", steps: "self!more"},
		{ask: ExplainRequest{Frame: ping(t, 8, 21), From: "b"}, check: "pass", on: "self", grant: 7, steps: "self!"},
		{ask: ExplainRequest{Frame: ping(t, 51, 21), From: "gw-b"}, check: "pass", on: "self", grant: 9, steps: "self!"},
		{ask: ExplainRequest{From: "ma", To: "b", Kind: "icmp"}, check: "pass", on: "b", grant: 8, steps: "self!site b?"},
		{ask: ExplainRequest{From: "10.65.0.21", To: "b", Kind: "icmp"}, check: "pass", on: "b", grant: 8, steps: "self!site b?"},
		{ask: ExplainRequest{From: "b", To: "host:ma", Kind: "icmp"}, check: "pass", on: "self", grant: 7, steps: "b? self!"},
		{ask: ExplainRequest{From: "mb", To: "ma", Kind: "icmp"}, check: "pass", on: "self", grant: 9, steps: "gw-b?gw-b/site self!"},
		{ask: ExplainRequest{From: "ma", To: "mb", Kind: "tcp", Port: 22}, check: "pass", on: "gw-b", grant: 12, steps: "self!site gw-b?"},
		{ask: ExplainRequest{From: "02:00:00:00:00:4d", To: "b", Kind: "icmp"}, check: "pass", on: "b", grant: 11, steps: "self!site b?"},
		{ask: ExplainRequest{From: "self/site", To: "b", Kind: "icmp"}, check: "pass", on: "b", grant: 11, steps: "self!site b?", text: "MAC 02:00:00:00:00:4d is meant"},
		{ask: ExplainRequest{From: "self/more", To: "mi", Kind: "icmp"}, check: "private-vlan", on: "self", steps: "self!more", text: "--promiscuous"},
		{ask: ExplainRequest{Frame: ping(t, 88, 41), From: "self/more"}, check: "private-vlan", on: "self", steps: "self!more", text: "--promiscuous"},
		{
			ask: ExplainRequest{From: "ma", To: "mi", Kind: "tcp", Port: 80}, check: "no-grant", on: "self", steps: "self!site",
			text: "etherloom grant add --from host:ma --to host:mi --allow tcp:80",
		},
	})
	for _, c := range []struct {
		ask  ExplainRequest
		want []string
	}{
		{ExplainRequest{Frame: ping(t, 88, 8)}, []string{"no TAP here", "02:00:00:00:00:58", "--from", "self/more, self/site, self/yard"}},
		{ExplainRequest{To: "b", Kind: "icmp"}, []string{"no TAP here", "--from"}},
		{ExplainRequest{From: "self", Frame: ping(t, 88, 8)}, []string{"no TAP here"}},
	} {
		_, err := d.Explain(c.ask)
		wantError(t, err, c.want...)
	}
	seg.sw.RemovePort(ports["more"], ports["yard"])
	explainAll(t, d, []behindCase{{ask: ExplainRequest{Frame: ping(t, 88, 8)}, check: "pass", on: "b", grant: 11, steps: "self!site b?"}})
}

// Who has an address is known by its lease, by what was heard, or because only those may have it whom nobody named.
func TestExplainByAddress(t *testing.T) {
	s := newSite(t)
	lease := leaseTold(2, "10.65.0.101", 20, 99, boundLease)
	service := &controlv1.Resource{Kind: &controlv1.Resource_Dhcp{Dhcp: &controlv1.DhcpService{
		Vni: 2, Server: "10.65.0.254", Mac: []byte{2, 0, 0, 0, 0, 0xd}, PoolFrom: "10.65.0.100", PoolTo: "10.65.0.109", LeaseSeconds: 3600,
	}}}
	d := explainer(t, s, time.Time{}, append(nearSite(s), service, &controlv1.Resource{Kind: &controlv1.Resource_Lease{Lease: lease}})...)
	seg := d.segments[2]
	for _, p := range seg.sw.Ports() {
		if p.Name == "site" {
			arp := "\x00\x01\x08\x00\x06\x04\x00\x01" + "\x02\x00\x00\x00\x00\x4d" + "\x0a\x41\x00\x4d" + "\x00\x00\x00\x00\x00\x00\x0a\x41\x00\xc8"
			seg.sw.Forward(p, rawFrame(88, 0x4d, ether.TypeARP, arp), ether.Offload{}, vswitch.Tag{}, 0, time.Now())
		}
	}
	explainAll(t, d, []behindCase{
		{ask: ExplainRequest{From: "10.65.0.101", To: "b", Kind: "icmp"}, check: "pass", on: "b", grant: 11, steps: "self!site b?", text: "02:00:00:00:00:63 > "},
		{ask: ExplainRequest{From: "02:00:00:00:00:63", To: "b", Kind: "icmp"}, check: "pass", on: "b", grant: 11, steps: "self!site b?", text: "10.65.0.101 > "},
		{ask: ExplainRequest{From: "10.65.0.77", To: "b", Kind: "icmp"}, check: "pass", on: "b", grant: 11, steps: "self!site b?", text: "02:00:00:00:00:4d > "},
		{ask: ExplainRequest{From: "02:00:00:00:00:4d", To: "b", Kind: "icmp"}, check: "pass", on: "b", grant: 11, steps: "self!site b?", text: "10.65.0.77 > "},
		{ask: ExplainRequest{From: "10.65.0.66", To: "b", Kind: "icmp"}, check: "pass", on: "b", grant: 11, steps: "self!site b?", text: "so it is taken to be of self/site"},
	})
}

// A flow of machines behind this gateway is one of its own.
func TestExplainFlowOfMachines(t *testing.T) {
	s := newSite(t)
	d := explainer(t, s, time.Time{}, nearSite(s)...)
	seg := d.segments[2]
	open, back := "tcp 10.65.0.21:4242 10.65.0.51:22", "tcp 10.65.0.51:22 10.65.0.21:4242"
	flow := func(flow, check, on string, grant uint32, steps, note string) {
		t.Helper()
		explainAll(t, d, []behindCase{{ask: ExplainRequest{Flow: flow}, check: check, on: on, grant: grant, steps: steps, text: note}})
	}
	flow(open, "pass", "self", 12, "self!site", "remembers no such flow")
	flow(back, "unknown-grant", "self", 0, "self!", "remembers no such flow")
	p := sample.Packet{
		From: ether.MAC{2, 0, 0, 0, 0, 21}, To: ether.MAC{2, 0, 0, 0, 0, 51}, Src: addr4("10.65.0.21"), Dst: addr4("10.65.0.51"),
		Protocol: ether.ProtoTCP, SrcPort: 4242, DstPort: 22,
	}
	frame, err := p.Frame()
	must(t, err)
	f, err := ether.Parse(frame)
	must(t, err)
	_, v := seg.sw.Policy().Egress(&policy.Passage{Frame: f, Source: 21, Flows: seg.sw.Flows(), Now: time.Now()}, 51)
	if v != policy.Pass {
		t.Fatal(v)
	}
	flow(open, "pass", "self", 12, "self!site", "stands by grant 12")
	flow(back, "pass", "self", 12, "self!", "stands by grant 12")
	_, err = d.Explain(ExplainRequest{Flow: "icmp 10.65.0.51:1 10.65.0.8:1"})
	wantError(t, err, "at neither end", "ask on gw-b or on b")
}

// What a machine may not send is answered with what its own record says, and with no command that is about nodes.
func TestMachineFixes(t *testing.T) {
	q := &question{d: &Daemon{member: statedir.Membership{ID: selfID}}, on: place{name: "office"}}
	record := func(mac byte, addresses ...string) party {
		m := machineRecord(&controlv1.Machine{Id: 21, Name: "ma", Vni: 2, Mac: []byte{2, 0, 0, 0, 0, mac}, Addresses: addresses})
		return party{name: "ma", id: 21, machine: true, station: m.GetStations()[0], mac: ether.MAC{2, 0, 0, 0, 0, mac}}
	}
	unnamed := party{name: "gw/site", id: 20, machine: true, station: machineRecord(&controlv1.Machine{Id: 20, Vni: 2}).GetStations()[0]}
	for _, c := range []struct {
		from party
		drop policy.Verdict
		want string
	}{
		{record(21, "10.65.0.21/24"), policy.IPSource, "ma may use 10.65.0.21/24 alone"},
		{record(21), policy.ARPSender, "nobody's"},
		{unnamed, policy.IPSource, "nobody's"},
		{record(21), policy.NotRouter, "etherloom host set ma ... --role router"},
		{unnamed, policy.NotRouter, "etherloom host add NAME --mac MAC --attachment gw/site --role router"},
		{unnamed, policy.SourceMAC, "this MAC is somebody else's"},
		{record(21), policy.NoStation, "have not signed yet"},
	} {
		q.from = c.from
		if text := fmt.Sprint(q.fixes(vswitch.Drop(c.drop), party{})); !strings.Contains(text, c.want) || strings.Contains(text, "etherloom node") {
			t.Errorf("%s of %s: %s, want ...%s...", c.drop.Code(), c.from.name, text, c.want)
		}
	}
}
