package state

import (
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// resources is one good resource of each kind.
func resources() []*controlv1.Resource {
	peer := func(id uint32) *controlv1.Peer {
		return &controlv1.Peer{
			Id: id, Name: fmt.Sprint("n", id), StaticKey: make([]byte, 32),
			Stations: []*controlv1.Station{{Vni: 1, Mac: []byte{2, 0, 0, 0, 0, byte(id)}, Addresses: []string{"10.64.0.1/20"}}},
		}
	}
	return []*controlv1.Resource{
		{Kind: &controlv1.Resource_Settings{Settings: &controlv1.Settings{NetworkName: "default", Zone: "etherloom.internal"}}},
		{Kind: &controlv1.Resource_Segment{Segment: &controlv1.Segment{Vni: 1, Name: "lan", Mtu: 1500, Ipv4Prefix: "10.64.0.0/20"}}},
		{Kind: &controlv1.Resource_Self{Self: peer(1)}},
		{Kind: &controlv1.Resource_Peer{Peer: peer(2)}},
		{Kind: &controlv1.Resource_Grant{Grant: &controlv1.Grant{Id: 1, Vni: 1, Sources: []uint32{1, 2}}}},
		{Kind: &controlv1.Resource_Relay{Relay: &controlv1.Relay{Name: "r", Hosts: []string{"192.0.2.1"}, Port: 3478, ProbePort: 3479}}},
		{Kind: &controlv1.Resource_Revocation{Revocation: &controlv1.Revocation{Id: 3}}},
		{Kind: &controlv1.Resource_Reach{Reach: &controlv1.Reach{Id: 2, Vni: 1, Sources: []uint32{1}, Targets: []uint32{2}, Allow: []string{"tcp:22"}}}},
		{Kind: &controlv1.Resource_Machine{Machine: &controlv1.Machine{
			Id: 4, Name: "printer", Vni: 1, Mac: []byte{2, 0, 0, 0, 0, 4}, Addresses: []string{"10.64.0.4/20"}, Gateways: []uint32{2}, Attachments: []uint32{5},
			Secondary: &controlv1.SecondaryVLAN{Community: "shops"},
		}}},
		{Kind: &controlv1.Resource_Attachment{Attachment: &controlv1.Attachment{Id: 5, Vni: 1, Port: "site", Nic: "eth1", Vlan: 10, Native: "untagged", Priority: "always", ProbeKey: make([]byte, 32)}}},
		{Kind: &controlv1.Resource_Dhcp{Dhcp: &controlv1.DhcpService{
			Vni: 1, Server: "10.0.0.254", Mac: []byte{2, 0, 0, 0, 0, 9}, PoolFrom: "10.0.0.1", PoolTo: "10.0.0.9", LeaseSeconds: 60, Router: "10.0.0.10", Dns: []string{"192.0.2.1"},
		}}},
		{Kind: &controlv1.Resource_Lease{Lease: &controlv1.Lease{
			Vni: 1, Address: "10.0.0.1", Machine: 5, Mac: []byte{2, 0, 0, 0, 0, 1}, State: controlv1.LeaseState_LEASE_STATE_BOUND, Name: "host",
		}}},
	}
}

func encode(t testing.TB, rs ...*controlv1.Resource) State {
	t.Helper()
	s := State{}
	for _, r := range rs {
		key, value, err := Encode(r)
		must(t, err)
		s[key] = value
	}
	return s
}

// randomState draws a state over a small set of keys, so that two of them overlap.
func randomState(r *rand.Rand) State {
	s := State{}
	for range r.IntN(12) {
		value := make([]byte, r.IntN(3))
		for i := range value {
			value[i] = byte(r.IntN(2))
		}
		s[fmt.Sprint("k", r.IntN(10))] = value
	}
	return s
}

func same(a, b State) bool {
	return maps.EqualFunc(a, b, func(x, y []byte) bool { return slices.Equal(x, y) })
}

// TestDiffLeadsToTarget: whatever the two states, the diff of them leads from the one to the other, leaves the first as
// it was, and the hashes are equal exactly if the states are.
func TestDiffLeadsToTarget(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		a, b := randomState(r), randomState(r)
		before := maps.Clone(a)
		set, removed := Diff(a, b)
		if got := a.patch(set, removed); !same(got, b) {
			t.Fatalf("from %v with %v, %v came %v, want %v", a, set, removed, got, b)
		}
		if !same(a, before) {
			t.Fatalf("patch changed its receiver")
		}
		if (a.Hash() == b.Hash()) != same(a, b) {
			t.Fatalf("hashes of %v and %v", a, b)
		}
		for key, value := range set {
			if old, ok := a[key]; ok && slices.Equal(old, value) {
				t.Fatalf("diff sends %s, which is not new", key)
			}
		}
	}
}

// TestHashVector pins the canonical form.
func TestHashVector(t *testing.T) {
	for _, c := range []struct {
		s    State
		want string
	}{
		{nil, "e8f870457a73dff9669bd561323a3b28911e565b3181f6e400e716b9cf5bb65f"},
		{State{"a": []byte("1"), "b": nil}, "052ee1c4b994f0030913893c0d6cb52cd869a7a571cdc05a019461e8971fa7bc"},
		{State{"a1": nil, "b": nil}, "b5563b3d14a66beacb80b7df1b5f080ac6194ed82f9f485a29dd32eac1667146"}, // lengths keep keys and values apart
	} {
		sum := c.s.Hash()
		if got := hex.EncodeToString(sum[:]); got != c.want {
			t.Errorf("hash of %v is %s", c.s, got)
		}
	}
}

func TestContents(t *testing.T) {
	s := encode(t, resources()...)
	s["service/x"] = []byte{0x82, 0x06, 0} // field 96, a kind of tomorrow
	c, err := s.Contents()
	must(t, err)
	if c.Settings.GetZone() != "etherloom.internal" || c.Self.GetId() != 1 || len(c.Segments) != 1 || c.Peers[2] == nil ||
		c.Grants[1] == nil || c.Relays["r"] == nil || c.Revocations[3] == nil ||
		c.Reaches[2] == nil || c.Machines[4].GetName() != "printer" || c.Attachments[5].GetPort() != "site" ||
		c.DHCP[1].GetServer() != "10.0.0.254" || len(c.Leases[5]) != 1 {
		t.Errorf("contents are %+v", c)
	}
	if n := reflect.TypeOf(*c).NumField(); n != len(resources()) {
		t.Errorf("Contents has %d fields for %d kinds", n, len(resources()))
	}
}

// TestContentsRefuses: each case is one good resource with one thing wrong.
func TestContentsRefuses(t *testing.T) {
	edit := func(i int, f func(*controlv1.Resource)) *controlv1.Resource {
		r := resources()[i]
		f(r)
		return r
	}
	for name, r := range map[string]*controlv1.Resource{
		"empty":             {},
		"VNI 0":             edit(1, func(r *controlv1.Resource) { r.GetSegment().Vni = 0 }),
		"VNI of 25 bits":    edit(1, func(r *controlv1.Resource) { r.GetSegment().Vni = 1 << 24 }),
		"MTU too small":     edit(1, func(r *controlv1.Resource) { r.GetSegment().Mtu = 575 }),
		"prefix with host":  edit(1, func(r *controlv1.Resource) { r.GetSegment().Ipv4Prefix = "10.0.0.1/8" }),
		"segment name":      edit(1, func(r *controlv1.Resource) { r.GetSegment().Name = "../x" }),
		"self 0":            edit(2, func(r *controlv1.Resource) { r.GetSelf().Id = 0 }),
		"short key":         edit(3, func(r *controlv1.Resource) { r.GetPeer().StaticKey = make([]byte, 31) }),
		"peer name":         edit(3, func(r *controlv1.Resource) { r.GetPeer().Name = "a.b" }),
		"short MAC":         edit(3, func(r *controlv1.Resource) { r.GetPeer().Stations[0].Mac = []byte{2} }),
		"group MAC":         edit(3, func(r *controlv1.Resource) { r.GetPeer().Stations[0].Mac[0] = 3 }),
		"bare address":      edit(3, func(r *controlv1.Resource) { r.GetPeer().Stations[0].Addresses[0] = "10.0.0.1" }),
		"station VNI":       edit(3, func(r *controlv1.Resource) { r.GetPeer().Stations[0].Vni = 1 << 24 }),
		"grant 0":           edit(4, func(r *controlv1.Resource) { r.GetGrant().Id = 0 }),
		"source 0":          edit(4, func(r *controlv1.Resource) { r.GetGrant().Sources[1] = 0 }),
		"grant VNI":         edit(4, func(r *controlv1.Resource) { r.GetGrant().Vni = 0 }),
		"relay port":        edit(5, func(r *controlv1.Resource) { r.GetRelay().Port = 65536 }),
		"relay probe port":  edit(5, func(r *controlv1.Resource) { r.GetRelay().ProbePort = 65536 }),
		"no relay host":     edit(5, func(r *controlv1.Resource) { r.GetRelay().Hosts = nil }),
		"machine 0":         edit(8, func(r *controlv1.Resource) { r.GetMachine().Id = 0 }),
		"machine VNI":       edit(8, func(r *controlv1.Resource) { r.GetMachine().Vni = 0 }),
		"machine short MAC": edit(8, func(r *controlv1.Resource) { r.GetMachine().Mac = []byte{2} }),
		"machine group MAC": edit(8, func(r *controlv1.Resource) { r.GetMachine().Mac[0] = 3 }),
		"machine address":   edit(8, func(r *controlv1.Resource) { r.GetMachine().Addresses[0] = "10.0.0.1" }),
		"gateway 0":         edit(8, func(r *controlv1.Resource) { r.GetMachine().Gateways[0] = 0 }),
		"behind 0":          edit(8, func(r *controlv1.Resource) { r.GetMachine().Attachments[0] = 0 }),
		"attachment 0":      edit(9, func(r *controlv1.Resource) { r.GetAttachment().Id = 0 }),
		"attachment VNI":    edit(9, func(r *controlv1.Resource) { r.GetAttachment().Vni = 1 << 24 }),
		"attachment name":   edit(9, func(r *controlv1.Resource) { r.GetAttachment().Port = "a/b" }),
		"no link":           edit(9, func(r *controlv1.Resource) { r.GetAttachment().Nic = "" }),
		"two links":         edit(9, func(r *controlv1.Resource) { r.GetAttachment().Bridge = "br0" }),
		"a bridge's host":   edit(9, func(r *controlv1.Resource) { a := r.GetAttachment(); a.Nic, a.Bridge, a.MoveHost = "", "br0", true }),
		"time to confirm":   edit(9, func(r *controlv1.Resource) { r.GetAttachment().Confirm = durationpb.New(-1) }),
		"VLAN 4095":         edit(9, func(r *controlv1.Resource) { r.GetAttachment().Vlan = 4095 }),
		"native":            edit(9, func(r *controlv1.Resource) { r.GetAttachment().Native = "x" }),
		"native, no VLAN":   edit(9, func(r *controlv1.Resource) { r.GetAttachment().Vlan = 0 }),
		"service, no VLAN":  edit(9, func(r *controlv1.Resource) { a := r.GetAttachment(); a.Vlan, a.Native, a.Service = 0, "", true }),
		"priority":          edit(9, func(r *controlv1.Resource) { r.GetAttachment().Priority = "x" }),
		"service VNI":       edit(10, func(r *controlv1.Resource) { r.GetDhcp().Vni = 0 }),
		"service MAC":       edit(10, func(r *controlv1.Resource) { r.GetDhcp().Mac[0] = 3 }),
		"service address":   edit(10, func(r *controlv1.Resource) { r.GetDhcp().Server = "" }),
		"half a pool":       edit(10, func(r *controlv1.Resource) { r.GetDhcp().PoolTo = "" }),
		"pool of IPv6":      edit(10, func(r *controlv1.Resource) { r.GetDhcp().PoolFrom = "fd00::1" }),
		"service router":    edit(10, func(r *controlv1.Resource) { r.GetDhcp().Router = "x" }),
		"service DNS":       edit(10, func(r *controlv1.Resource) { r.GetDhcp().Dns = []string{"fd00::1"} }),
		"lease of 59 s":     edit(10, func(r *controlv1.Resource) { r.GetDhcp().LeaseSeconds = 59 }),
		"service domain":    edit(10, func(r *controlv1.Resource) { r.GetDhcp().Domain = strings.Repeat("a", 254) }),
		"lease VNI":         edit(11, func(r *controlv1.Resource) { r.GetLease().Vni = 1 << 24 }),
		"lease of nobody":   edit(11, func(r *controlv1.Resource) { r.GetLease().Machine = 0 }),
		"lease short MAC":   edit(11, func(r *controlv1.Resource) { r.GetLease().Mac = nil }),
		"lease of IPv6":     edit(11, func(r *controlv1.Resource) { r.GetLease().Address = "fd00::1" }),
		"lease name":        edit(11, func(r *controlv1.Resource) { r.GetLease().Name = "a\x1b" }),
		"lease long name":   edit(11, func(r *controlv1.Resource) { r.GetLease().Name = strings.Repeat("a", 64) }),
		"redundancy":        edit(9, func(r *controlv1.Resource) { r.GetAttachment().Redundancy = "single-active" }),
		"LACP by turns":     edit(9, func(r *controlv1.Resource) { r.GetAttachment().Lacp = true }),
		"LACP of a bridge": edit(9, func(r *controlv1.Resource) {
			a := r.GetAttachment()
			a.Nic, a.Bridge, a.Redundancy, a.Lacp = "", "br0", "all-active", true
		}),
		"revoked nobody": edit(6, func(r *controlv1.Resource) { r.GetRevocation().Id = 0 }),
	} {
		key, err := Key(r)
		if err != nil {
			key = "x"
		}
		_, value, _ := Encode(r)
		if _, err := (State{key: value}).Contents(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	unnamed := edit(8, func(r *controlv1.Resource) {
		m := r.GetMachine()
		m.Name, m.Mac, m.Addresses, m.Gateways = "gw/site", nil, nil, nil
	})
	key, value, _ := Encode(unnamed)
	if _, err := (State{key: value}).Contents(); err != nil {
		t.Errorf("those whom nobody named, without a gateway now: %v", err)
	}
	_, peer, _ := Encode(resources()[3])
	if _, err := (State{"peer/9": peer}).Contents(); err == nil {
		t.Error("a peer in another peer's place was accepted")
	}
	if _, err := (State{"peer/2": append(peer, 0xff)}).Contents(); err == nil {
		t.Error("garbage was accepted")
	}
}

func FuzzContents(f *testing.F) {
	for _, r := range resources() {
		key, value, _ := Encode(r)
		f.Add(key, value)
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		c, err := State{key: value}.Contents()
		if err != nil {
			return
		}
		for id, p := range c.Peers {
			if id == 0 || len(p.GetStaticKey()) != 32 || identity.CheckHostName(p.GetName()) != nil {
				t.Fatalf("accepted peer %v", p)
			}
		}
		for id, m := range c.Machines {
			if id == 0 || len(m.GetMac()) != 0 && (len(m.GetMac()) != 6 || m.GetMac()[0]&1 != 0) {
				t.Fatalf("accepted machine %v", m)
			}
		}
		for _, a := range c.Attachments {
			if a.GetVlan() > maxVLAN || a.GetNic() == "" && a.GetBridge() == "" {
				t.Fatalf("accepted attachment %v", a)
			}
		}
		for vni := range c.Segments {
			if vni == 0 || vni > maxVNI {
				t.Fatalf("accepted VNI %d", vni)
			}
		}
	})
}
