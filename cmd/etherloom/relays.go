package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/etherloom/etherloom/control/controlv1"
	rpc "github.com/etherloom/etherloom/control/controlv1/controlv1connect"
)

func relayAdminCommand(a *admin) *cobra.Command {
	return group("relay", "Relays, for machines that cannot reach each other", relayAdd(a), relayList(a), relayRemove(a))
}

func relayAdd(a *admin) *cobra.Command {
	req := new(v1.AddRelayRequest)
	cmd := &cobra.Command{
		Use:   "add NAME --host ADDRESS",
		Short: "Tell all machines of a relay, and print its credential, which is a secret",
		Long: "Tell all machines of a relay, and print its credential, which is a secret.\n\nSave it with mode 0600 on the relay's machine, " +
			"and run there: etherloom-controller relay --config FILE",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(req.GetHosts()) == 0 {
				return errors.New("say by which address or name machines reach the relay, with --host")
			}
			req.Name = args[0]
			if req.ProbePort == 0 {
				req.ProbePort = req.GetPort() + 1
			}
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.AddRelay, req)
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), strings.TrimSpace(r.GetCredential()))
				return err
			})
		},
	}
	cmd.Flags().StringArrayVar(&req.Hosts, "host", nil, "address or name by which machines reach it; may be given again")
	cmd.Flags().Uint32Var(&req.Port, "port", 3478, "UDP port of STUN and TURN")
	cmd.Flags().Uint32Var(&req.ProbePort, "probe-port", 0, "UDP port of STUN alone; default: the next one")
	return cmd
}

func relayList(a *admin) *cobra.Command {
	return lists(a, "List the relays", rpc.AdminServiceClient.ListRelays, func(cmd *cobra.Command, r *v1.ListRelaysResponse) error {
		var rows [][]string
		for _, x := range r.GetRelays() {
			rows = append(rows, []string{x.GetName(), strings.Join(x.GetHosts(), ","), fmt.Sprint(x.GetPort()), fmt.Sprint(x.GetProbePort())})
		}
		return table(cmd, "NAME HOSTS PORT PROBE", rows)
	})
}

func relayRemove(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Take a relay away from all machines", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.RemoveRelay, &v1.RemoveRelayRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "relay %s is taken away from all machines\n", args[0])
				return err
			})
		},
	}
}
