package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Aggregate has the switch treat its ports to gateways as one static link aggregation, over which a machine has a VLAN: a frame of the
// machine's goes to one of them, by its flow, of those whose cable has a carrier; and what a gateway sends goes to the machine alone, not to
// the other gateways. The machine and the gateways are all that hang on the switch from then on.
//
//	machine -- p1 +-- group: one of --+ p2 -- gateway
//	              |                   + p3 -- gateway
//
// Open vSwitch's own aggregations need a partner that takes part (Bond), or drop what is for many on all cables but one.
func (s *VLANSwitch) Aggregate(ctx context.Context, machine *Link, vlan uint16, gateways ...*Link) error {
	at, err := s.port(machine)
	if err != nil {
		return err
	}
	const fields = "eth_src,eth_dst,ip_src,ip_dst,ipv6_src,ipv6_dst,tcp_src,tcp_dst,udp_src,udp_dst"
	group, from := "group_id=1,type=select,selection_method=hash,fields("+fields+")", []string{"table=0,priority=0,actions=drop"}
	for _, g := range gateways {
		p, err := s.port(g)
		if err != nil {
			return err
		}
		group += fmt.Sprintf(",bucket=weight:100,watch_port:%d,actions=output:%d", p.number, p.number)
		from = append(from, fmt.Sprintf("table=0,priority=10,in_port=%d,dl_vlan=%d,actions=strip_vlan,output:%d", p.number, vlan, at.number))
	}
	const present = 0x1000 // OFPVID_PRESENT
	from = append(from, fmt.Sprintf("table=0,priority=10,in_port=%d,actions=push_vlan:0x8100,set_field:%d->vlan_vid,group:1", at.number, present|int(vlan)))
	// A trunk or an access port would add or refuse tags of its own.
	for _, l := range append([]*Link{machine}, gateways...) {
		if err := s.SetMode(ctx, l, PortMode{Mode: "trunk"}); err != nil {
			return err
		}
	}
	for _, args := range [][]string{{"del-flows"}, {"del-groups"}, {"add-group", group}} {
		if err := s.openflow(ctx, args...); err != nil {
			return err
		}
	}
	for _, f := range from {
		if err := s.openflow(ctx, "add-flow", f); err != nil {
			return err
		}
	}
	return nil
}

// Bond makes the switch's ports to gateways one link aggregation by LACP, of Open vSwitch's own: active, with short timeouts, and a hash of
// addresses and ports. What is otherwise on the switch stays as it is.
func (s *VLANSwitch) Bond(ctx context.Context, name string, vlan uint16, gateways ...*Link) error {
	var remove, names, numbers []string
	for _, g := range gateways {
		p, err := s.port(g)
		if err != nil {
			return err
		}
		remove = append(remove, "del-port", switchBridge, p.link.name, "--")
		names = append(names, p.link.name)
		numbers = append(numbers, "--", "set", "Interface", p.link.name, fmt.Sprintf("ofport_request=%d", p.number))
	}
	args := slices.Concat(remove, []string{"add-bond", switchBridge, name}, names, []string{
		"lacp=active", "bond_mode=balance-tcp", "other_config:lacp-time=fast", "other_config:bond-rebalance-interval=0",
		"vlan_mode=trunk", fmt.Sprint("trunks=", vlan),
	}, numbers)
	return s.Configure(ctx, args...)
}

// Rehash has the switch distribute all flows over a Bond anew. By itself Open vSwitch leaves a flow on a cable as long as that is in use, and
// moves some only when it has far more to carry than the others.
func (s *VLANSwitch) Rehash(ctx context.Context, name string) error {
	s.mu.Lock()
	s.basis++
	basis := s.basis
	s.mu.Unlock()
	return s.Configure(ctx, "set", "Port", name, fmt.Sprint("other_config:bond-hash-basis=", basis))
}

// openflow runs ovs-ofctl on the switch's bridge.
func (s *VLANSwitch) openflow(ctx context.Context, args ...string) error {
	all := append([]string{"-O", "OpenFlow15", args[0], "unix:" + s.file(switchBridge+".mgmt")}, args[1:]...)
	out, err := s.host.Run(ctx, "ovs-ofctl", all...)
	if err != nil {
		return fmt.Errorf("on %s, ovs-ofctl %s: %w", s.host.name, strings.Join(args, " "), err)
	}
	if out != "" {
		return fmt.Errorf("on %s, ovs-ofctl %s: %s", s.host.name, strings.Join(args, " "), strings.TrimSpace(out))
	}
	return nil
}
