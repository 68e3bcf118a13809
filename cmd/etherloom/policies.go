package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/etherloom/etherloom/control/controlv1"
	rpc "github.com/etherloom/etherloom/control/controlv1/controlv1connect"
)

func segmentCommand(a *admin) *cobra.Command {
	return group("segment", "Broadcast domains", segmentAdd(a), segmentList(a), segmentRemove(a))
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
	return cmd
}

func segmentTable(cmd *cobra.Command, list []*v1.Segment) error {
	var rows [][]string
	for _, s := range list {
		rows = append(rows, []string{s.GetName(), fmt.Sprint(s.GetVni()), s.GetIpv4Prefix(), s.GetIpv6Prefix(), fmt.Sprint(s.GetMtu())})
	}
	return table(cmd, "NAME VNI PREFIX PREFIX6 MTU", rows)
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

func grantCommand(a *admin) *cobra.Command {
	return group("grant", "Who may use which segment; without a grant nothing passes", grantAdd(a), grantList(a), grantRemove(a))
}

func grantAdd(a *admin) *cobra.Command {
	req := new(v1.AddGrantRequest)
	var expires string
	cmd := &cobra.Command{
		Use: "add --from node:NAME|label:KEY=VALUE --to segment:NAME", Short: "Let machines use a segment", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.GetFrom() == "" || req.GetTo() == "" {
				return errors.New("say who with --from node:NAME or --from label:KEY=VALUE, and what with --to segment:NAME")
			}
			if expires != "" {
				at, err := parseExpiry(expires, time.Now())
				if err != nil {
					return err
				}
				req.Expires = timestamppb.New(at)
			}
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.AddGrant, req)
			if err != nil {
				return err
			}
			return a.show(cmd, r.GetGrant(), func() error {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "grant %d\n", r.GetGrant().GetId())
				return err
			})
		},
	}
	cmd.Flags().StringVar(&req.From, "from", "", "node:NAME or label:KEY=VALUE")
	cmd.Flags().StringVar(&req.To, "to", "", "segment:NAME")
	cmd.Flags().StringVar(&req.When, "when", "", "condition, such as 'posture.disk_encrypted' (docs/operations.md): only machines that meet it hold the grant, while they do")
	cmd.Flags().StringVar(&expires, "expires", "", "when it ends: a time such as 2030-01-31T18:00:00Z, or how long from now, such as 8h")
	return cmd
}

// parseExpiry reads a time, or a duration from now.
func parseExpiry(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		if d <= 0 {
			return time.Time{}, fmt.Errorf("expires: %q is not in the future", s)
		}
		return now.Add(d), nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("expires: %q is neither a time such as 2030-01-31T18:00:00Z nor a duration such as 8h", s)
	}
	if !at.After(now) {
		return time.Time{}, fmt.Errorf("expires: %s is not in the future", s)
	}
	return at, nil
}

func grantList(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the grants", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.ListGrants, &v1.ListGrantsRequest{})
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error {
				var rows [][]string
				for _, g := range r.GetGrants() {
					end := "never"
					if g.GetExpires() != nil {
						end = until(g.GetExpires().AsTime())
					}
					rows = append(rows, []string{fmt.Sprint(g.GetId()), g.GetFrom(), g.GetTo(), end, whenText(g), heldBy(g)})
				}
				return table(cmd, "ID FROM TO EXPIRES WHEN HELD-BY", rows)
			})
		},
	}
}

// whenText is a grant's condition, on one line.
func whenText(g *v1.GrantRule) string { return dash(strings.Join(strings.Fields(g.GetWhen()), " ")) }

// heldBy says which machines meet a grant's condition now.
func heldBy(g *v1.GrantRule) string {
	switch list := g.GetHolders(); {
	case g.GetWhen() == "":
		return "all"
	case len(list) == 0:
		return "nobody"
	case len(list) > 5:
		return fmt.Sprintf("%s and %d more", strings.Join(list[:5], ","), len(list)-5)
	default:
		return strings.Join(list, ",")
	}
}

func grantRemove(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "remove ID", Short: "Take a grant away; what it let pass stops at once", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseUint(strings.TrimPrefix(args[0], "grant/"), 10, 32)
			if err != nil {
				return fmt.Errorf("%q is not a grant's number: `etherloom grant list` shows them", args[0])
			}
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.RemoveGrant, &v1.RemoveGrantRequest{Id: uint32(id)})
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "grant %s is gone; what it let pass has stopped\n", args[0])
				return err
			})
		},
	}
}
