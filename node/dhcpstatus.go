package node

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/etherloom/etherloom/node/dhcpd"
	"github.com/etherloom/etherloom/policy"
)

// DHCP is what `etherloom dhcp` tells of one segment's DHCP service at this gateway.
type DHCP struct {
	Segment string      `json:"segment"`
	Leases  []LeaseLine `json:"leases"`
	Stats   dhcpd.Stats `json:"stats"`
	Overrun uint64      `json:"overrun"` // questions, of all segments, for which there was no room
	Problem string      `json:"problem,omitempty"`
}

// LeaseLine is one address that is leased to a machine behind this gateway.
type LeaseLine struct {
	Address string     `json:"address"`
	MAC     string     `json:"mac"`
	Machine string     `json:"machine"` // host, or NODE/PORT
	Name    string     `json:"name,omitempty"`
	State   string     `json:"state"` // offered, bound, ended
	Ports   []string   `json:"ports"` // of this gateway, behind which it may be
	Expires *time.Time `json:"expires,omitempty"`
}

// DHCP lists the DHCP services that this gateway is a part of, with what is leased behind it.
func (d *Daemon) DHCP() []DHCP {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lessor
	l.mu.Lock()
	defer l.mu.Unlock()
	out := []DHCP{}
	for vni, x := range l.services {
		line := DHCP{Segment: x.name, Leases: []LeaseLine{}, Stats: x.Stats(), Overrun: l.overrun.Load(), Problem: x.Problem(time.Now())}
		leases := slices.SortedFunc(slices.Values(x.Leases()), func(a, b dhcpd.Lease) int { return a.Address.Compare(b.Address) })
		for i := range leases {
			if leases[i].Here != 0 {
				line.Leases = append(line.Leases, d.leaseLineLocked(vni, x, &leases[i]))
			}
		}
		out = append(out, line)
	}
	slices.SortFunc(out, func(a, b DHCP) int { return strings.Compare(a.Segment, b.Segment) })
	return out
}

func (d *Daemon) leaseLineLocked(vni policy.VNI, x *leasing, l *dhcpd.Lease) LeaseLine {
	line := LeaseLine{
		Address: l.Address.String(), MAC: l.MAC.String(), Machine: partyOf(d.contents, l.Machine).Name, Name: l.Name, State: l.Phase.String(), Ports: []string{},
	}
	if at := x.Expires(l); !at.IsZero() {
		line.Expires = &at
	}
	for _, a := range d.contents.Attachments {
		if policy.VNI(a.GetVni()) == vni && d.segments[vni].sw.Policy().IsBehind(l.Machine, policy.Identity(a.GetId())) {
			line.Ports = append(line.Ports, a.GetPort())
		}
	}
	slices.Sort(line.Ports)
	return line
}

// aboutLeases begins the name of what is wrong with a segment's DHCP service.
const aboutLeases = "leases "

func cutAbout(about string) (segment string, is bool) { return strings.CutPrefix(about, aboutLeases) }

// tellProblems tells what is wrong with services, if that is other than what was told before.
func (l *lessor) tellProblems(before map[string]string, now time.Time) {
	l.mu.Lock()
	is := map[string]string{}
	for _, x := range l.services {
		is[x.name] = x.Problem(now)
	}
	l.mu.Unlock()
	maps.DeleteFunc(before, func(name, _ string) bool { _, is := is[name]; return !is }) // its problem went with it
	for name, text := range is {
		if before[name] == text {
			continue
		}
		before[name] = text
		var err error
		if text != "" {
			err = errors.New(text)
		}
		l.d.mu.Lock()
		l.d.problemLocked(aboutLeases+name, err)
		l.d.mu.Unlock()
	}
}

func addrOf4(a [4]byte) netip.Addr { return netip.AddrFrom4(a) }
