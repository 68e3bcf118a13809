package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/internal/atomicfile"
	vswitch "github.com/etherloom/etherloom/switch"
)

// PortSet asks to change attributes of a port.
type PortSet struct {
	Port    string            `json:"port"`    // as `etherloom ports` calls it
	Segment string            `json:"segment"` // none: the only one that has such a port
	Set     map[string]string `json:"set"`     // by name, as Attributes.Set takes them
	Enable  bool              `json:"enable"`  // end a fault
}

// PortDetail is what `etherloom port show` tells of a port.
type PortDetail struct {
	Schema     int               `json:"schema"`
	Port       Port              `json:"port"`
	Attributes map[string]string `json:"attributes"`
	Fault      *PortFault        `json:"fault,omitempty"`
	Forwarder  *PortForwarder    `json:"forwarder,omitempty"` // of an attached port
	LACP       *PortLACP         `json:"lacp,omitempty"`      // of an attached port whose gateways speak it
	Neighbour  *PortNeighbour    `json:"neighbour,omitempty"` // that LLDP has told of
	BPDUs      uint64            `json:"bpdus"`
	Changes    uint64            `json:"topology_changes"`

	PrivateVLAN *PortPrivateVLAN `json:"private_vlan,omitempty"` // that the signed state gives those behind an attached port
	Backup      string           `json:"backup,omitempty"`       // the port to which goes what is for those behind it, now that it has no carrier
}

// PortPrivateVLAN is where in a private VLAN the machines behind a port are, for all nodes.
type PortPrivateVLAN struct {
	Isolated  bool   `json:"isolated"`
	Community string `json:"community,omitempty"`
}

// SetPort changes attributes of a port, and keeps them over restarts.
func (d *Daemon) SetPort(r PortSet) (*PortDetail, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, p, err := d.onePortLocked(r.Segment, r.Port)
	if err != nil {
		return nil, err
	}
	a := p.Attributes()
	for _, key := range slices.Sorted(maps.Keys(r.Set)) {
		if err := a.Set(key, r.Set[key]); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(suits(p, a), s.suits(p, a)); err != nil {
		return nil, fmt.Errorf("port %s: %w", r.Port, err)
	}
	if len(r.Set) > 0 {
		next := maps.Clone(d.portValues)
		next[portKey(s, p)] = d.kept(portKey(s, p), a)
		if err := d.savePorts(next); err != nil {
			return nil, err
		}
		d.portValues = next
		s.sw.SetAttributes(p, a)
		if a.Shut {
			s.sw.Forget(p, time.Now()) // so that other nodes look for its machines elsewhere
		}
		d.sentinel.wake() // a port that is shut leaves the site's link aggregation
		d.log.Info("port was set by command", "segment", s.name, "port", s.portName(p), "set", r.Set)
	}
	if r.Enable {
		p.Enable()
		d.log.Info("port was enabled by command", "segment", s.name, "port", s.portName(p))
	}
	return d.portDetailLocked(s, p), nil
}

// suits refuses attributes that do nothing on a port of this kind.
func suits(p *vswitch.Port, a vswitch.Attributes) error {
	switch {
	case a.Isolated && a.Community != "":
		return errors.New("it is isolated or of a community, not both: set isolated=off, or community=none")
	case a.BackupPort != "" && p.Kind != vswitch.Attached:
		return errors.New("only a port onto a VLAN has a wire that loses its carrier: set backup_port on the ports of gateways")
	case a.Locked && p.Kind == vswitch.Link:
		return errors.New("it is a link: what comes over it is proven by its session, so there is nothing to lock")
	case a.Locked && p.Kind == vswitch.Local:
		return errors.New("it leads to this machine, whose MAC the signed state names, so there is nothing to lock")
	case a.Guard && p.Kind == vswitch.Link:
		return errors.New("it is a link: nodes carry no BPDUs to each other, so there is nothing to guard; set guard=on on the ports of gateways")
	case a.NeighSuppress && p.Kind == vswitch.Link:
		return errors.New("it is a link: each node answers the questions of its own machines; set neigh_suppress=on on their ports")
	}
	return nil
}

// suits refuses a backup port that is none. One that is to come later is named when it is there.
func (s *segment) suits(p *vswitch.Port, a vswitch.Attributes) error {
	name := a.BackupPort
	if name == "" || name == p.Attributes().BackupPort {
		return nil
	}
	found := s.portsNamed(name)
	switch {
	case len(found) == 0:
		return fmt.Errorf("backup_port: %w", noPort(name, "segment "+s.name))
	case len(found) > 1:
		return fmt.Errorf("backup_port: segment %s has %d ports that are called %s: put the kind in front, as in link:%s", s.name, len(found), name, name)
	case found[0] == p:
		return errors.New("backup_port is another port than this")
	case found[0].Kind == vswitch.Local:
		return errors.New("backup_port leads to this machine alone: name a port onto a VLAN, or a link")
	}
	return nil
}

// kept is what is kept of a port: what is not as by default, and what a newer version has set and this one does not know.
func (d *Daemon) kept(key string, a vswitch.Attributes) map[string]string {
	out := changed(a)
	for name, value := range d.portValues[key] {
		if scratch := vswitch.DefaultAttributes(); scratch.Set(name, value) != nil {
			out[name] = value
		}
	}
	return out
}

// changed are the attributes that are not as they are by default.
func changed(a vswitch.Attributes) map[string]string {
	values := a.Values()
	for key, value := range vswitch.DefaultAttributes().Values() {
		if values[key] == value {
			delete(values, key)
		}
	}
	return values
}

// portKey names a port over restarts. A TAP may have another name then; a segment has but one. A peer and an attachment may have the
// same.
func portKey(s *segment, p *vswitch.Port) string {
	if p.Kind == vswitch.Local {
		return s.name + "/" + p.Kind.String()
	}
	return s.name + "/" + p.Kind.String() + ":" + p.Name
}

// onePortLocked finds a port by name.
func (d *Daemon) onePortLocked(segmentName, name string) (*segment, *vswitch.Port, error) {
	list, err := d.segmentsMeantLocked(segmentName)
	if err != nil {
		return nil, nil, err
	}
	var s *segment
	var p *vswitch.Port
	for _, in := range list {
		at, err := in.onePort(name)
		if err != nil {
			return nil, nil, err
		}
		if at != nil && p != nil {
			return nil, nil, fmt.Errorf("segments %s and %s both have a port %s: choose with --segment", s.name, in.name, name)
		}
		if at != nil {
			s, p = in, at
		}
	}
	if p == nil {
		return nil, nil, noPort(name, "this node")
	}
	return s, p, nil
}

// onePort finds the segment's port of a name; nil if there is none.
func (s *segment) onePort(name string) (*vswitch.Port, error) {
	found := s.portsNamed(name)
	if len(found) == 0 {
		return nil, nil //nolint:nilnil // another segment may have it
	}
	if len(found) > 1 {
		var kinds []string
		for _, p := range found {
			kinds = append(kinds, p.Kind.String()+":"+name)
		}
		return nil, fmt.Errorf("segment %s has %d ports that are called %s: say which by %s", s.name, len(found), name, strings.Join(kinds, " or "))
	}
	return found[0], nil
}

// dressLocked gives a new port the attributes that were set on it before.
func (d *Daemon) dressLocked(s *segment, p *vswitch.Port) {
	a := p.Attributes()
	for key, value := range d.portValues[portKey(s, p)] {
		if err := a.Set(key, value); err != nil {
			d.log.Warn("an attribute that was set on a port is not known to this version", "segment", s.name, "port", p.Name, "err", err)
		}
	}
	p.SetAttributes(a)
}

// portsFile is what is kept of ports.
type portsFile struct {
	Schema int                          `json:"schema"`
	Ports  map[string]map[string]string `json:"ports"` // by segment and port; values by attribute
}

func (d *Daemon) loadPorts() error {
	d.portValues = map[string]map[string]string{}
	path := d.dir.Path("ports.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var f portsFile
	err = json.Unmarshal(data, &f)
	if err == nil && f.Schema != Schema {
		err = fmt.Errorf("expected schema %d, found %d", Schema, f.Schema)
	}
	if err != nil {
		return fmt.Errorf("%s, which holds what `etherloom port set` has set, cannot be read: correct it, or move it away and set it anew: %w", path, err)
	}
	if f.Ports != nil {
		d.portValues = f.Ports
	}
	return nil
}

func (d *Daemon) savePorts(values map[string]map[string]string) error {
	maps.DeleteFunc(values, func(_ string, set map[string]string) bool { return len(set) == 0 })
	data, err := json.MarshalIndent(portsFile{Schema, values}, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(d.dir.Path("ports.json"), append(data, '\n'), 0o600)
}

// ShowPort tells all of a port.
func (d *Daemon) ShowPort(r PortSet) (*PortDetail, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, p, err := d.onePortLocked(r.Segment, r.Port)
	if err != nil {
		return nil, err
	}
	return d.portDetailLocked(s, p), nil
}

func (d *Daemon) portDetailLocked(s *segment, p *vswitch.Port) *PortDetail {
	out := &PortDetail{Schema: Schema, Port: s.portLine(p), Attributes: p.Attributes().Values()}
	if f := p.Fault(time.Now()); f != nil {
		out.Fault = faultLine(f)
	}
	if a, is := p.Egress().(*attachment); is {
		out.Forwarder, out.LACP = d.sentinel.state(a, time.Now()), d.sentinel.aggregation(a)
		if backup := s.sw.Backup(p); backup != nil && !a.trunk.wire.Up() {
			out.Backup = s.portName(backup)
		}
	}
	if m := d.machineOf(p); m.GetSecondary() != nil {
		out.PrivateVLAN = &PortPrivateVLAN{m.GetSecondary().GetIsolated(), m.GetSecondary().GetCommunity()}
	}
	n, bpdus, changes := p.Heard()
	out.BPDUs, out.Changes = bpdus, changes
	out.Neighbour = neighbourLine(n, time.Now())
	return out
}

// machineOf is what is told of those behind an attached port whom nobody named; nil of other ports.
func (d *Daemon) machineOf(p *vswitch.Port) *controlv1.Machine {
	if p.Kind != vswitch.Attached || d.contents == nil {
		return nil
	}
	return d.contents.Machines[transportID(p.Identity)]
}

func (d *Daemon) localPorts(mux *http.ServeMux) {
	mux.HandleFunc("POST /port/set", answering(d.SetPort))
	mux.HandleFunc("POST /port/show", answering(d.ShowPort))
}
