package node

import (
	"fmt"
	"maps"
	"slices"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// ordinaryMTU is that of a segment for which nobody has said another, in bytes.
const ordinaryMTU = 1500

// place is the segment that a question is about.
type place struct {
	vni  policy.VNI
	name string
	seg  *controlv1.Segment
	view *policy.View
	here *segment // nil if this node does not carry it
}

func (d *Daemon) self() policy.Identity { return policy.Identity(d.member.ID) }

// placeOf is a segment that the state names.
func (q *question) placeOf(vni policy.VNI) place {
	p := place{vni: vni, seg: q.d.contents.Segments[uint32(vni)], here: q.d.segments[vni]}
	p.name = p.seg.GetName()
	if p.here != nil {
		p.view = p.here.sw.Policy()
	} else {
		p.view = q.d.viewsLocked()[vni]
	}
	return p
}

// switchOf is a node's switch, and the port through which the frame enters it: this node's own, which carries frames, or one that is
// built like another's.
func (q *question) switchOf(node policy.Identity) (*vswitch.Segment, *vswitch.Port, error) {
	by := q.carrier(q.from)
	if node != q.d.self() {
		sw, ports := q.elsewhere(node)
		return sw, q.entrance(node, ports), nil
	}
	here := q.on.here
	if here == nil {
		if len(q.on.view.Neighbours(node, q.now)) > 0 {
			return nil, nil, fmt.Errorf("this node may use segment %s but does not carry it, so nothing passes: %s",
				q.on.name, firstOr(q.d.problems["segment "+q.on.name], "`etherloom status` says why"))
		}
		sw, ports := q.elsewhere(node)
		return sw, q.entrance(node, ports), nil
	}
	if by == node && q.from.machine {
		port, err := q.entry(q.from)
		return here.sw, port, err
	}
	if by == node {
		return here.sw, here.local, q.noPort(q.from)
	}
	if port := (*here.links.Load())[by]; port != nil {
		return here.sw, port, nil
	}
	name := q.from.name
	if by != q.from.id {
		name = q.member(by).name
	}
	return nil, nil, fmt.Errorf("this node has no link to %s on segment %s, so nothing comes from there: `etherloom status` says why", name, q.on.name)
}

// entrance is the port of another node through which the frame enters its switch.
func (q *question) entrance(node policy.Identity, ports map[policy.Identity]*vswitch.Port) *vswitch.Port {
	by := q.carrier(q.from)
	if by != node || !q.from.machine {
		return ports[by]
	}
	for _, a := range q.on.view.Station(q.from.id).Attachments {
		if ports[a] != nil {
			return ports[a]
		}
	}
	return ports[node] // never: a machine is behind one of its gateway's attachments
}

func firstOr(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// elsewhere builds the switch of another node as far as this one knows it: the same policy, a link to every node that it has to do with,
// a port for every attachment, and every station's address seen where it belongs. It carries nothing.
func (q *question) elsewhere(node policy.Identity) (*vswitch.Segment, map[policy.Identity]*vswitch.Port) {
	mtu := int(q.on.seg.GetMtu())
	if q.on.seg == nil {
		mtu = ordinaryMTU // of a segment of which nothing is known
	}
	sw := vswitch.NewSegment(q.on.vni, node, mtu, fdb.Limits{})
	sw.SetTransparent(q.on.seg.GetTransparent())
	ports := map[policy.Identity]*vswitch.Port{node: vswitch.NewPort("host", vswitch.Local, node, nil)}
	for _, id := range q.behind(node) {
		ports[id] = vswitch.NewPort(q.member(id).name, vswitch.Attached, id, nil)
	}
	for _, id := range append(q.on.view.Links(node, q.now), q.carrier(q.from)) {
		if ports[id] == nil {
			ports[id] = vswitch.NewPort(q.member(id).name, vswitch.Link, id, nil)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(ports)) {
		port := ports[id]
		sw.AddPort(port)
		if st := q.on.view.Station(id); st != nil && st.MAC != (ether.MAC{}) {
			sw.FDB().Learn(st.MAC, vswitch.Place{Port: port, Who: id}, q.now)
		}
	}
	sw.SetPolicy(q.on.view, q.now)
	// Where one is whom nobody named, nobody but his gateway can say.
	if port := ports[q.to.id]; q.to.unnamed() && port != nil {
		sw.FDB().Learn(q.to.mac, vswitch.Place{Port: port, Who: q.to.id}, q.now)
	}
	return sw, ports
}

// behind lists the attachments of a node, as far as this one is told of machines that are behind them.
func (q *question) behind(node policy.Identity) (out []policy.Identity) {
	for _, id := range q.on.view.Own(node) {
		if st := q.on.view.Station(id); st != nil && id != node {
			out = append(out, st.Attachments...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
