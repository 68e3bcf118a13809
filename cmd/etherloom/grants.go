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

func grantCommand(a *admin) *cobra.Command {
	return group("grant", "Who may use which segment; without a grant nothing passes", grantAdd(a), grantList(a), grantRemove(a))
}

func grantAdd(a *admin) *cobra.Command {
	req := new(v1.AddGrantRequest)
	var expires, direction, mode string
	cmd := &cobra.Command{
		Use: "add --from SELECTOR --to segment:NAME|SELECTOR", Short: "Let machines use a segment, or reach others on it", Args: cobra.NoArgs,
		Long: "Let machines use a segment, or reach others on it.\n\n" +
			"A SELECTOR is node:NAME, label:KEY=VALUE or group:NAME, and of machines behind a gateway host:NAME, and attachment:NODE/PORT for\n" +
			"those there whom nobody named. Who has a grant to a segment is a member of it: members see each other.\n" +
			"Who has a grant to a node reaches that node and sees nothing else; the node sees nobody but those who may reach it.\n\n" +
			"--allow limits what may begin; answers pass. A term is any, ip, tcp, udp, icmp, tcp:PORTS, udp:PORTS (22 or 80,8000-8100),\n" +
			"proto:NUMBER, ethertype:0xNNNN, multicast:ADDRESS[/LENGTH] or broadcast. Without --allow everything may pass; to a node,\n" +
			"everything that is addressed to it alone.",
		Example: "  etherloom grant add --from label:site=a --to segment:lan\n" +
			"  etherloom grant add --from group:dba --to node:db1 --allow tcp:5432 --allow icmp --expires 8h",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.GetFrom() == "" || req.GetTo() == "" {
				return errors.New("say who with --from SELECTOR, such as node:NAME, label:KEY=VALUE, group:NAME or host:NAME, and what with --to segment:NAME or one of those")
			}
			err := neverEmpty(cmd, "when", "expires")
			if err != nil {
				return err
			}
			if req.Both, req.Observe, err = modesOf(direction, mode); err != nil {
				return err
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
			a.noteNobody(cmd, r.GetGrant().GetFrom(), r.GetGrant().GetTo())
			return a.show(cmd, r.GetGrant(), func() error {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "grant %d\n", r.GetGrant().GetId())
				return err
			})
		},
	}
	cmd.Flags().StringVar(&req.From, "from", "", "node:NAME, label:KEY=VALUE, group:NAME, host:NAME or attachment:NODE/PORT")
	cmd.Flags().StringVar(&req.To, "to", "", "segment:NAME, or what --from takes")
	cmd.Flags().StringVar(&req.Segment, "segment", "", "segment on which a grant to nodes holds; default: that of a machine it names, or the only one there is")
	cmd.Flags().StringArrayVar(&req.Allow, "allow", nil, "what may begin, such as tcp:22; may be repeated; default: everything")
	cmd.Flags().StringVar(&direction, "direction", "out", "who may begin: out (the source) or both")
	cmd.Flags().StringVar(&mode, "mode", "enforce", "enforce, or observe: pass nothing and count what would pass")
	cmd.Flags().StringVar(&req.Name, "name", "", "a name for the grant")
	cmd.Flags().StringVar(&req.When, "when", "", "condition, such as 'posture.disk_encrypted' (docs/operations.md): only machines that meet it hold the grant, while they do")
	cmd.Flags().BoolVar(&req.Force, "force", false, "also if a test of the policy fails by it")
	cmd.Flags().StringVar(&expires, "expires", "", "when it ends: a time such as 2030-01-31T18:00:00Z, or how long from now, such as 8h")
	return cmd
}

// neverEmpty refuses a flag that narrows a grant and is given with nothing in it, as by a variable of a script that is not set: without it
// the grant would be wider than was meant.
func neverEmpty(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if f := cmd.Flags().Lookup(name); f.Changed && strings.TrimSpace(f.Value.String()) == "" {
			return fmt.Errorf("--%s is empty: say what it is, or leave it out for a grant without", name)
		}
	}
	return nil
}

// modesOf reads --direction and --mode.
func modesOf(direction, mode string) (both, observe bool, err error) {
	switch {
	case direction != "out" && direction != "both":
		return false, false, fmt.Errorf("--direction is out or both, found %q", direction)
	case mode != "enforce" && mode != "observe":
		return false, false, fmt.Errorf("--mode is enforce or observe, found %q", mode)
	}
	return direction == "both", mode == "observe", nil
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
	return lists(a, "List the grants", rpc.AdminServiceClient.ListGrants, func(cmd *cobra.Command, r *v1.ListGrantsResponse) error {
		var rows [][]string
		for _, g := range r.GetGrants() {
			end := "never"
			if g.GetExpires() != nil {
				end = until(g.GetExpires().AsTime())
			}
			rows = append(rows, []string{fmt.Sprint(g.GetId()), dash(g.GetName()), g.GetFrom(), arrow(g), dash(g.GetSegment()), allowed(g), end, whenText(g), heldBy(g)})
		}
		return table(cmd, "ID NAME FROM TO SEGMENT ALLOW EXPIRES WHEN HELD-BY", rows)
	})
}

// arrow is a grant's target, with what is special about the way there.
func arrow(g *v1.GrantRule) string {
	text := g.GetTo()
	if g.GetBoth() {
		text += " (both ways)"
	}
	if g.GetObserve() {
		text += " (observe)"
	}
	return text
}

func allowed(g *v1.GrantRule) string {
	if len(g.GetAllow()) == 0 {
		return "any"
	}
	return strings.Join(g.GetAllow(), ",")
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
	req := new(v1.RemoveGrantRequest)
	cmd := &cobra.Command{
		Use: "remove ID", Short: "Take a grant away; what it let pass stops at once", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseUint(strings.TrimPrefix(args[0], "grant/"), 10, 32)
			if err != nil {
				return fmt.Errorf("%q is not a grant's number: `etherloom grant list` shows them", args[0])
			}
			req.Id = uint32(id)
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.RemoveGrant, req)
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "grant %s is gone; what it let pass has stopped\n", args[0])
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&req.Force, "force", false, "also if a test of the policy fails by it")
	return cmd
}
