package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/etherloom/etherloom/control/controlv1"
	rpc "github.com/etherloom/etherloom/control/controlv1/controlv1connect"
)

func hostCommand(a *admin) *cobra.Command {
	return group("host", "Machines behind gateways that have a name", hostAdd(a), hostSet(a), hostList(a), hostRemove(a))
}

func hostAdd(a *admin) *cobra.Command {
	req := new(v1.AddHostRequest)
	cmd := &cobra.Command{
		Use: "add NAME --mac MAC --attachment NODE/PORT", Short: "Name a machine behind a gateway, and pin its MAC", Args: cobra.ExactArgs(1),
		Long: "Name a machine behind a gateway, and pin its MAC: nobody else may use it on the segment.\n\n" +
			"From then on it is host:NAME, and what the attachment may do by its grants is no longer its own. Without --address it may use every\n" +
			"address that is nobody's; with it, those and no others, and nobody else may use them.",
		Example: "  etherloom host add printer --mac 02:00:5e:00:53:01 --attachment gw1/site --address 192.0.2.9/24",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := wantsMAC(req.GetMac(), "", args[0]); err != nil {
				return err
			}
			req.Name = args[0]
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.AddHost, req)
			if err != nil {
				return err
			}
			a.noteOutside(cmd, r.GetHost())
			return a.show(cmd, r, func() error { return hostTable(cmd, []*v1.HostRule{r.GetHost()}) })
		},
	}
	hostFlags(cmd, &req.Mac, &req.Attachments, &req.Addresses, &req.Roles)
	return cmd
}

func wantsMAC(mac, more, name string) error {
	if mac == "" {
		return fmt.Errorf("say which MAC %s has with --mac, such as --mac 02:00:5e:00:53:01%s", name, more)
	}
	return nil
}

// hostFlags say what a host is.
func hostFlags(cmd *cobra.Command, mac *string, attachments, addresses, roles *[]string) {
	cmd.Flags().StringVar(mac, "mac", "", "its MAC")
	cmd.Flags().StringArrayVar(attachments, "attachment", nil, "NODE/PORT behind which it may be; may be repeated")
	cmd.Flags().StringArrayVar(addresses, "address", nil, "ADDRESS/LENGTH that it may use; may be repeated; default: any that is nobody's")
	cmd.Flags().StringArrayVar(roles, "role", nil, "what it may be for others: dhcp-server, router or querier; may be repeated")
}

func hostSet(a *admin) *cobra.Command {
	req := new(v1.SetHostRequest)
	cmd := &cobra.Command{
		Use: "set NAME --mac MAC --attachment NODE/PORT", Short: "Say anew all of a host but its name; grants that name it stay", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			const anew = ", and all else that is to stay, for it is said anew: --attachment, --address, --role; `etherloom host list` shows what is said now"
			if err := wantsMAC(req.GetMac(), anew, args[0]); err != nil {
				return err
			}
			if len(req.GetAttachments()) == 0 {
				return errors.New("say behind which attachment it is with --attachment NODE/PORT" + anew)
			}
			req.Name = args[0]
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.SetHost, req)
			if err != nil {
				return err
			}
			a.noteOutside(cmd, r.GetHost())
			return a.show(cmd, r, func() error { return hostTable(cmd, []*v1.HostRule{r.GetHost()}) })
		},
	}
	hostFlags(cmd, &req.Mac, &req.Attachments, &req.Addresses, &req.Roles)
	return cmd
}

func hostTable(cmd *cobra.Command, list []*v1.HostRule) error {
	return table(cmd, "NAME IDENTITY SEGMENT MAC ADDRESSES ROLES ATTACHMENTS GATEWAYS", hostRows(list))
}

func hostRows(list []*v1.HostRule) [][]string {
	var rows [][]string
	for _, h := range list {
		addresses := strings.Join(h.GetAddresses(), ",")
		if addresses == "" {
			addresses = "any"
		}
		rows = append(rows, []string{
			h.GetName(), fmt.Sprint(h.GetId()), h.GetSegment(), h.GetMac(), addresses, dash(strings.Join(h.GetRoles(), ",")),
			dash(strings.Join(h.GetAttachments(), ",")), dash(strings.Join(h.GetGateways(), ",")),
		})
	}
	return rows
}

func hostList(a *admin) *cobra.Command {
	return lists(a, "List the hosts; GATEWAYS are those that are active", rpc.AdminServiceClient.ListHosts, func(cmd *cobra.Command, r *v1.ListHostsResponse) error {
		return hostTable(cmd, r.GetHosts())
	})
}

func hostRemove(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Remove a host that nothing names; its MAC is nobody's then", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.RemoveHost, &v1.RemoveHostRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "host %s is gone; a machine with its MAC is one that nobody named\n", args[0])
				return err
			})
		},
	}
}
