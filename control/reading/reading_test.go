package reading

import (
	"fmt"
	"testing"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

func TestStation(t *testing.T) {
	mac := []byte{2, 0, 0, 0, 0, 1}
	for _, c := range []struct {
		name string
		in   *controlv1.Station
		want string
		dhcp bool
		role policy.Roles
	}{
		{
			"fixed", &controlv1.Station{Mode: controlv1.AddressMode_ADDRESS_MODE_STATIC, Addresses: []string{"192.0.2.1/24", "2001:db8::1/64"}},
			"[192.0.2.1 2001:db8::1 fe80::ff:fe00:1]", false, 0,
		},
		{"waits for a lease", &controlv1.Station{Mode: controlv1.AddressMode_ADDRESS_MODE_DHCP}, "[fe80::ff:fe00:1]", true, 0},
		{"speaks no IP", &controlv1.Station{Mode: controlv1.AddressMode_ADDRESS_MODE_NONE}, "[]", false, 0},
		{
			"may do more", &controlv1.Station{Mode: controlv1.AddressMode_ADDRESS_MODE_NONE, Roles: []string{"router", "querier", "oracle"}},
			"[]", false, policy.Router | policy.Querier,
		},
		{
			"unreadable", &controlv1.Station{Mode: controlv1.AddressMode_ADDRESS_MODE_STATIC, Addresses: []string{"192.0.2.1", "192.0.2.2/24"}},
			"[192.0.2.2 fe80::ff:fe00:1]", false, 0,
		},
	} {
		c.in.Mac = mac
		s := Station(c.in)
		if got := fmt.Sprint(s.Addresses()); got != c.want || s.DHCP != c.dhcp || s.Roles != c.role || s.MAC != ether.MAC(mac) {
			t.Errorf("%s: addresses %s, DHCP %t, roles %b, MAC %v", c.name, got, s.DHCP, s.Roles, s.MAC)
		}
	}
	if Station(nil) != nil {
		t.Error("there is a station where there is none")
	}
}

func TestMachine(t *testing.T) {
	host := Machine(&controlv1.Machine{
		Id: 7, Mac: []byte{2, 0, 0, 0, 0, 1}, Addresses: []string{"192.0.2.1/24", "2001:db8::1/64", "x"}, Roles: []string{"router", "oracle"},
		Gateways: []uint32{1, 2}, Attachments: []uint32{5},
	})
	if got := fmt.Sprint(host.MAC, host.Addresses(), host.Gateways, host.Attachments, host.Roles == policy.Router); got != "02:00:00:00:00:01 [192.0.2.1 2001:db8::1 fe80::ff:fe00:1] [1 2] [5] true" {
		t.Errorf("a host is read as %s", got)
	}
	unnamed := Machine(&controlv1.Machine{Id: 5, Gateways: []uint32{1}, Attachments: []uint32{5}})
	if unnamed.MAC != (ether.MAC{}) || len(unnamed.Addresses()) != 0 || unnamed.Roles != 0 {
		t.Errorf("those whom nobody named are read as %+v", unnamed)
	}
	if host.Secondary != (policy.SecondaryVLAN{}) {
		t.Errorf("who is in no private VLAN is read as %+v", host.Secondary)
	}
	for _, s := range []policy.SecondaryVLAN{{Isolated: true}, {Community: "shops"}} {
		m := &controlv1.Machine{Id: 5, Secondary: &controlv1.SecondaryVLAN{Isolated: s.Isolated, Community: s.Community}}
		if got := Machine(m).Secondary; got != s {
			t.Errorf("%+v is read as %+v", s, got)
		}
	}
	// A machine it is, and no station without an address: it may use what is nobody's, and what it has not listed is asked for.
	v := policy.Compile(policy.Rules{Self: 1, Stations: map[policy.Identity]*policy.Station{5: unnamed, 7: host}})
	if !v.MaySpeak(1, 5) || v.MaySpeak(2, 5) || !v.MaySpeak(2, 7) || !v.IsBehind(7, 5) {
		t.Error("who speaks for whom was not read")
	}
	if id, verdict := v.Behind(5, ether.MAC{2, 0, 0, 0, 0, 9}); id != 5 || verdict != policy.Pass {
		t.Errorf("a MAC that is nobody's is of %d: %v", id, verdict)
	}
}

func TestTerms(t *testing.T) {
	for _, c := range []struct {
		in   []string
		want string
		ok   bool
	}{
		{nil, "[]", true},
		{[]string{"tcp:22", "icmp"}, "[tcp:22 icmp]", true},
		{[]string{"tcp:22", "quic:443"}, "[tcp:22]", true},
		{[]string{"quic:443"}, "[]", false},
	} {
		if got, ok := Terms(c.in); fmt.Sprint(got) != c.want || ok != c.ok {
			t.Errorf("%q is read %v, %t", c.in, got, ok)
		}
	}
}
