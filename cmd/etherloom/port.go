package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etherloom/etherloom/node"
)

func portsCommand() *cobra.Command {
	return asking("ports", "The ports of every segment: TAPs, links and VLANs", "ports", showPorts)
}

func showPorts(cmd *cobra.Command, list []node.Port) error {
	var rows [][]string
	for _, p := range list {
		queues, vlan, nic := "", "", p.NIC
		if p.Queues > 0 {
			queues = strconv.Itoa(p.Queues)
		}
		if p.NIC != "" {
			vlan = vlanName(p.VLAN)
		}
		if p.Bridge != "" {
			nic = "bridge " + p.Bridge
		}
		rows = append(rows, []string{
			p.Port, p.Kind, p.Segment, strconv.Itoa(int(p.VNI)), dash(p.State), dash(p.MAC), dash(strings.Join(p.Addresses, " ")), dash(nic), dash(vlan),
			dash(queues), dash(strings.Join(p.Offloads, " ")),
			fmt.Sprint(p.Stats.RxFrames), fmt.Sprint(p.Stats.TxFrames), fmt.Sprint(p.Stats.RxDropped), fmt.Sprint(p.Stats.Answered),
		})
	}
	if err := table(cmd, "PORT KIND SEGMENT VNI STATE MAC ADDRESSES NIC VLAN QUEUES OFFLOADS RX TX DROPPED ANSWERED", rows); err != nil {
		return err
	}
	for _, p := range list {
		if p.Why != "" {
			fmt.Fprintf(cmd.OutOrStdout(), "%s is %s: %s\n", p.Port, p.State, p.Why)
		}
		if p.Up != nil && !*p.Up {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s is not there, or has no carrier\n", p.Port, p.NIC)
		}
		for _, c := range p.Changed {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", p.Port, c)
		}
	}
	return nil
}

func vlanName(vlan uint16) string {
	if vlan == 0 {
		return "untagged"
	}
	return strconv.Itoa(int(vlan))
}

func portCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "port", Short: "A port of this node: its attributes, faults and neighbours",
		Long: "Ports are called as `etherloom ports` calls them; where two have one name, with the kind in front, as in attached:lan. Attributes that Linux bridges have, too, are called as in bridge(8). " +
			"What is set stays set over restarts.",
	}
	cmd.AddCommand(portShowCommand(), portSetCommand(), portEnableCommand())
	return cmd
}

// onPort is a command about one port, which prints the port as it is then.
func onPort(cmd *cobra.Command, do func(cmd *cobra.Command, d *node.Local, ask node.PortSet, args []string) (*node.PortDetail, error)) *cobra.Command {
	l := new(local)
	var ask node.PortSet
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := l.daemon()
		if err != nil {
			return err
		}
		ask.Port = args[0]
		port, err := do(cmd, d, ask, args[1:])
		if err != nil {
			return err
		}
		if l.json {
			return printJSON(cmd, port)
		}
		return printPort(cmd, port)
	}
	l.flags(cmd)
	cmd.Flags().StringVar(&ask.Segment, "segment", "", "segment of the port, if several have one of that name")
	return cmd
}

func portShowCommand() *cobra.Command {
	return onPort(&cobra.Command{
		Use: "show PORT", Args: cobra.ExactArgs(1), Short: "All of a port", Example: "  etherloom port show lan",
	}, func(cmd *cobra.Command, d *node.Local, ask node.PortSet, _ []string) (*node.PortDetail, error) {
		return d.ShowPort(cmd.Context(), ask)
	})
}

func portSetCommand() *cobra.Command {
	return onPort(&cobra.Command{
		Use: "set PORT KEY=VALUE...", Args: wantsAttribute, Short: "Set attributes of a port",
		Long: "Set attributes of a port. They are\n" +
			"  shut=on|off             it carries nothing\n" +
			"  description=TEXT        for people\n" +
			"  learning=on|off         where its sources are is remembered\n" +
			"  flood, mcast_flood, bcast_flood=on|off\n" +
			"                          frames to unknown addresses, to groups, to everybody go out of it\n" +
			"  isolated=on|off         it exchanges frames only with ports that are neither isolated nor of a community\n" +
			"  community=NAME|none     and with those of its own\n" +
			"  rate_in, rate_out=RATE  bits a second that may enter, or leave, as tc(8) takes them: 10mbit; 0: any number\n" +
			"  burst_in, burst_out=SIZE\n" +
			"                          octets that may come at once: 64k; 0: what suits the rate\n" +
			"  backup_port=PORT|none   to it goes what is for those behind this one while its wire has no carrier\n" +
			"  locked=on|off           machines without a name must have a static entry (`etherloom fdb add`) to send\n" +
			"  guard=on|off            a BPDU disables it\n" +
			"  neigh_suppress=on|off   ARP and neighbour discovery are answered here from what is known\n" +
			"  storm_broadcast, storm_multicast, storm_unknown=N\n" +
			"                          how many such frames may enter in a second; 0: any number\n" +
			"  recovery=DURATION       how long a fault disables it; 0s: until `etherloom port enable`",
		Example: "  etherloom port set lan guard=on storm_broadcast=500\n  etherloom port set lan shut=on description='moved to gw2'",
	}, func(cmd *cobra.Command, d *node.Local, ask node.PortSet, args []string) (*node.PortDetail, error) {
		ask.Set = map[string]string{}
		for _, arg := range args {
			key, value, ok := strings.Cut(arg, "=")
			if !ok {
				return nil, fmt.Errorf("an attribute is set by KEY=VALUE, such as guard=on, found %q", arg)
			}
			if _, twice := ask.Set[key]; twice {
				return nil, fmt.Errorf("%s is set twice: give it one value", key)
			}
			ask.Set[key] = value
		}
		return d.SetPort(cmd.Context(), ask)
	})
}

func wantsAttribute(_ *cobra.Command, args []string) error {
	port := "PORT"
	switch len(args) {
	case 0:
	case 1:
		port = args[0]
	default:
		return nil
	}
	return fmt.Errorf("say of which port, and what to set, such as `etherloom port set %s guard=on`: `etherloom ports` lists the ports, --help the attributes", port)
}

func portEnableCommand() *cobra.Command {
	return onPort(&cobra.Command{
		Use: "enable PORT", Args: cobra.ExactArgs(1), Short: "End the fault that has disabled a port", Example: "  etherloom port enable lan",
	}, func(cmd *cobra.Command, d *node.Local, ask node.PortSet, _ []string) (*node.PortDetail, error) {
		ask.Enable = true
		return d.SetPort(cmd.Context(), ask)
	})
}

func printPort(cmd *cobra.Command, p *node.PortDetail) error {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s of segment %s, %s, %s\n", p.Port.Port, p.Port.Segment, p.Port.Kind, p.Port.State)
	if p.Fault != nil {
		until := "until `etherloom port enable " + p.Port.Port + "`"
		if p.Fault.Until != nil {
			until = "until " + p.Fault.Until.Local().Format("15:04:05") + " or `etherloom port enable " + p.Port.Port + "`"
		}
		fmt.Fprintf(out, "  disabled since %s, %s: %s\n", p.Fault.Since.Local().Format("15:04:05"), until, p.Fault.Reason)
	}
	if p.Port.NIC != "" {
		vlan := vlanName(p.Port.VLAN)
		if p.Port.VLAN != 0 {
			vlan = "VLAN " + vlan
		}
		carrier := "down"
		if p.Port.Up != nil && *p.Port.Up {
			carrier = "up"
		}
		kind := "NIC"
		if p.Port.Bridge != "" {
			kind = "bridge"
		}
		fmt.Fprintf(out, "  %s %s (%s), %s\n", kind, p.Port.NIC, carrier, vlan)
	}
	if p.Backup != "" {
		fmt.Fprintf(out, "  what is for those behind it goes to %s\n", p.Backup)
	}
	if v := p.PrivateVLAN; v != nil {
		place := "of community " + v.Community
		if v.Isolated {
			place = "isolated"
		}
		fmt.Fprintf(out, "  the attachment is %s, at all nodes\n", place)
	}
	if n := p.Neighbour; n != nil {
		fmt.Fprintf(out, "  plugged into %s, port %s (chassis %s), as it says by LLDP\n", dash(n.System), dash(n.Port), dash(n.Chassis))
	}
	printLACP(out, p.LACP)
	s := p.Port.Stats
	fmt.Fprintf(out, "  in  %d frames, %d octets, %d dropped\n  out %d frames, %d octets\n", s.RxFrames, s.RxOctets, s.RxDropped, s.TxFrames, s.TxOctets)
	if s.RxRate+s.TxRate > 0 {
		fmt.Fprintf(out, "  over its rate: %d in, %d out\n", s.RxRate, s.TxRate)
	}
	if p.BPDUs > 0 {
		fmt.Fprintf(out, "  %d BPDUs heard, %d changes of topology\n", p.BPDUs, p.Changes)
	}
	for _, key := range slices.Sorted(maps.Keys(p.Attributes)) {
		fmt.Fprintf(out, "  %s=%s\n", key, p.Attributes[key])
	}
	return nil
}

// printLACP says with whom the NIC is aggregated, or why it is not.
func printLACP(out io.Writer, l *node.PortLACP) {
	if l == nil {
		return
	}
	state := "carries"
	if !l.Carries {
		state = "is not in the aggregation: " + l.Why
	}
	fmt.Fprintf(out, "  by LACP it %s\n    system %s, key %d, port %d: %s\n", state, l.Actor.System, l.Actor.Key, l.Actor.Port, l.Actor.State)
	if l.Partner != nil {
		fmt.Fprintf(out, "    switch %s, key %d, port %d: %s\n", l.Partner.System, l.Partner.Key, l.Partner.Port, l.Partner.State)
	}
}
