package server

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

const (
	askAct, bindAct, releaseAct  = controlv1.LeaseAct_LEASE_ACT_ASK, controlv1.LeaseAct_LEASE_ACT_BIND, controlv1.LeaseAct_LEASE_ACT_RELEASE
	declineAct, letGoAct         = controlv1.LeaseAct_LEASE_ACT_DECLINE, controlv1.LeaseAct_LEASE_ACT_LET_GO
	offeredL, boundL, endedLease = controlv1.LeaseState_LEASE_STATE_OFFERED, controlv1.LeaseState_LEASE_STATE_BOUND, controlv1.LeaseState_LEASE_STATE_ENDED
)

// leaseBench is a segment with a pool, and its gateways: 1 and 2 of one attachment, 3 of another.
type leaseBench struct {
	*desk
	gw1, gw2, gw3 *machine
	site, hall    uint32
	passed        int
	base          netip.Addr // the pool is of twenty addresses from here
}

func newLeaseBench(t *testing.T) *leaseBench {
	b := &leaseBench{desk: newDesk(t)}
	b.gw1, b.gw2, b.gw3 = b.gateway("gw1"), b.gateway("gw2"), b.gateway("gw3")
	site, err := b.attach(&controlv1.AddAttachmentRequest{Name: "gw1/site", Segment: "lan", Nic: "eth1", Vlan: 10})
	must(t, err)
	_, err = b.attach(&controlv1.AddAttachmentRequest{Name: "gw2/site", With: "gw1/site", Nic: "eth1", Vlan: 10})
	must(t, err)
	hall, err := b.attach(&controlv1.AddAttachmentRequest{Name: "gw3/hall", Segment: "lan", Nic: "eth1", Vlan: 10})
	must(t, err)
	b.site, b.hall = site.GetId(), hall.GetId()
	b.base = b.ctl.store.Model().SegmentNamed("lan").IPv4.Addr()
	for range 100 {
		b.base = b.base.Next()
	}
	_, err = b.admin.SetDhcp(t.Context(), &controlv1.SetDhcpRequest{Segment: "lan", Pool: b.base.String() + "-" + b.at(19)})
	must(t, err)
	b.gw1.sync()
	b.gw2.sync()
	b.gw3.sync()
	return b
}

// at is an address of the pool.
func (b *leaseBench) at(n int) string {
	a := b.base
	for range n {
		a = a.Next()
	}
	return a.String()
}

func mac6(n byte) []byte { return []byte{2, 0xc, 0, 0, 0, n} }

func (b *leaseBench) tell(m *machine, list ...*controlv1.LeaseReport) []*controlv1.LeaseRefusal {
	b.t.Helper()
	r, err := m.api.ReportLeases(b.t.Context(), &controlv1.ReportLeasesRequest{Reports: list})
	must(b.t, err)
	return r.GetRefused()
}

func (b *leaseBench) report(act controlv1.LeaseAct, mac byte, address string) *controlv1.LeaseReport {
	return &controlv1.LeaseReport{Vni: 1, Attachment: b.site, Mac: mac6(mac), Act: act, Address: address, Name: "host"}
}

// leases is what a gateway is told: state and machine by address.
func (m *machine) leases() string {
	var out []string
	for id, list := range m.contents().Leases {
		for _, l := range list {
			out = append(out, fmt.Sprintf("%s %v %d %d", l.GetAddress(), l.GetState(), id, l.GetMac()[5]))
		}
	}
	return strings.Join(out, ", ")
}

// pass lets time pass, and has something change, so that the steward looks at the clock.
func (b *leaseBench) pass(d time.Duration) {
	b.t.Helper()
	b.clock.advance(d)
	b.passed++
	_, err := b.admin.AddSegment(b.t.Context(), &controlv1.AddSegmentRequest{Name: fmt.Sprint("later", b.passed)})
	must(b.t, err)
}

func (b *leaseBench) state(address string) string {
	b.t.Helper()
	r, err := b.admin.GetDhcp(b.t.Context(), &controlv1.GetDhcpRequest{Segment: "lan"})
	must(b.t, err)
	for _, l := range r.GetLeases() {
		if l.GetAddress() == address {
			return l.GetState() + " " + l.GetMachine() + " " + l.GetName()
		}
	}
	return ""
}

// TestLeases: the life of a lease, and who is told.
func TestLeases(t *testing.T) {
	b := newLeaseBench(t)
	told := func(what, want string) {
		t.Helper()
		eventually(t, what, func() bool { return b.gw1.leases() == want && b.gw2.leases() == want })
	}
	if r := b.tell(b.gw1, b.report(askAct, 1, "")); len(r) > 0 {
		t.Fatal(r)
	}
	told("both gateways know what is offered", fmt.Sprintf("%s %v %d 1", b.at(0), offeredL, b.site))
	b.tell(b.gw2, b.report(bindAct, 1, b.at(0)))
	bound := fmt.Sprintf("%s %v %d 1", b.at(0), boundL, b.site)
	told("bound by the other", bound)
	if b.gw3.leases() != "" {
		t.Errorf("a gateway that shares no grant is told %s", b.gw3.leases())
	}
	b.clock.advance(50 * time.Minute)
	b.tell(b.gw1, b.report(bindAct, 1, b.at(0)), b.report(bindAct, 1, b.at(1)))
	b.clock.advance(50 * time.Minute)
	b.tell(b.gw1, b.report(askAct, 2, b.at(5))) // and time passes for all
	if got := b.state(b.at(0)); got != "bound gw1/site host" {
		t.Errorf("confirmed twice, it is %q", got)
	}
	b.pass(20 * time.Minute)
	eventually(t, "what nobody confirms ends, and an offer that nobody took is gone", func() bool {
		return strings.HasPrefix(b.state(b.at(0)), "ended") && b.state(b.at(5)) == ""
	})
	told("the end is told", fmt.Sprintf("%s %v %d 1", b.at(0), endedLease, b.site))
	b.tell(b.gw1, b.report(letGoAct, 1, b.at(0)))
	b.pass(2 * time.Hour)
	if got := b.state(b.at(0)); !strings.HasPrefix(got, "ended") {
		t.Errorf("one gateway may still confirm it, and it is %q", got)
	}
	b.tell(b.gw2, b.report(letGoAct, 1, b.at(0)))
	eventually(t, "no gateway confirms it any more", func() bool { return b.state(b.at(0)) == "" })

	b.tell(b.gw1, b.report(askAct, 1, b.at(3)), b.report(bindAct, 1, b.at(3)), b.report(releaseAct, 1, b.at(3)))
	if got := b.state(b.at(3)); !strings.HasPrefix(got, "ended") {
		t.Errorf("given back it is %q", got)
	}
	b.tell(b.gw1, b.report(askAct, 1, b.at(3)), b.report(bindAct, 1, b.at(3)))
	if got := b.state(b.at(3)); got != "bound gw1/site host" {
		t.Errorf("taken again it is %q", got)
	}
	b.tell(b.gw1, b.report(declineAct, 1, b.at(3)), b.report(askAct, 1, b.at(3)))
	if got, other := b.state(b.at(3)), b.state(b.at(0)); got != "declined  host" || !strings.HasPrefix(other, "offered") {
		t.Errorf("declined it is %q, and the next one %q", got, other)
	}
	_, err := b.admin.SetDhcp(t.Context(), &controlv1.SetDhcpRequest{Segment: "lan", Disable: true})
	must(t, err)
	eventually(t, "without a service there are no leases", func() bool {
		return len(b.ctl.store.Model().Leases) == 0 && b.gw1.leases() == "" && len(b.gw1.contents().DHCP) == 0
	})
	entries, _ := auditEntries(t, b.desk)
	var actions []string
	for _, e := range entries {
		if strings.HasPrefix(e.GetAction(), "lease.") && e.GetAction() != "lease.tell" && e.GetAction() != "lease.expire" {
			actions = append(actions, e.GetAction())
		}
	}
	if got := strings.Join(actions, " "); got != "lease.bind lease.end lease.bind lease.release lease.bind lease.decline" {
		t.Errorf("the audit log has %s", got)
	}
}

// TestDeclinesLeaveSome: a gateway that has every address declined which its machines are offered leaves some to another's.
func TestDeclinesLeaveSome(t *testing.T) {
	b := newLeaseBench(t)
	for part := range 2 {
		var list []*controlv1.LeaseReport
		for n := 10 * part; n < 10*(part+1); n++ {
			list = append(list, b.report(askAct, byte(n+1), b.at(n)), b.report(declineAct, byte(n+1), b.at(n)))
		}
		b.tell(b.gw1, list...)
	}
	declined := 0
	for n := range 20 {
		if strings.HasPrefix(b.state(b.at(n)), "declined") {
			declined++
		}
	}
	if declined != 15 {
		t.Errorf("of 20 addresses %d are declined, want three quarters", declined)
	}
	if got := b.tell(b.gw1, b.report(askAct, 99, "")); len(got) != 1 || !got[0].GetFull() || !strings.Contains(got[0].GetReason(), "declined") {
		t.Errorf("asking for one more: %v", got)
	}
	if got := b.tell(b.gw3, &controlv1.LeaseReport{Vni: 1, Attachment: b.hall, Mac: mac6(50), Act: askAct}); len(got) > 0 {
		t.Errorf("another attachment's machine: %v", got)
	}
}

// TestLeaseRefusals: what a node cannot say of leases.
func TestLeaseRefusals(t *testing.T) {
	b := newLeaseBench(t)
	member := b.join("member", b.token())
	b.grant("node:member", "segment:lan")
	eventually(t, "member has a station", func() bool { return b.ctl.store.Model().Station(member.id, 1) != nil })
	_, err := b.host(&controlv1.AddHostRequest{Name: "listed", Mac: "02:0c:00:00:00:63", Attachments: []string{"gw1/site"}, Addresses: []string{b.at(9) + "/20"}})
	must(t, err)
	camera, err := b.host(&controlv1.AddHostRequest{Name: "camera", Mac: "02:0c:00:00:00:15", Attachments: []string{"gw3/hall"}})
	must(t, err)
	nodeMAC := b.ctl.store.Model().Station(member.id, 1).MAC
	for _, c := range []struct {
		name string
		from *machine
		edit func(*controlv1.LeaseReport)
		want string
	}{
		{"as it is", b.gw1, func(*controlv1.LeaseReport) {}, ""},
		{"no gateway", member, func(*controlv1.LeaseReport) {}, "no gateway of such"},
		{"another's attachment", b.gw1, func(r *controlv1.LeaseReport) { r.Attachment = b.hall }, "no gateway of such"},
		{"no attachment", b.gw1, func(r *controlv1.LeaseReport) { r.Attachment = 0 }, "no gateway of such"},
		{"another segment", b.gw1, func(r *controlv1.LeaseReport) { r.Vni = 2 }, "no gateway of such"},
		{"a short MAC", b.gw1, func(r *controlv1.LeaseReport) { r.Mac = r.Mac[:5] }, "six bytes"},
		{"a node's MAC", b.gw1, func(r *controlv1.LeaseReport) { r.Mac = nodeMAC[:] }, "member"},
		{"a host's elsewhere", b.gw1, func(r *controlv1.LeaseReport) { r.Mac = mac6(0x15) }, "not behind"},
		{"a host's that lists its address", b.gw1, func(r *controlv1.LeaseReport) { r.Mac = mac6(0x63) }, "lists its addresses"},
		{"IPv6", b.gw1, func(r *controlv1.LeaseReport) { r.Address = "2001:db8::1" }, "none of IPv4"},
		{"no act", b.gw1, func(r *controlv1.LeaseReport) { r.Act = 0 }, "act is not known"},
		{"nothing to bind", b.gw1, func(r *controlv1.LeaseReport) { r.Act, r.Address = bindAct, b.at(7) }, "not leased to this machine"},
		{"nothing to give back", b.gw1, func(r *controlv1.LeaseReport) { r.Act, r.Address = releaseAct, b.at(0); r.Mac = mac6(8) }, "not leased to this machine"},
	} {
		r := b.report(askAct, 1, "")
		c.edit(r)
		got := b.tell(c.from, r)
		if (len(got) == 0) != (c.want == "") || len(got) == 1 && !strings.Contains(got[0].GetReason(), c.want) {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	r := &controlv1.LeaseReport{Vni: 1, Attachment: b.hall, Mac: mac6(0x15), Act: askAct}
	if got := b.tell(b.gw3, r); len(got) > 0 || b.ctl.store.Model().LeaseOf(identity.ID(camera.GetId()), [6]byte(mac6(0x15))) == nil {
		t.Errorf("a host that lists no address: %v", got)
	}
	_, err = b.gw1.api.ReportLeases(t.Context(), &controlv1.ReportLeasesRequest{Reports: make([]*controlv1.LeaseReport, maxReports+1)})
	wantError(t, err, connect.CodeInvalidArgument, "at most")

	// What is a host's now is not a stranger's any more.
	b.tell(b.gw1, b.report(askAct, 1, ""), b.report(bindAct, 1, b.at(0)))
	_, err = b.host(&controlv1.AddHostRequest{Name: "known", Mac: "02:0c:00:00:00:01", Attachments: []string{"gw1/site"}})
	must(t, err)
	if got := b.state(b.at(0)); !strings.HasPrefix(got, "ended") {
		t.Errorf("what it had before it was named is %q", got)
	}
	_, err = b.admin.AddSegment(t.Context(), &controlv1.AddSegmentRequest{Name: "tunnel", Ipv4Prefix: "198.51.100.0/24", Transparent: true})
	must(t, err)
	for _, c := range []struct {
		r    *controlv1.SetDhcpRequest
		code connect.Code
		text string
	}{
		{&controlv1.SetDhcpRequest{Segment: "x"}, connect.CodeNotFound, "segment list"},
		{&controlv1.SetDhcpRequest{Segment: "tunnel"}, connect.CodeInvalidArgument, "transparent"},
		{&controlv1.SetDhcpRequest{Segment: "lan", Pool: "x"}, connect.CodeInvalidArgument, "FROM-TO"},
		{&controlv1.SetDhcpRequest{Segment: "lan", Pool: "x-y"}, connect.CodeInvalidArgument, "not an IPv4 address"},
		{&controlv1.SetDhcpRequest{Segment: "lan", Router: "::1"}, connect.CodeInvalidArgument, "router"},
		{&controlv1.SetDhcpRequest{Segment: "lan", Dns: []string{"x"}}, connect.CodeInvalidArgument, "DNS server"},
		{&controlv1.SetDhcpRequest{Segment: "lan", Disable: true, Domain: "x"}, connect.CodeInvalidArgument, "--enable"},
		{&controlv1.SetDhcpRequest{Segment: "lan", Pool: "192.0.2.1-192.0.2.2"}, connect.CodeInvalidArgument, "not of addresses"},
	} {
		_, err := b.admin.SetDhcp(t.Context(), c.r)
		wantError(t, err, c.code, c.text)
	}
}

// TestLeasesAtOnce: gateways that ask at the same time never get one address for two machines, and the pool's last addresses are for hosts
// and other attachments.
func TestLeasesAtOnce(t *testing.T) {
	b := newLeaseBench(t)
	var wg sync.WaitGroup
	for i, m := range []*machine{b.gw1, b.gw2, b.gw3} {
		wg.Go(func() {
			for n := range byte(12) {
				r := b.report(askAct, byte(i)*20+n, b.at(0))
				if m == b.gw3 {
					r.Attachment = b.hall
				}
				_, err := m.api.ReportLeases(t.Context(), &controlv1.ReportLeasesRequest{Reports: []*controlv1.LeaseReport{r}})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	m := b.ctl.store.Model()
	by := map[identity.ID]int{}
	macs := map[string]bool{}
	for _, l := range m.LeasesOn(1) {
		by[l.Machine]++
		if macs[l.MAC.String()] {
			t.Errorf("%s has two", l.MAC)
		}
		macs[l.MAC.String()] = true
	}
	site, hall := by[identity.ID(b.site)], by[identity.ID(b.hall)]
	if site+hall != 20 || site > 15 || hall > 12 {
		t.Errorf("%d and %d addresses of 20 are set aside", site, hall)
	}
}
