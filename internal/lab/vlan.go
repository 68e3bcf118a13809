package lab

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// switchBridge is the name of the one bridge of a VLANSwitch.
const switchBridge = "sw0"

// ovsSchema is what the configuration database of Open vSwitch looks like, as its package installs it.
const ovsSchema = "/usr/share/openvswitch/vswitch.ovsschema"

// VLANSwitch is a site's own switch, which knows VLANs and nothing of Etherloom: a host on which Open vSwitch runs, with
// its datapath in user space. It needs Debian's package openvswitch-switch, and no kernel module. It is a switch
// for function: it carries some hundred Mbit/s.
//
//	Host a -- eth0 ==== p1 (access 10) --+
//	Host b -- eth0 ==== p2 (access 20) --+-- sw0    ovs-vswitchd, ovsdb-server: private to the host, gone with it
//	Gateway -- lan ==== p3 (trunk)     --+
//
// It is a learning switch without spanning tree and without multicast snooping until Configure says otherwise, and
// like every one that is none it drops what is sent to the reserved addresses 01:80:c2:00:00:00 to 0f.
type VLANSwitch struct {
	host *Host

	mu    sync.Mutex
	ports map[int]*vlanPort // by number
	basis int               // of the hash of a Bond
}

// vlanPort is a port: the switch's end of a cable.
type vlanPort struct {
	number int
	link   *Link
	mode   PortMode
}

// PortMode is how a port of a VLANSwitch is with VLANs; ovs-vswitchd.conf.db(5), table Port, has the exact meaning.
type PortMode struct {
	Mode     string   // access, trunk, native-tagged, native-untagged, dot1q-tunnel; empty: access with a VLAN, trunk without
	VLAN     uint16   // of what is untagged: of access, native-* and dot1q-tunnel (the outer, of EtherType 0x88a8)
	Trunk    []uint16 // of trunk and native-*: the VLANs that pass; none: all
	Customer []uint16 // of dot1q-tunnel: the inner VLANs that pass; none: all
	Priority string   // which priority tags stay when a frame leaves untagged: no, if-nonzero, always; empty: no
}

// AddVLANSwitch adds a site's switch. Its programs run until the context ends or the switch goes.
func (l *Lab) AddVLANSwitch(ctx context.Context, name string) (*VLANSwitch, error) {
	h, err := l.add(name, (*Host).beVLANSwitch)
	if err != nil {
		return nil, err
	}
	s := &VLANSwitch{host: h, ports: map[int]*vlanPort{}}
	if err := s.start(ctx); err != nil {
		if removeErr := h.Remove(); removeErr != nil {
			err = fmt.Errorf("%w; and %w", err, removeErr)
		}
		return nil, fmt.Errorf("start Open vSwitch on %s (Debian: apt-get install openvswitch-switch): %w", name, err)
	}
	return s, nil
}

// beVLANSwitch runs on the host's thread.
func (h *Host) beVLANSwitch() error {
	for _, conf := range []string{"all", "default"} { // its ports are to say nothing of their own
		if err := writeSysctl("net.ipv6.conf."+conf+".disable_ipv6", "1"); err != nil {
			return err
		}
	}
	return setLinkUp("lo")
}

// start makes the database, and starts both programs in the foreground, so that they are the host's children.
func (s *VLANSwitch) start(ctx context.Context) error {
	if _, err := s.host.Run(ctx, "ovsdb-tool", "create", s.file("conf.db"), ovsSchema); err != nil {
		return err
	}
	run := func(program string, args ...string) error {
		c := s.host.Command(ctx, program, append(args, "-vsyslog:off", "--pidfile="+s.file(program+".pid"), "--unixctl="+s.control(program))...)
		c.Env = append(os.Environ(), "OVS_RUNDIR="+s.host.dir, "OVS_LOGDIR="+s.host.dir, "OVS_DBDIR="+s.host.dir)
		_, err := c.StartLogged()
		return err
	}
	if err := run("ovsdb-server", "--remote=punix:"+s.file("db.sock"), s.file("conf.db")); err != nil {
		return err
	}
	if _, err := s.vsctl(ctx, "--no-wait", "init"); err != nil { // waits for the database, but not for who is not started yet
		return err
	}
	if err := run("ovs-vswitchd", "unix:"+s.file("db.sock")); err != nil {
		return err
	}
	return s.Configure(ctx, "set", "Open_vSwitch", ".", "other_config:vlan-limit=2", "--", // 1 would take an inner tag for payload
		"add-br", switchBridge, "--", "set", "Bridge", switchBridge, "datapath_type=netdev", "fail_mode=standalone")
}

func (s *VLANSwitch) file(name string) string { return filepath.Join(s.host.dir, name) }

func (s *VLANSwitch) control(program string) string { return s.file(program + ".ctl") }

// Host returns the host that is the switch, to capture on its ports or to remove it.
func (s *VLANSwitch) Host() *Host { return s.host }

// Configure runs ovs-vsctl and waits until the switch does what it says. The bridge is sw0; the ports are named as links are.
func (s *VLANSwitch) Configure(ctx context.Context, args ...string) error {
	out, err := s.vsctl(ctx, args...)
	if err == nil && out != "" { // what the switch could not do, ovs-vsctl says with exit code 0
		err = fmt.Errorf("on %s, ovs-vsctl %s: %s", s.host.name, strings.Join(args, " "), strings.TrimSpace(out))
	}
	return err
}

func (s *VLANSwitch) vsctl(ctx context.Context, args ...string) (string, error) {
	return s.host.Run(ctx, "ovs-vsctl", append([]string{"--db=unix:" + s.file("db.sock"), "--retry", "--timeout=20", "-vsyslog:off"}, args...)...)
}

// Access lays a cable to a new port for machines of one VLAN that see no tags. It returns the plugged end; the port is its Peer.
func (s *VLANSwitch) Access(ctx context.Context, p Plug, vlan uint16) (*Link, error) {
	return s.Plug(ctx, p, PortMode{Mode: "access", VLAN: vlan})
}

// Trunk lays a cable to a new port that carries tagged frames, of these VLANs alone or, without any, of all.
func (s *VLANSwitch) Trunk(ctx context.Context, p Plug, vlans ...uint16) (*Link, error) {
	return s.Plug(ctx, p, PortMode{Mode: "trunk", Trunk: vlans})
}

// Tunnel lays a cable to a new port for a customer whose own tags are carried inside one of 802.1ad. Where the outer
// tag leaves the switch, the cable's MTU must be 4 more than the customer's.
func (s *VLANSwitch) Tunnel(ctx context.Context, p Plug, outer uint16) (*Link, error) {
	return s.Plug(ctx, p, PortMode{Mode: "dot1q-tunnel", VLAN: outer})
}

// Plug lays a cable to a new port. The plugged end sends whole packets with checksums (NoOffload): the switch reads them
// from a packet socket and repairs nothing.
func (s *VLANSwitch) Plug(ctx context.Context, p Plug, mode PortMode) (*Link, error) {
	number := s.host.next()
	c, err := s.host.lab.Cable(p, Plug{On: s.host, Name: fmt.Sprintf("p%d", number), MTU: p.MTU})
	if err != nil {
		return nil, err
	}
	if err := c.A.SetOffload(NoOffload); err != nil {
		return nil, err
	}
	port := &vlanPort{number: number, link: c.B, mode: mode}
	if err := s.add(ctx, port); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ports[number] = port
	return c.A, nil
}

// add makes the port of an interface that exists.
func (s *VLANSwitch) add(ctx context.Context, p *vlanPort) error {
	name := p.link.name
	return s.Configure(ctx, append([]string{
		"add-port", switchBridge, name, "--", "set", "Interface", name, "ofport_request=" + strconv.Itoa(p.number), "--",
	}, p.mode.set(name)...)...)
}

// port returns the port to which a cable leads.
func (s *VLANSwitch) port(plugged *Link) (*vlanPort, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.ports {
		if p.link == plugged.peer {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%s is not plugged into %s", plugged, s.host.name)
}

// SetMode changes how the port at the other end of a plugged link is with VLANs.
func (s *VLANSwitch) SetMode(ctx context.Context, plugged *Link, mode PortMode) error {
	p, err := s.port(plugged)
	if err != nil {
		return err
	}
	p.mode = mode
	name := p.link.name
	return s.Configure(ctx, append([]string{
		"clear", "Port", name, "tag", "trunks", "cvlans", "vlan_mode", "other_config", "--",
	}, mode.set(name)...)...)
}

// set is the arguments of ovs-vsctl that give a new port its mode.
func (m PortMode) set(port string) []string {
	if m.Mode == "" {
		m.Mode = "trunk"
		if m.VLAN != 0 {
			m.Mode = "access"
		}
	}
	args := []string{"set", "Port", port, "vlan_mode=" + m.Mode}
	if m.VLAN != 0 {
		args = append(args, fmt.Sprintf("tag=%d", m.VLAN))
	}
	if m.Mode == "dot1q-tunnel" {
		args = append(args, "other_config:qinq-ethtype=802.1ad")
	}
	for _, list := range []struct {
		column string
		vlans  []uint16
	}{{"trunks", m.Trunk}, {"cvlans", m.Customer}} {
		if len(list.vlans) > 0 {
			args = append(args, list.column+"="+strings.Trim(strings.ReplaceAll(fmt.Sprint(list.vlans), " ", ","), "[]"))
		}
	}
	if m.Priority != "" {
		args = append(args, "other_config:priority-tags="+m.Priority)
	}
	return args
}

// Unplug pulls a cable out of the switch: the plugged end loses its carrier, and the switch forgets whom it had learned
// there, as switches do. Open vSwitch does not when only the carrier goes: so the port goes with it.
func (s *VLANSwitch) Unplug(ctx context.Context, plugged *Link) error {
	p, err := s.port(plugged)
	if err != nil {
		return err
	}
	if err := p.link.Down(); err != nil {
		return err
	}
	return s.Configure(ctx, "del-port", switchBridge, p.link.name)
}

// Replug puts a cable that was unplugged back into its port, which is as it was.
func (s *VLANSwitch) Replug(ctx context.Context, plugged *Link) error {
	p, err := s.port(plugged)
	if err != nil {
		return err
	}
	if err := p.link.Up(); err != nil {
		return err
	}
	return s.add(ctx, p)
}

// Ports returns the plugged ends, in the order in which they were plugged.
func (s *VLANSwitch) Ports() []*Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*Link
	for _, n := range slices.Sorted(maps.Keys(s.ports)) {
		out = append(out, s.ports[n].link.peer)
	}
	return out
}
