package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// served is a VLAN with two gateways, another VLAN with one, and the segment's own DHCP service on both.
type served struct {
	*redundant
	plant    *world.Node
	plantLAN *lab.VLANSwitch
	server   netip.Addr
	from, to netip.Addr // of the pool
}

// rule is what an administrator is told of a DHCP service.
type rule struct {
	Service struct {
		Server string `json:"server"`
	} `json:"service"`
	Leases []struct {
		Address string `json:"address"`
		MAC     string `json:"mac"`
		Machine string `json:"machine"`
		State   string `json:"state"`
	} `json:"leases"`
}

func (r *rig) dhcp(args ...string) (out rule) {
	r.Helper()
	text, err := r.Admin(r.ctx, append([]string{"segment", "dhcp", "lan", "--json"}, args...)...)
	r.ok(err)
	r.ok(json.Unmarshal([]byte(text), &out))
	return out
}

func newServed(t *testing.T, size int) *served {
	t.Helper()
	s := &served{redundant: newRedundant(t)}
	s.plant, s.plantLAN = s.gateway("plant", 30, 1500)
	_, err := s.Grant(s.ctx, "attachment:plant/lan", "segment:lan")
	s.ok(err)
	s.server = netip.MustParseAddr(s.dhcp("--enable").Service.Server)
	base := s.server.As4()
	base[2], base[3] = base[2]&0xf0|2, 0
	s.from = netip.AddrFrom4(base)
	s.to = s.from
	for range size - 1 {
		s.to = s.to.Next()
	}
	s.dhcp("--enable", "--pool", s.from.String()+"-"+s.to.String(), "--lease", "10m")
	s.forwarder(30 * time.Second)
	s.awaitAttached(s.plant)
	for _, n := range append(s.gateways, s.plant) {
		s.await(n.Name+" is told of the service", 10*time.Second, func() bool { return len(s.leasesAt(n)) > 0 })
	}
	return s
}

func (r *rig) leasesAt(n *world.Node) []node.DHCP {
	var out struct {
		DHCP []node.DHCP `json:"dhcp"`
	}
	if n.Ask(r.ctx, &out, "dhcp") != nil {
		return nil
	}
	return out.DHCP
}

func (s *served) inPool(a netip.Addr) bool { return s.from.Compare(a) <= 0 && a.Compare(s.to) <= 0 }

// lease has udhcpc take a lease on eth0, and returns it.
func (s *served) lease(h *lab.Host) netip.Addr {
	s.Helper()
	var p netip.Prefix
	s.await(h.Name()+" has a lease", 60*time.Second, func() bool {
		var err error
		p, err = h.TakeLease(s.ctx, "eth0")
		return err == nil
	})
	return p.Addr()
}

func (s *served) state(a netip.Addr) string {
	for _, l := range s.dhcp().Leases {
		if l.Address == a.String() {
			return l.State
		}
	}
	return "none"
}

// A segment's own DHCP service: machines on the VLANs of its gateways get addresses that nobody else may use then, a host with a name
// is known by it, and they renew at another gateway, and without a controller.
func TestDHCPService(t *testing.T) {
	s := newServed(t, 100)
	listed := s.rig.machine(s.plantLAN, "listed", 30)
	rogue := s.rig.machine(s.plantLAN, "rogue", 30, "192.168.10.1/24")
	server, err := rogue.ServeDHCP(s.ctx, "eth0", "192.168.10.100", "192.168.10.150",
		"--dhcp-host="+s.macOn(listed, "eth0").String()+",ignore") // who is on its own VLAN would take what comes first
	s.ok(err)
	laptop := s.rig.machine(s.sw, "laptop", 10)
	at := s.lease(laptop)
	if !s.inPool(at) {
		t.Fatalf("laptop has %s, which is not of the pool", at)
	}
	s.pings(s.far.Host, at.String(), 10*time.Second)

	camera := s.rig.machine(s.sw, "camera", 10)
	s.host("camera", camera, "gw1/lan")
	own := s.to.Next().Next()
	s.host("listed", listed, "plant/lan", "--address", own.String()+"/20")
	cameraAt := s.lease(camera)
	if got := s.lease(listed); got != own {
		t.Errorf("the host that lists %s was given %s", own, got)
	}
	s.await("far resolves camera", 10*time.Second, func() bool {
		out, err := s.far.Host.Run(s.ctx, "sh", "-c", "dig +short +time=1 +tries=1 camera.etherloom.internal A")
		return err == nil && strings.TrimSpace(out) == cameraAt.String()
	})
	s.pings(listed, cameraAt.String(), 10*time.Second)

	// Nobody else uses it: neither an address that is leased, nor one that could be.
	thief := s.rig.machine(s.plantLAN, "thief", 30)
	for _, a := range []netip.Addr{at, s.to} {
		s.sh(thief, fmt.Sprintf("ip addr flush dev eth0; ip addr add %s/20 dev eth0", a))
		if _, err := thief.Run(s.ctx, "ping", "-c", "2", "-W", "1", s.far.Address(s.ctx)); err == nil {
			t.Errorf("a machine without a lease uses %s", a)
		}
	}
	if s.dropped(s.plant)["arp-sender"] == 0 {
		t.Error("the thief's ARP was not refused")
	}

	// The other gateway takes over, and no controller is there.
	who := s.forwarder(20 * time.Second)
	s.ok(s.ControllerProcess().Stop(10 * time.Second))
	s.ok(s.gateways[who].Daemon.Signal(syscall.SIGKILL))
	<-s.gateways[who].Daemon.Done()
	if again := s.lease(laptop); again != at {
		t.Errorf("laptop had %s, and has %s from the other gateway", at, again)
	}
	s.ok(s.gateways[who].Restart(s.ctx))
	s.ok(s.gateways[1-who].Daemon.Signal(syscall.SIGKILL))
	<-s.gateways[1-who].Daemon.Done()
	if again := s.lease(camera); again != cameraAt {
		t.Errorf("camera had %s, and has %s from a gateway that was started again", cameraAt, again)
	}
	s.ok(s.StartController(s.ctx))
	s.ok(s.gateways[1-who].Restart(s.ctx))

	if at := s.state(at); at != "bound" {
		t.Errorf("laptop's lease is %s", at)
	}
	s.sh(laptop, "udhcpc -i eth0 -f -n -R -t 4 -T 1 -A 1 & p=$!; sleep 5; kill -TERM $p; wait $p")
	s.await("what was given back has ended", 20*time.Second, func() bool { st := s.state(at); return st == "ended" || st == "none" })
	if log, err := server.Leases(); err != nil || len(log) > 0 {
		t.Errorf("a server without a grant has leased %v: %v", log, err)
	}
}

// asker is many clients on one interface.
type asker struct {
	*served
	h    *lab.Host
	seen *lab.Capture
	mine map[string]netip.Addr // by MAC: what was confirmed
	read int
}

func (s *served) asker(h *lab.Host) *asker {
	s.Helper()
	return &asker{served: s, h: h, seen: s.arrivals(h, "eth0"), mine: map[string]netip.Addr{}}
}

func clientMAC(group byte, i int) net.HardwareAddr {
	return net.HardwareAddr{2, 0xdc, group, 0, byte(i >> 8), byte(i)}
}

func (a *asker) send(mac net.HardwareAddr, m *dhcpv4.DHCPv4) {
	a.Helper()
	buf := gopacket.NewSerializeBuffer()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IPv4zero, DstIP: net.IPv4bcast}
	udp := &layers.UDP{SrcPort: 68, DstPort: 67}
	a.ok(udp.SetNetworkLayerForChecksum(ip))
	a.ok(gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: mac, DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeIPv4}, ip, udp, gopacket.Payload(m.ToBytes())))
	a.ok(a.h.SendFrames("eth0", buf.Bytes()))
}

// answers reads what has come since it was called last.
func (a *asker) answers() (out []*dhcpv4.DHCPv4) {
	a.Helper()
	n := 0
	a.ok(a.seen.Each(func(frame []byte) bool {
		if n++; n <= a.read {
			return true
		}
		p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
		if udp, is := p.Layer(layers.LayerTypeUDP).(*layers.UDP); is && udp.SrcPort == 67 {
			if m, err := dhcpv4.FromBytes(udp.Payload); err == nil {
				out = append(out, m)
			}
		}
		return true
	}))
	a.read = n
	return out
}

// round lets every client that has nothing yet ask, and answers what is offered.
func (a *asker) round(group byte, count int) {
	a.Helper()
	for i := range count {
		mac := clientMAC(group, i)
		if _, has := a.mine[mac.String()]; has {
			continue
		}
		m, err := dhcpv4.NewDiscovery(mac)
		a.ok(err)
		a.send(mac, m)
		time.Sleep(25 * time.Millisecond)
		a.heed()
	}
	for range 20 {
		time.Sleep(100 * time.Millisecond)
		a.heed()
	}
}

func (a *asker) heed() {
	a.Helper()
	for _, m := range a.answers() {
		addr, _ := netip.AddrFromSlice(m.YourIPAddr.To4())
		switch m.MessageType() {
		case dhcpv4.MessageTypeOffer:
			r, err := dhcpv4.NewRequestFromOffer(m)
			a.ok(err)
			a.send(m.ClientHWAddr, r)
		case dhcpv4.MessageTypeAck:
			a.mine[m.ClientHWAddr.String()] = addr
		default:
		}
	}
}

// Two gateways of two VLANs serve 200 clients: each has one address, and no two have the same.
func TestDHCPServiceCrowd(t *testing.T) {
	const each = 100
	s := newServed(t, 280)
	askers := []*asker{
		s.asker(s.rig.machine(s.sw, "office", 10)),
		s.asker(s.rig.machine(s.plantLAN, "hall", 30)),
	}
	done := make(chan struct{}, 2)
	for i, a := range askers {
		go func() {
			defer func() { done <- struct{}{} }()
			for round := 0; round < 12 && len(a.mine) < each && s.ctx.Err() == nil; round++ {
				a.round(byte(i), each)
			}
		}()
	}
	<-done
	<-done
	taken := map[netip.Addr]string{}
	for _, a := range askers {
		if len(a.mine) != each {
			t.Errorf("on %s %d of %d clients have an address", a.h.Name(), len(a.mine), each)
		}
		for mac, at := range a.mine {
			if taken[at] != "" || !s.inPool(at) {
				t.Errorf("%s has %s, as %q has", mac, at, taken[at])
			}
			taken[at] = mac
		}
	}
}

// A machine that asks for ever more addresses in names that it makes up keeps others from a bounded number of them, for a bounded time: hosts
// that have a name find one, and so do machines on other VLANs.
func TestDHCPServiceStarvation(t *testing.T) {
	s := newServed(t, 200)
	evil := s.asker(s.rig.machine(s.plantLAN, "evil", 30))
	for i := range 1500 {
		m, err := dhcpv4.NewDiscovery(clientMAC(9, i))
		s.ok(err)
		evil.send(clientMAC(9, i), m)
		time.Sleep(4 * time.Millisecond)
	}
	office := s.rig.machine(s.sw, "office", 10)
	if at := s.lease(office); !s.inPool(at) {
		t.Errorf("office has %s", at)
	}
	good := s.rig.machine(s.plantLAN, "good", 30)
	s.host("good", good, "plant/lan")
	if at := s.lease(good); !s.inPool(at) {
		t.Errorf("good has %s", at)
	}
	offered := 0
	for _, l := range s.dhcp().Leases {
		if l.State == "offered" {
			offered++
		}
	}
	t.Logf("%d addresses are set aside for nobody", offered)
	if offered > 70 {
		t.Errorf("%d addresses are set aside, want at most 64", offered)
	}
}
