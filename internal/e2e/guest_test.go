package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
)

// twoVLANs is a site behind a guest, whose kernel knows VLANs, and a plant elsewhere: VLANs 10 there and 30 here are the segment lan, VLANs
// 20 and 40 the segment dmz.
type twoVLANs struct {
	*rig
	plant         *world.Node
	plantLAN      *lab.VLANSwitch
	server, vault *lab.Host // at the plant: on lan, with leases, and on dmz
	camera, desk  *lab.Host // behind the guest: on lan and on dmz
	guest         *lab.Guest
}

// guestPatience is how long what a guest takes part in may take: its processor is a program.
const guestPatience = 4 * time.Minute

func newTwoVLANs(t *testing.T) *twoVLANs {
	t.Helper()
	if os.Getenv("ETHERLOOM_ACCEPT") != "1" {
		t.Skip("a guest boots only with ETHERLOOM_ACCEPT=1")
	}
	v := &twoVLANs{rig: newRigFor(t, 40*time.Minute)}
	_, err := v.Admin(v.ctx, "segment", "add", "dmz")
	v.ok(err)
	v.plant = v.site("plant", lab.PortPreserving, "--role", "gateway")
	v.plantLAN = v.vlanSwitch("plant-sw")
	v.trunk(v.plantLAN, v.plant.Host, "lan", 30, 40)
	v.attach("plant/lan", "lan", "lan", 30)
	v.attach("plant/dmz", "dmz", "lan", 40)
	v.server = v.machine(v.plantLAN, "server", 30, "192.168.10.1/24")
	v.vault = v.machine(v.plantLAN, "vault", 40, "192.168.20.1/24")
	for _, s := range []string{"lan", "dmz"} {
		_, err := v.Grant(v.ctx, "attachment:plant/"+s, "segment:"+s)
		v.ok(err)
	}
	v.host("server", v.server, "plant/lan", "--role", "dhcp-server")
	_, err = v.server.ServeDHCP(v.ctx, "eth0", "192.168.10.100", "192.168.10.150", "--host-record=server."+lab.LeaseDomain+",192.168.10.1")
	v.ok(err)
	for name, h := range map[string]**lab.Host{"camera": &v.camera, "desk": &v.desk} {
		*h, err = v.Lab.AddHost(name)
		v.ok(err)
	}
	return v
}

// boot boots the guest. Its eth0 leads to the first plug, eth1 to the camera, eth2 to the desk, and the next ones to where further plugs are.
func (v *twoVLANs) boot(programs []string, first lab.Plug, more ...lab.Plug) {
	v.Helper()
	root := os.Getenv("ETHERLOOM_GUEST") // what scripts/guest.sh prints
	if root == "" {
		root = "/"
	}
	k, err := lab.FindGuestKernel(root)
	v.ok(err)
	k.Programs = programs
	plugs := []lab.Plug{first, {On: v.camera, Name: "eth0"}, {On: v.desk, Name: "eth0", Addrs: []string{"192.168.20.2/24"}}}
	v.guest, err = v.Lab.AddGuest(v.ctx, "guest", k, append(plugs, more...)...)
	v.ok(err)
}

// inside runs a script in the guest.
func (v *twoVLANs) inside(script string) string {
	v.Helper()
	out, err := v.guest.Run(v.ctx, script)
	v.ok(err)
	return out
}

// attached waits until a node's ports onto both VLANs carry frames.
func (v *twoVLANs) attached(n *world.Node) {
	v.Helper()
	v.await(n.Name+" has both VLANs", guestPatience, func() bool {
		on := 0
		for _, p := range v.ports(n) {
			if p.Kind == "attached" && p.State == "on" && p.Up != nil && *p.Up {
				on++
			}
		}
		return on == 2
	})
}

// works has both VLANs used as people do: a lease from the other site, ping by name, files each way; and lets nothing pass between them.
func (v *twoVLANs) works() {
	v.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, guestPatience)
	defer cancel()
	lease, err := v.camera.TakeLease(ctx, "eth0")
	for err != nil && ctx.Err() == nil {
		lease, err = v.camera.TakeLease(ctx, "eth0")
	}
	v.ok(err)
	v.pings(v.desk, "192.168.20.1", guestPatience)
	v.sh(v.camera, "ping -c 2 -W 5 server."+lab.LeaseDomain)
	v.pings(v.server, lease.Addr().String(), guestPatience)
	for _, way := range []struct {
		from, to *lab.Host
		addr     string
	}{
		{v.camera, v.server, "192.168.10.1"}, {v.server, v.camera, lease.Addr().String()}, {v.desk, v.vault, "192.168.20.1"}, {v.vault, v.desk, "192.168.20.2"},
	} {
		took, err := lab.CopyFile(v.ctx, way.from, way.to, way.addr, 2<<20)
		v.ok(err)
		v.Logf("2 MiB from %s to %s in %v", way.from.Name(), way.to.Name(), took)
	}
	v.sh(v.camera, "! ping -c 1 -W 1 192.168.20.1")
	v.sh(v.camera, "ping -c 3 -i 0.2 -W 5 -M do -s 1472 192.168.10.1") // 1500 bytes, whole
}

// apart sends a train from each machine: it comes whole to the other one of its VLAN, and nowhere else.
func (v *twoVLANs) apart() {
	v.Helper()
	all := []*lab.Host{v.camera, v.server, v.desk, v.vault}
	var at []*lab.Capture
	for _, h := range all {
		at = append(at, v.arrivals(h, "eth0"))
	}
	for i, h := range all {
		head := ethernet(broadcast(), v.macOf(h, "eth0"), lab.Experimental)
		train := lab.NewTrain(head, 100, 5*time.Millisecond)
		_, err := h.SendTrain(v.ctx, "eth0", train)
		v.ok(err)
		for j, c := range at {
			want := 0
			if j == i^1 {
				want = train.Count
			}
			a, err := c.AwaitTrain(v.ctx, train, head, 2*time.Second)
			v.ok(err)
			if err := a.Exactly(want); err != nil {
				v.Errorf("from %s, at %s: %v", h.Name(), all[j].Name(), err)
			}
		}
	}
}

// A kernel that knows VLANs is a site's switch: a bridge with vlan_filtering whose trunk to the gateway has VLAN 10 as its native one and VLAN 20
// with tags, machines at its ports, and the guest itself on 802.1Q interfaces of that bridge.
func TestGuestSite(t *testing.T) {
	v := newTwoVLANs(t)
	office := v.site("office", lab.PortPreserving, "--role", "gateway")
	v.boot(nil, lab.Plug{On: office.Host, Name: "lan"})
	v.inside(`
		ip link add br0 type bridge vlan_filtering 1 vlan_default_pvid 0 forward_delay 0 mcast_snooping 0
		for n in 0 1 2; do ip link set eth$n master br0 up; done
		bridge vlan add dev eth0 vid 10 pvid untagged
		bridge vlan add dev eth0 vid 20
		bridge vlan add dev eth1 vid 10 pvid untagged
		bridge vlan add dev eth2 vid 20 pvid untagged
		for n in 10 20; do bridge vlan add dev br0 vid $n self; done
		ip link set br0 up
		for n in 10 20; do ip link add link br0 name br0.$n type vlan id $n; ip link set br0.$n up; done
		ip address add 192.168.20.3/24 dev br0.20`)
	v.attach("office/lan", "lan", "lan", 10, "--native", "untagged")
	v.attach("office/dmz", "dmz", "lan", 20)
	for _, s := range []string{"lan", "dmz"} {
		_, err := v.Grant(v.ctx, "attachment:office/"+s, "segment:"+s)
		v.ok(err)
	}
	v.attached(office)
	v.works()
	v.apart()

	// What is native has no tag on the trunk, and what is not has its own.
	nic := v.arrivals(office.Host, "lan")
	for h, tags := range map[*lab.Host][]lab.Tag{v.camera: nil, v.desk: {{VLAN: 20}}} {
		train := lab.NewTrain(ethernet(broadcast(), v.macOf(h, "eth0"), lab.Experimental), 50, 5*time.Millisecond)
		_, err := h.SendTrain(v.ctx, "eth0", train)
		v.ok(err)
		a, err := nic.AwaitTrain(v.ctx, train, lab.Ethernet(broadcast(), v.macOf(h, "eth0"), lab.Experimental, tags...), 2*time.Second)
		v.ok(err)
		if err := a.Exactly(train.Count); err != nil {
			t.Errorf("from %s, on the trunk: %v", h.Name(), err)
		}
	}

	// The guest itself, by its 802.1Q interfaces.
	v.inside(`
		printf '#!/bin/sh\n[ "$1" = bound ] || exit 0\n/lab/ip address add "$ip/24" dev "$interface"\necho "nameserver $dns" >/etc/resolv.conf\n' >/tmp/bound
		chmod 755 /tmp/bound
		udhcpc -i br0.10 -n -q -f -t 10 -T 2 -s /tmp/bound`)
	v.inside("ping -c 2 -W 5 server." + lab.LeaseDomain)
	v.inside("ping -c 2 -W 5 -I br0.20 192.168.20.1")
	for vlan, h := range map[int]*lab.Host{10: v.server, 20: v.vault} {
		if out := v.inside(fmt.Sprint("bridge fdb show br br0 vlan ", vlan)); !strings.Contains(out, v.macOf(h, "eth0").String()+" dev eth0") {
			t.Errorf("on VLAN %d the bridge does not know %s:\n%s", vlan, h.Name(), out)
		}
	}
}
