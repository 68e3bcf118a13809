package node

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// This file is about machines behind gateways in a question: who they are, where they are, and by which port what they send comes in.

// machines lists those on the question's segment of whom this node is told, by number.
func (q *question) machines() (out []party) {
	for _, id := range slices.Sorted(maps.Keys(q.d.contents.Machines)) {
		if policy.VNI(q.d.contents.Machines[id].GetVni()) == q.on.vni {
			out = append(out, q.member(policy.Identity(id)))
		}
	}
	return out
}

// unnamed reports whether the party is all those behind an attachment whom nobody named, or one of them.
func (p party) unnamed() bool { return p.machine && ether.MAC(p.station.GetMac()) == (ether.MAC{}) }

// selector is how a grant names the party.
func (p party) selector() string {
	switch {
	case p.unnamed():
		return "attachment:" + p.name
	case p.machine:
		return "host:" + p.name
	}
	return "node:" + p.name
}

// attachmentNamed finds those behind an attachment whom nobody named, by NODE/PORT of any of its ports that this node is told of.
func (q *question) attachmentNamed(name string) (party, bool) {
	for _, p := range q.machines() {
		if p.unnamed() && p.name == name {
			return q.locate(p), true
		}
	}
	port, own := strings.CutPrefix(name, q.d.member.Name+"/")
	for id, a := range q.d.contents.Attachments {
		if own && a.GetPort() == port && policy.VNI(a.GetVni()) == q.on.vni {
			p := q.member(policy.Identity(id))
			return q.locate(p), p.machine
		}
	}
	return party{}, false
}

// seen finds a machine by a MAC that was seen on the segment.
func (q *question) seen(mac ether.MAC) (party, bool) {
	if q.on.here != nil {
		if at, ok := q.on.here.sw.FDB().Lookup(mac, q.now); ok {
			if p := q.member(at.Who); p.machine {
				p.mac = mac
				return q.locate(p), true
			}
		}
	}
	for _, p := range q.machines() {
		for _, l := range q.leases(p) {
			if ether.MAC(l.GetMac()) == mac {
				p.mac = mac
				return q.locate(p), true
			}
		}
	}
	return party{}, false
}

// heard finds a machine by an IP address: one that it has leased, or that was heard of it.
func (q *question) heard(a netip.Addr) (party, bool) {
	for _, p := range q.machines() {
		for _, l := range q.leases(p) {
			if addr4(l.GetAddress()) == a {
				p.mac = ether.MAC(l.GetMac())
				return q.locate(p), true
			}
		}
	}
	if q.on.here != nil {
		if mac, who, ok := q.on.here.sw.Knows(a.As16(), q.now); ok {
			if p := q.member(who); p.machine {
				p.mac = mac
				return q.locate(p), true
			}
		}
	}
	return party{}, false
}

// leases are those of a machine that stand on the segment.
func (q *question) leases(p party) (out []*controlv1.Lease) {
	for _, l := range q.d.contents.Leases[transportID(p.id)] {
		if policy.VNI(l.GetVni()) == q.on.vni && l.GetState() == controlv1.LeaseState_LEASE_STATE_BOUND {
			out = append(out, l)
		}
	}
	return out
}

// locate says where this node has seen a machine, and which addresses it has leased or were heard of it. The port of those whom nobody named is the
// attachment's, if this node has it.
func (q *question) locate(p party) party {
	p.spoke = nil
	for _, l := range q.leases(p) {
		if p.unnamed() && ether.MAC(l.GetMac()) == p.mac { // a host's are among those that it may use
			p.spoke = append(p.spoke, addr4(l.GetAddress()))
		}
	}
	if !p.machine || q.on.here == nil {
		return p
	}
	if at, ok := q.on.here.sw.FDB().Lookup(p.mac, q.now); ok && at.Who == p.id {
		p.at = at.Port
	}
	if p.at == nil && p.unnamed() {
		for _, port := range q.attachedHere() {
			if port.Identity == p.id {
				p.at = port
			}
		}
	}
	p.spoke = append(p.spoke, q.on.here.sw.Heard(p.mac, q.now)...)
	return p
}

// attachedHere lists this node's ports onto VLANs of the segment.
func (q *question) attachedHere() (out []*vswitch.Port) {
	if q.on.here == nil {
		return nil
	}
	for _, port := range q.on.here.sw.Ports() {
		if port.Kind == vswitch.Attached {
			out = append(out, port)
		}
	}
	return out
}

// carrier is the node by which a party's frames go: itself, or the gateway behind which a machine is.
func (q *question) carrier(p party) policy.Identity {
	if !p.machine {
		return p.id
	}
	gateways, self := q.on.view.Gateways(p.id), q.d.self()
	switch {
	case p.at != nil && p.at.Kind == vswitch.Attached, slices.Contains(gateways, self) && (p.at == nil || !slices.Contains(gateways, p.at.Identity)):
		return self
	case p.at != nil && slices.Contains(gateways, p.at.Identity):
		return p.at.Identity
	case len(gateways) > 0:
		return gateways[0]
	}
	return 0
}

// entry is the port of this node by which a machine's frames come in.
func (q *question) entry(p party) (*vswitch.Port, error) {
	if p.at != nil && p.at.Kind == vswitch.Attached {
		return p.at, nil
	}
	for _, port := range q.attachedHere() {
		if q.on.view.IsBehind(p.id, port.Identity) {
			return port, nil
		}
	}
	return nil, fmt.Errorf("this node has no port onto the VLAN of %s on segment %s now, so nothing comes in there: `etherloom attachment list` says why", p.name, q.on.name)
}

// sender says who sends a frame that is given, if nobody has said it: this host, or a machine behind one of this gateway's ports.
func (q *question) sender(data []byte) (party, error) {
	self, ports := q.member(q.d.self()), q.attachedHere()
	f, err := ether.Parse(data)
	if err != nil || len(ports) == 0 || self.station != nil && f.Src == self.mac {
		return self, q.noPort(self)
	}
	if p, ok := q.whose(f.Src); ok && q.carrier(p) == q.d.self() {
		return p, nil
	}
	if self.station != nil {
		return self, nil
	}
	if len(ports) == 1 {
		p := q.member(ports[0].Identity)
		p.mac, p.at, p.guessed = f.Src, ports[0], true
		return p, nil
	}
	var names []string
	for _, port := range ports {
		names = append(names, q.d.member.Name+"/"+port.Name)
	}
	slices.Sort(names)
	return party{}, fmt.Errorf("segment %s has no TAP here, and %s was seen on none of its ports: say by which it comes in, with --from and one of %s",
		q.on.name, f.Src, strings.Join(names, ", "))
}

// noPort refuses a question about what this host sends where it has no TAP: nothing comes from it.
func (q *question) noPort(from party) error {
	if from.id == q.d.self() && q.on.here != nil && q.on.here.local == nil {
		return fmt.Errorf("segment %s has no TAP here, for this node is only a gateway of it, so its host sends nothing: name with --from a machine behind it, "+
			"or one of its ports as NODE/PORT (`etherloom ports`)", q.on.name)
	}
	return nil
}

// whose says which machine has a MAC.
func (q *question) whose(mac ether.MAC) (party, bool) {
	if id := q.on.view.Owner(mac); id != 0 {
		p := q.locate(q.member(id))
		return p, p.machine
	}
	return q.seen(mac)
}

// speaker says who of those behind a gateway, or an attachment, has sent a frame that is given.
func (q *question) speaker(p party, data []byte) party {
	f, err := ether.Parse(data)
	if err != nil || p.id == 0 || p.id == q.d.self() {
		return p
	}
	owner := q.on.view.Owner(f.Src)
	if owner == 0 || owner == p.id || p.machine && !q.on.view.IsBehind(owner, p.id) || !p.machine && !q.on.view.MaySpeak(p.id, owner) {
		if p.unnamed() {
			p.mac = f.Src
		}
		return p
	}
	at := p.at
	if p = q.locate(q.member(owner)); at != nil {
		p.at = at
	}
	return p
}

// stranded gives one of those whom nobody named a MAC, if none was asked for: that of one who was seen, or one that is nobody's.
func (q *question) stranded(p party) party {
	if !p.unnamed() || p.mac != (ether.MAC{}) {
		return p
	}
	if q.on.here != nil {
		for _, e := range q.on.here.sw.FDB().Entries(q.now) {
			if e.Port.Who == p.id {
				p.mac = e.MAC
				q.note("of those behind %s, the one with MAC %s is meant: name another by its address", p.name, p.mac)
				return q.locate(p)
			}
		}
	}
	p.mac = madeUp(p.id)
	q.note("none of those behind %s is known here, so one is made up, with MAC %s: name another by its address", p.name, p.mac)
	return p
}

// madeUp is a MAC that nobody has, for one behind an attachment.
func madeUp(id policy.Identity) ether.MAC {
	return ether.MAC{2, 0, byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)}
}

// isMachine reports whether an identity is that of machines.
func isMachine(c *state.Contents, id policy.Identity) bool { return c.Machines[transportID(id)] != nil }
