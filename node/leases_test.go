package node

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/node/dhcpd"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

const (
	offeredLease = controlv1.LeaseState_LEASE_STATE_OFFERED
	boundLease   = controlv1.LeaseState_LEASE_STATE_BOUND
	endedLease   = controlv1.LeaseState_LEASE_STATE_ENDED
)

func leaseTold(vni uint32, addr string, machine uint32, mac byte, st controlv1.LeaseState) *controlv1.Lease {
	return &controlv1.Lease{Vni: vni, Address: addr, Machine: machine, Mac: []byte{2, 0, 0, 0, 0, mac}, State: st}
}

// Policy is told of a segment's own leases, in whatever state, and nothing where there is no service.
func TestLeasesAreApplied(t *testing.T) {
	c := &state.Contents{
		DHCP: map[uint32]*controlv1.DhcpService{1: {
			Vni: 1, Server: "192.0.2.254", Mac: []byte{2, 0, 0, 0, 0, 0xd}, PoolFrom: "192.0.2.100", PoolTo: "192.0.2.109", LeaseSeconds: 3600,
		}},
		Leases: map[identity.ID][]*controlv1.Lease{
			20: {leaseTold(1, "192.0.2.100", 20, 1, boundLease), leaseTold(1, "192.0.2.101", 20, 2, endedLease), leaseTold(2, "198.51.100.9", 20, 3, boundLease)},
			21: {leaseTold(1, "192.0.2.102", 21, 4, offeredLease)},
		},
	}
	var r policy.Rules
	letLease(&r, c, 1)
	if r.Service == nil || r.Service.Address != [4]byte{192, 0, 2, 254} || r.Service.MAC != (ether.MAC{2, 5: 0xd}) || !r.Service.InPool(netip.MustParseAddr("192.0.2.109")) {
		t.Errorf("service %+v", r.Service)
	}
	if len(r.Leases[20]) != 2 || len(r.Leases[21]) != 1 || r.Leases[21][0] != (policy.Lease{Address: netip.MustParseAddr("192.0.2.102"), MAC: ether.MAC{2, 5: 4}}) {
		t.Errorf("leases %+v", r.Leases)
	}
	r = policy.Rules{}
	if letLease(&r, c, 2); r.Service != nil || r.Leases != nil {
		t.Error("a segment without a service has leases")
	}
}

// A host is known by what it lists, and by what is bound to it.
func TestNamesOfLeases(t *testing.T) {
	m := &controlv1.Machine{Id: 21, Name: "camera", Vni: 1, Mac: []byte{2, 0, 0, 0, 0, 4}, Addresses: []string{"2001:db8::9/64"}}
	c := &state.Contents{
		Self: &controlv1.Peer{Id: 1}, Machines: map[identity.ID]*controlv1.Machine{21: m, 20: {Id: 20, Name: "gw/lan", Vni: 1}},
		Leases: map[identity.ID][]*controlv1.Lease{
			21: {leaseTold(1, "192.0.2.102", 21, 4, boundLease), leaseTold(1, "192.0.2.103", 21, 4, endedLease), leaseTold(2, "198.51.100.1", 21, 4, boundLease)},
			20: {leaseTold(1, "192.0.2.100", 20, 1, boundLease)},
		},
	}
	want := []netip.Addr{netip.MustParseAddr("2001:db8::9"), netip.MustParseAddr("192.0.2.102")}
	if got := addressesOn(memberOf(c, 21), 1); !slices.Equal(got, want) {
		t.Errorf("it is at %v", got)
	}
	if len(m.GetAddresses()) != 1 {
		t.Error("the signed record was changed")
	}
	if got := addressesOn(memberOf(c, 20), 1); len(got) != 0 {
		t.Errorf("those whom nobody named are at %v", got)
	}
}

// What the service is told of a lease, and which attachment of this gateway it concerns.
func TestLeasesOf(t *testing.T) {
	m := &controlv1.Machine{Id: 21, Vni: 1, Attachments: []uint32{20, 30}}
	list := []*controlv1.Lease{
		leaseTold(1, "192.0.2.100", 21, 1, offeredLease), leaseTold(1, "192.0.2.101", 21, 2, boundLease), leaseTold(1, "192.0.2.102", 21, 3, endedLease),
		leaseTold(2, "198.51.100.1", 21, 4, boundLease),
	}
	got := leasesOf(m, list, map[identity.ID]bool{30: true})
	if len(got) != 3 || got[0].Phase != dhcpd.Offered || got[1].Phase != dhcpd.Bound || got[2].Phase != dhcpd.Ended || got[0].Here != 30 || got[0].Machine != 21 {
		t.Errorf("leases %+v", got)
	}
	if got := leasesOf(m, list, nil); got[0].Here != 0 {
		t.Errorf("elsewhere it is at attachment %d", got[0].Here)
	}
	for _, c := range []struct {
		mac   []byte
		addrs []string
		want  string
	}{
		{[]byte{2, 0, 0, 0, 0, 1}, []string{"2001:db8::1/64", "192.0.2.9/24"}, "192.0.2.9/24"},
		{[]byte{2, 0, 0, 0, 0, 1}, []string{"2001:db8::1/64"}, ""},
		{nil, []string{"192.0.2.9/24"}, ""},
	} {
		p, is := listed(&controlv1.Machine{Mac: c.mac, Addresses: c.addrs})
		if is != (c.want != "") || is && p.String() != c.want {
			t.Errorf("%v lists %v, %t", c.addrs, p, is)
		}
	}
}

// Who carries a frame never waits for the service, and keeps nothing of its frame there.
func TestLessorNeverWaits(t *testing.T) {
	l := newLessor(nil)
	port := vswitch.NewPort("lan", vswitch.Attached, 20, &attachment{})
	s := lessorOf{l, &segment{}}
	frame := []byte("question")
	s.Ask(port, 20, frame, time.Now())
	frame[0] = 'Q'
	for range maxQuestions {
		s.Squats(port, ether.MAC{2}, [4]byte{192, 0, 2, 1}, time.Now())
	}
	if n := l.overrun.Load(); n != maxQuestions-maxSquatting+1 {
		t.Errorf("%d of %d who squat had no room", n, maxQuestions)
	}
	l.overrun.Store(0)
	for range maxQuestions - maxSquatting + 1 { // who squats, however often, leaves room for who asks
		s.Ask(port, 20, frame, time.Now())
	}
	if n := l.overrun.Load(); n != 1 {
		t.Errorf("%d of %d who ask had no room", n, maxQuestions-maxSquatting+1)
	}
	if q := <-l.questions; string(q.frame) != "question" {
		t.Errorf("it was changed to %q", q.frame)
	}
	if q := <-l.questions; q.frame != nil || q.squats.addr != [4]byte{192, 0, 2, 1} {
		t.Errorf("what is told of somebody who squats is %+v", q)
	}
}

func TestLeaseReports(t *testing.T) {
	for act, want := range map[dhcpd.Act]controlv1.LeaseAct{
		dhcpd.Ask: controlv1.LeaseAct_LEASE_ACT_ASK, dhcpd.Bind: controlv1.LeaseAct_LEASE_ACT_BIND, dhcpd.Renew: controlv1.LeaseAct_LEASE_ACT_BIND,
		dhcpd.Release: controlv1.LeaseAct_LEASE_ACT_RELEASE, dhcpd.Decline: controlv1.LeaseAct_LEASE_ACT_DECLINE, dhcpd.LetGo: controlv1.LeaseAct_LEASE_ACT_LET_GO,
	} {
		r := reportProto(5, &dhcpd.Report{Act: act, Attachment: 20, MAC: ether.MAC{2, 5: 1}, Address: netip.MustParseAddr("192.0.2.100"), Name: "x"})
		if r.GetAct() != want || r.GetVni() != 5 || r.GetAttachment() != 20 || r.GetAddress() != "192.0.2.100" || r.GetMac()[5] != 1 || r.GetName() != "x" {
			t.Errorf("%d is told as %v", act, r)
		}
	}
	if r := reportProto(5, &dhcpd.Report{Act: dhcpd.Ask}); r.GetAddress() != "" {
		t.Errorf("no address is told as %q", r.GetAddress())
	}
}
