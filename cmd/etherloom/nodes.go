package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/etherloom/etherloom/control/controlv1"
	rpc "github.com/etherloom/etherloom/control/controlv1/controlv1connect"
)

func nodeCommand(a *admin) *cobra.Command {
	status := func(use, short string, to v1.NodeStatus, message bool) *cobra.Command {
		return nodeStatus(a, use, short, to, message)
	}
	return group("node", "The machines of the network",
		nodeList(a), nodeShow(a),
		status("approve NAME", "Let a machine in that waits for approval", v1.NodeStatus_NODE_STATUS_ACTIVE, false),
		nodeLock(a), nodeUnlock(a), nodeLocks(a),
		status("remove NAME", "Cut a machine off for ever; its name becomes free", v1.NodeStatus_NODE_STATUS_REMOVED, true),
		nodeAddress(a), nodeRole(a))
}

func listNodes(cmd *cobra.Command, a *admin, name string) (*v1.ListNodesResponse, error) {
	return call(cmd.Context(), a, rpc.AdminServiceClient.ListNodes, &v1.ListNodesRequest{Name: name})
}

func statusName(s v1.NodeStatus) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "NODE_STATUS_"))
}

func nodeList(a *admin) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the machines", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := listNodes(cmd, a, "")
			if err != nil {
				return err
			}
			if !all {
				r.Nodes = slices.DeleteFunc(r.GetNodes(), func(n *v1.Node) bool { return n.GetStatus() == v1.NodeStatus_NODE_STATUS_REMOVED })
			}
			return a.show(cmd, r, func() error {
				var rows [][]string
				for _, n := range r.GetNodes() {
					online := "-"
					if n.GetOnline() {
						online = "online"
					}
					rows = append(rows, []string{
						n.GetName(), fmt.Sprint(n.GetId()), dash(n.GetSite()), statusText(n), online,
						strings.Join(n.GetRoles(), ","), dash(strings.Join(n.GetLabels(), ",")), until(n.GetCertificateExpires().AsTime()),
					})
				}
				return table(cmd, "NAME ID SITE STATUS ONLINE ROLES LABELS CERTIFICATE", rows)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "removed machines, too")
	return cmd
}

func nodeShow(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Everything about one machine", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := listNodes(cmd, a, args[0])
			if err != nil {
				return err
			}
			if len(r.GetNodes()) == 0 {
				return fmt.Errorf("no machine is called %q: `etherloom node list` shows those there are", args[0])
			}
			n := r.GetNodes()[0]
			for _, other := range r.GetNodes() { // a name may be another machine's after one was removed
				if other.GetStatus() != v1.NodeStatus_NODE_STATUS_REMOVED {
					n = other
				}
			}
			return a.show(cmd, n, func() error { return showNode(cmd, n) })
		},
	}
}

// statusText is a machine's status, and by what and until when it is locked.
func statusText(n *v1.Node) string {
	s := statusName(n.GetStatus())
	if len(n.GetLocks()) == 0 {
		return s
	}
	var by []string
	for _, l := range n.GetLocks() {
		by = append(by, l.GetTarget())
	}
	if n.GetLockedUntil() != nil {
		s += " until " + until(n.GetLockedUntil().AsTime())
	}
	return s + " (" + strings.Join(by, ", ") + ")"
}

func showNode(cmd *cobra.Command, n *v1.Node) error {
	rows := [][]string{
		{"name", n.GetName()},
		{"identity", fmt.Sprint(n.GetId())},
		{"site", dash(n.GetSite())},
		{"status", statusName(n.GetStatus())},
		{"message", dash(n.GetMessage())},
		{"locked by", dash(lockNames(n.GetLocks()))},
		{"online", fmt.Sprint(n.GetOnline())},
		{"roles", strings.Join(n.GetRoles(), ", ")},
		{"labels", dash(strings.Join(n.GetLabels(), ", "))},
		{"enrolled", until(n.GetEnrolled().AsTime())},
		{"certificate", fmt.Sprintf("serial %s, until %s", n.GetCertificateSerial(), until(n.GetCertificateExpires().AsTime()))},
		{"X25519 key", base64.RawURLEncoding.EncodeToString(n.GetStaticKey())},
		{"Ed25519 key", base64.RawURLEncoding.EncodeToString(n.GetSignKey())},
		{"agent", dash(n.GetAgent())},
	}
	for _, s := range n.GetStations() {
		mode := strings.ToLower(strings.TrimPrefix(s.GetMode().String(), "ADDRESS_MODE_"))
		text := fmt.Sprintf("MAC %s, %s: %s", macText(s.GetMac()), mode, dash(strings.Join(s.GetAddresses(), " ")))
		if len(s.GetRoles()) > 0 {
			text += "; " + strings.Join(s.GetRoles(), ", ")
		}
		rows = append(rows, []string{fmt.Sprintf("segment %d", s.GetVni()), text})
	}
	if n.GetPosture() != nil {
		rows = append(rows, []string{"posture", "received " + until(n.GetPostureReceived().AsTime())})
		rows = append(rows, postureRows(n.GetPosture(), "posture ")...)
	}
	return table(cmd, "WHAT VALUE", rows)
}

func macText(b []byte) string {
	var parts []string
	for _, x := range b {
		parts = append(parts, fmt.Sprintf("%02x", x))
	}
	return strings.Join(parts, ":")
}

func nodeStatus(a *admin, use, short string, to v1.NodeStatus, withMessage bool) *cobra.Command {
	var message string
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.SetNodeStatus, &v1.SetNodeStatusRequest{Name: args[0], Status: to, Message: message})
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is %s\n", args[0], statusText(r.GetNode()))
				return err
			})
		},
	}
	if withMessage {
		cmd.Flags().StringVar(&message, "message", "", "why; the machine is told")
	}
	return cmd
}

func nodeAddress(a *admin) *cobra.Command {
	var segment, mode string
	var addrs []string
	cmd := &cobra.Command{
		Use: "address NAME --segment SEGMENT --mode auto|static|dhcp|none [--address A/LEN]...", Short: "Say how a machine gets its addresses on a segment",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, ok := v1.AddressMode_value["ADDRESS_MODE_"+strings.ToUpper(mode)]
			if !ok || m == 0 {
				return fmt.Errorf("mode %q is not auto, static, dhcp or none", mode)
			}
			if v1.AddressMode(m) == v1.AddressMode_ADDRESS_MODE_STATIC && len(addrs) == 0 {
				return fmt.Errorf("say which addresses %s has with --address, such as `etherloom node address %s --segment %s --mode static --address 192.0.2.9/24`",
					args[0], args[0], segment)
			}
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.SetNodeAddress, &v1.SetNodeAddressRequest{Name: args[0], Segment: segment, Mode: v1.AddressMode(m), Addresses: addrs})
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error { return showNode(cmd, r.GetNode()) })
		},
	}
	cmd.Flags().StringVar(&segment, "segment", "lan", "the segment")
	cmd.Flags().StringVar(&mode, "mode", "auto", "auto: the controller allocates; static: as given; dhcp: from a server on the segment; none: no IP")
	cmd.Flags().StringArrayVar(&addrs, "address", nil, "ADDRESS/LENGTH, for static; may be given again")
	return cmd
}

func nodeRole(a *admin) *cobra.Command {
	var segment string
	var add, remove []string
	cmd := &cobra.Command{
		Use: "role NAME --segment SEGMENT [--add ROLE]... [--remove ROLE]...", Short: "Say what a machine may be for others on a segment",
		Long: `Say what a machine may be for others on a segment, beside a host:

  dhcp-server  answers DHCP clients of either family, or relays for them
  router       advertises itself, redirects, and sends from addresses beyond the segment
  querier      asks for listeners to multicast groups, and speaks with multicast routers

Without its role, a machine's frames of these kinds are refused at both ends.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(add)+len(remove) == 0 {
				return errors.New("say which role with --add ROLE or --remove ROLE: dhcp-server, router or querier")
			}
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.SetNodeRoles, &v1.SetNodeRolesRequest{Name: args[0], Segment: segment, Add: add, Remove: remove})
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error { return showNode(cmd, r.GetNode()) })
		},
	}
	cmd.Flags().StringVar(&segment, "segment", "lan", "the segment")
	cmd.Flags().StringArrayVar(&add, "add", nil, "dhcp-server, router or querier; may be given again")
	cmd.Flags().StringArrayVar(&remove, "remove", nil, "a role that it shall not have; may be given again")
	return cmd
}
