package node

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/etherloom/etherloom/bridge"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

// plugged is a gateway with a NIC lan0 and a bridge br0 in the present namespace.
func plugged(t *testing.T) (*Daemon, *site) {
	t.Helper()
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}, PeerName: "far0"}))
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}))
	s := newSite(t)
	d := s.daemon()
	cert := *d.cert.Load()
	cert.Roles = append(cert.Roles, identity.RoleGateway)
	d.cert.Store(&cert)
	t.Cleanup(d.stop)
	return d, s
}

// attached is what a gateway is told that has an attachment on a NIC or a bridge.
func (s *site) attached(to device) told {
	return told{version: 1, resources: []*controlv1.Resource{
		netSettings(), self(),
		{Kind: &controlv1.Resource_Segment{Segment: &controlv1.Segment{Vni: 1, Name: "lan", Mtu: 1500}}},
		signedPort(20, "lan", func(a *controlv1.Attachment) { a.Declared, a.Nic, a.Bridge = false, to.nic, to.bridge }),
	}}
}

// A wire that cannot be made is tried again, and less and less often: each attempt makes and removes a TAP, of which the kernel tells, and that is no
// reason for the next one.
func TestWireIsTriedAgain(t *testing.T) {
	elsewhere(t, func() {
		d, s := plugged(t)
		link, err := netlink.LinkByName("br0")
		must(t, err)
		must(t, netlink.LinkSetMTU(link, 65535)) // which no TAP can have
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		notices := 0
		must(t, bridge.Monitor(ctx, func() {
			if notices++; notices == 1 {
				must(t, d.take(s.delta(s.attached(device{bridge: "br0"}))))
			}
			d.hostChanged()
			d.mu.Lock()
			d.again.Stop() // it would run on a thread elsewhere
			d.mu.Unlock()
		}))
		d.mu.Lock()
		defer d.mu.Unlock()
		a := d.attempts["bridge br0"]
		if text := d.problems["bridge br0"]; !strings.Contains(text, "set MTU") || a == nil || a.wait != againFirst || notices < 2 || notices > 6 {
			t.Errorf("after 2.5 s, with %d notices: problem %q, attempt %+v", notices, text, a)
		}
		must(t, netlink.LinkSetMTU(link, 1500))
		a.next = time.Now().Add(time.Minute)
		d.applyTrunksLocked()
		if len(d.trunks) != 0 {
			t.Error("it is tried before its time")
		}
		d.again.Stop()
		a.next = time.Now()
		d.applyTrunksLocked() // what the timer does, on this thread
		if len(d.trunks) != 1 || len(d.attempts) != 0 || d.problems["bridge br0"] != "" {
			t.Errorf("when nothing is in the way there are %d wires, attempts %v, problems %v", len(d.trunks), d.attempts, d.problems)
		}
	})
}

// A NIC that was not there, or that the host needed, is taken at once when that has changed: also while an attempt of before has it wait.
func TestRefusedIsNotFailed(t *testing.T) {
	elsewhere(t, func() {
		d, s := plugged(t)
		link, err := netlink.LinkByName("lan0")
		must(t, err)
		addr, err := netlink.ParseAddr("192.0.2.2/24")
		must(t, err)
		must(t, netlink.AddrAdd(link, addr))
		must(t, d.take(s.delta(s.attached(device{nic: "lan0"}))))
		if len(d.trunks) != 0 || len(d.attempts) != 0 || !strings.Contains(d.problems["nic lan0"], "has the address") {
			t.Fatalf("attempts %v, problems %v", d.attempts, d.problems)
		}
		d.failedLocked("nic lan0", errTest, time.Now())
		d.hostChanged()
		if !strings.Contains(d.problems["nic lan0"], "has the address") {
			t.Errorf("while it waits for another attempt the problem is %q", d.problems["nic lan0"])
		}
		must(t, netlink.AddrDel(link, addr))
		d.hostChanged()
		if len(d.trunks) != 1 {
			t.Errorf("it is not taken: %v", d.problems)
		}
	})
}

// A segment whose TAP could not be made is tried again by itself, until nobody wants it.
func TestSegmentIsTriedAgain(t *testing.T) {
	s := newSite(t)
	d := s.daemon()
	d.cfg.TAP.Name = "no/tap"
	t.Cleanup(d.stop)
	here := told{version: 1, resources: []*controlv1.Resource{
		netSettings(), self(station(1, 7, none)),
		{Kind: &controlv1.Resource_Segment{Segment: &controlv1.Segment{Vni: 1, Name: "lan", Mtu: 1500}}},
		{Kind: &controlv1.Resource_Grant{Grant: &controlv1.Grant{Id: 1, Vni: 1, Sources: []uint32{selfID}}}},
	}}
	must(t, d.take(s.delta(here)))
	eventually(t, "it is tried a second time", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		a := d.attempts["segment lan"]
		return a != nil && a.wait == 2*againFirst && d.problems["segment lan"] != ""
	})
	must(t, d.take(s.delta(told{version: 2, resources: here.resources[:2]})))
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.attempts) != 0 {
		t.Errorf("nobody wants it, and it is tried again: %v", d.attempts)
	}
}

// What fails is tried after a second, then after twice as long each time, up to half a minute.
func TestAttemptsGetSeldom(t *testing.T) {
	d := &Daemon{attempts: map[string]*attempt{}}
	now := time.Now()
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		d.failedLocked("x", errTest, now)
		if a := d.attempts["x"]; a.wait != want*time.Second || !a.next.Equal(now.Add(a.wait)) {
			t.Errorf("it is tried again after %v, want %v s", a.wait, want)
		}
	}
}
