package node

import (
	"maps"
	"slices"
	"strings"
)

// attachedKey is portKey's of an attached port.
func attachedKey(segment, port string) string { return segment + "/attached:" + port }

// forgetPortsLocked forgets what was set on ports of attachments that the controllers have removed: attributes and mirrors. One that is
// added again under the name is another port, on another VLAN perhaps. A port whose NIC is gone, or whose segment could not be opened, is
// not removed; nor is anything while the node is locked, or not known to be complete, since it is told nothing then. What was set on
// links and TAPs stays in any case: they come and go with grants and with locks of others.
func (d *Daemon) forgetPortsLocked() {
	if !d.contents.Self.GetComplete() {
		return
	}
	there := map[string]bool{}
	for _, a := range d.contents.Attachments {
		if seg := d.contents.Segments[a.GetVni()]; seg != nil {
			there[attachedKey(seg.GetName(), a.GetPort())] = true
		}
	}
	gone := func(key string) bool {
		_, port, _ := strings.Cut(key, "/")
		return strings.HasPrefix(port, "attached:") && !there[key]
	}
	next := maps.Clone(d.portValues)
	maps.DeleteFunc(next, func(key string, _ map[string]string) bool { return gone(key) })
	if len(next) < len(d.portValues) {
		if err := d.savePorts(next); err != nil {
			d.log.Error("what was set on ports that are gone is not forgotten", "err", err)
			return
		}
		d.portValues = next
	}
	if slices.ContainsFunc(d.mirrors, func(m *mirror) bool { return gone(m.key) }) {
		left := slices.DeleteFunc(slices.Clone(d.mirrors), func(m *mirror) bool { return gone(m.key) })
		if err := d.replaceMirrorsLocked(left); err != nil {
			d.log.Error("mirrors of ports that are gone are not forgotten", "err", err)
		}
	}
}
