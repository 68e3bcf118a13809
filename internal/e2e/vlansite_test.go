package e2e

import (
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
)

// quiet is how long nothing further must come before what came is judged.
const quiet = 300 * time.Millisecond

// vlanSwitch adds the switch of a site that has VLANs.
func (r *rig) vlanSwitch(name string) *lab.VLANSwitch {
	r.Helper()
	sw, err := r.Lab.AddVLANSwitch(r.ctx, name)
	r.ok(err)
	return sw
}

// machine adds a host that knows nothing of Etherloom, on a VLAN of a switch by its interface eth0. Without addresses it
// says nothing by itself.
func (r *rig) machine(sw *lab.VLANSwitch, name string, vlan uint16, addrs ...string) *lab.Host {
	r.Helper()
	h, err := r.Lab.AddHost(name)
	r.ok(err)
	if len(addrs) == 0 {
		r.ok(h.Sysctl("net.ipv6.conf.default.disable_ipv6", "1"))
	}
	_, err = sw.Access(r.ctx, lab.Plug{On: h, Name: "eth0", Addrs: addrs}, vlan)
	r.ok(err)
	return h
}

// trunk lays a cable between a switch and a NIC of a machine, for these VLANs.
func (r *rig) trunk(sw *lab.VLANSwitch, h *lab.Host, nic string, vlans ...uint16) *lab.Link {
	r.Helper()
	l, err := sw.Trunk(r.ctx, lab.Plug{On: h, Name: nic}, vlans...)
	r.ok(err)
	return l
}

// arrivals captures what comes in at an interface of a host.
func (r *rig) arrivals(h *lab.Host, dev string) *lab.Capture {
	r.Helper()
	c, err := h.CaptureArrivals(dev)
	r.ok(err)
	return c
}

// travel sends a train and fails the test unless exactly as many frames of it come to each capture as are wanted there.
// The head is what the frames shall have there.
func (r *rig) travel(from *lab.Host, dev string, t lab.Train, wants ...want) {
	r.Helper()
	if _, err := from.SendTrain(r.ctx, dev, t); err != nil {
		r.Fatal(err)
	}
	for _, w := range wants {
		a, err := w.at.AwaitTrain(r.ctx, t, w.head, quiet)
		r.ok(err)
		if err := a.Exactly(w.count); err != nil {
			r.Errorf("from %s/%s, at %s: %v", from.Name(), dev, w.who, err)
		}
	}
}

// want is how many frames of a train shall come to a place, and with which head.
type want struct {
	who   string
	at    *lab.Capture
	head  []byte
	count int
}

// The site itself, before any gateway: its switch carries each VLAN's frames to a gateway's NIC with their tag, and those with a
// tag to the VLAN's machines.
func TestSiteWithoutGateway(t *testing.T) {
	r := newRig(t)
	_, gw := r.unstarted("gw", lab.PortPreserving)
	sw := r.vlanSwitch("switch")
	camera, door, other := r.machine(sw, "camera", 10), r.machine(sw, "door", 10), r.machine(sw, "other", 20)
	r.trunk(sw, gw.Host, "lan", 10, 20)
	atLAN, atDoor, atOther := r.arrivals(gw.Host, "lan"), r.arrivals(door, "eth0"), r.arrivals(other, "eth0")
	back := r.arrivals(camera, "eth0")

	plain := ethernet(broadcast(), []byte{2, 0, 0, 0, 0, 1}, lab.Experimental)
	tagged := lab.Ethernet(broadcast(), []byte{2, 0, 0, 0, 0, 1}, lab.Experimental, lab.Tag{VLAN: 10})
	r.travel(camera, "eth0", lab.NewTrain(plain, 500, time.Millisecond),
		want{"the gateway", atLAN, tagged, 500}, want{"door", atDoor, plain, 500}, want{"other", atOther, plain, 0}, want{"camera", back, plain, 0})
	tagged = lab.Ethernet(broadcast(), []byte{2, 0, 0, 0, 0, 9}, lab.Experimental, lab.Tag{VLAN: 20})
	plain = ethernet(broadcast(), []byte{2, 0, 0, 0, 0, 9}, lab.Experimental)
	r.travel(gw.Host, "lan", lab.NewTrain(tagged, 500, time.Millisecond),
		want{"other", atOther, plain, 500}, want{"door", atDoor, plain, 0}, want{"the gateway", atLAN, tagged, 0})
}
