package main

import (
	"fmt"

	"github.com/spf13/cobra"

	v1 "github.com/etherloom/etherloom/control/controlv1"
	rpc "github.com/etherloom/etherloom/control/controlv1/controlv1connect"
)

func segmentCommand(a *admin) *cobra.Command {
	return group("segment", "Broadcast domains", segmentAdd(a), segmentList(a), segmentRemove(a), segmentDHCP(a))
}

func segmentAdd(a *admin) *cobra.Command {
	req := new(v1.AddSegmentRequest)
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Make a segment", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Name = args[0]
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.AddSegment, req)
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error { return segmentTable(cmd, []*v1.Segment{r.GetSegment()}) })
		},
	}
	cmd.Flags().StringVar(&req.Ipv4Prefix, "prefix", "", "IPv4 prefix; default: one that is free")
	cmd.Flags().StringVar(&req.Ipv6Prefix, "prefix6", "", "IPv6 prefix, a /64; default: from the network's ULA")
	cmd.Flags().Uint32Var(&req.Mtu, "mtu", 1500, "MTU")
	cmd.Flags().BoolVar(&req.Transparent, "transparent", false, "carry VLAN tags inside it unchanged, at most two")
	return cmd
}

func segmentTable(cmd *cobra.Command, list []*v1.Segment) error {
	var rows [][]string
	for _, s := range list {
		tags := "-"
		if s.GetTransparent() {
			tags = "carried"
		}
		rows = append(rows, []string{s.GetName(), fmt.Sprint(s.GetVni()), s.GetIpv4Prefix(), s.GetIpv6Prefix(), fmt.Sprint(s.GetMtu()), tags})
	}
	return table(cmd, "NAME VNI PREFIX PREFIX6 MTU TAGS", rows)
}

func segmentList(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the segments", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.ListSegments, &v1.ListSegmentsRequest{})
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error { return segmentTable(cmd, r.GetSegments()) })
		},
	}
}

func segmentRemove(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Remove a segment that no grant names", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.RemoveSegment, &v1.RemoveSegmentRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "segment %s is gone\n", args[0])
				return err
			})
		},
	}
}
