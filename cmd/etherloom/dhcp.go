package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "github.com/etherloom/etherloom/control/controlv1"
	rpc "github.com/etherloom/etherloom/control/controlv1/controlv1connect"
	"github.com/etherloom/etherloom/node"
)

func segmentDHCP(a *admin) *cobra.Command {
	req := new(v1.SetDhcpRequest)
	var enable bool
	var lease time.Duration
	cmd := &cobra.Command{
		Use: "dhcp NAME [--enable | --disable]", Short: "A segment's own DHCP service for machines behind gateways", Args: cobra.ExactArgs(1),
		Long: "Make a segment have a DHCP service, say anew all of what it does, or end it; without --enable and --disable show it and its leases.\n\n" +
			"Each gateway answers the machines on its VLANs of the segment in the name of the service, and their questions go no further. A host\n" +
			"with an IPv4 address is given that one; others are given one of the pool, if there is one. Nobody may use an address of the pool\n" +
			"that is not leased to him.",
		Example: "  etherloom segment dhcp lan --enable --pool 192.0.2.100-192.0.2.199 --router 192.0.2.1 --dns 192.0.2.53",
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Segment = args[0]
			if enable == req.Disable {
				if enable {
					return errors.New("--enable and --disable are both said: choose one")
				}
				for _, name := range []string{"pool", "lease", "router", "dns", "domain"} {
					if cmd.Flags().Changed(name) {
						return fmt.Errorf("--%s says what a service is to do: add --enable", name)
					}
				}
				return showDHCP(cmd, a, args[0])
			}
			if cmd.Flags().Changed("lease") {
				req.Lease = durationpb.New(lease)
			}
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.SetDhcp, req)
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error { return dhcpTable(cmd, args[0], r.GetService()) })
		},
	}
	f := cmd.Flags()
	f.BoolVar(&enable, "enable", false, "make the service, or say anew all of what it does")
	f.BoolVar(&req.Disable, "disable", false, "end the service and all its leases")
	f.StringVar(&req.Pool, "pool", "", "FROM-TO, addresses for those that list none; default: none")
	f.DurationVar(&lease, "lease", time.Hour, "how long a lease lasts")
	f.StringVar(&req.Router, "router", "", "default router that machines are told; default: none")
	f.StringSliceVar(&req.Dns, "dns", nil, "DNS servers that machines are told, at most three; default: none")
	f.StringVar(&req.Domain, "domain", "", "domain that machines are told; default: the network's zone")
	return cmd
}

func dhcpTable(cmd *cobra.Command, segment string, d *v1.DhcpService) error {
	if d == nil {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "segment %s has no DHCP service\n", segment)
		return err
	}
	pool := "-"
	if d.GetPoolFrom() != "" {
		pool = d.GetPoolFrom() + "-" + d.GetPoolTo()
	}
	return table(cmd, "SEGMENT SERVER POOL LEASE ROUTER DNS DOMAIN", [][]string{{
		segment, d.GetServer(), pool, (time.Duration(d.GetLeaseSeconds()) * time.Second).String(), dash(d.GetRouter()),
		dash(strings.Join(d.GetDns(), ",")), dash(d.GetDomain()),
	}})
}

func showDHCP(cmd *cobra.Command, a *admin, segment string) error {
	r, err := call(cmd.Context(), a, rpc.AdminServiceClient.GetDhcp, &v1.GetDhcpRequest{Segment: segment})
	if err != nil {
		return err
	}
	return a.show(cmd, r, func() error {
		if err := dhcpTable(cmd, segment, r.GetService()); err != nil || len(r.GetLeases()) == 0 {
			return err
		}
		var rows [][]string
		for _, l := range r.GetLeases() {
			rows = append(rows, []string{l.GetAddress(), l.GetState(), l.GetMac(), dash(l.GetMachine()), dash(l.GetName()), until(l.GetSince().AsTime())})
		}
		fmt.Fprintln(cmd.OutOrStdout())
		return table(cmd, "ADDRESS STATE MAC MACHINE CALLED SINCE", rows)
	})
}

func dhcpCommand() *cobra.Command {
	return asking("dhcp", "Addresses that the DHCP services have leased to machines behind this gateway", "dhcp", func(cmd *cobra.Command, list []node.DHCP) error {
		var rows [][]string
		for _, s := range list {
			for _, l := range s.Leases {
				ends := "-"
				if l.Expires != nil {
					ends = until(*l.Expires)
				}
				rows = append(rows, []string{l.Address, s.Segment, l.State, l.MAC, l.Machine, dash(l.Name), dash(strings.Join(l.Ports, ",")), ends})
			}
		}
		return table(cmd, "ADDRESS SEGMENT STATE MAC MACHINE CALLED BEHIND EXPIRES", rows)
	})
}
