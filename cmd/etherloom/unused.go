package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/etherloom/etherloom/control/controlv1"
	rpc "github.com/etherloom/etherloom/control/controlv1/controlv1connect"
)

func policyUnused(a *admin) *cobra.Command {
	var days int
	cmd := &cobra.Command{
		Use: "unused", Short: "List the grants that have let nothing pass for some days", Args: cobra.NoArgs,
		Long: "List the grants that have let nothing pass for some days, and are older than that. What nobody uses can be removed: see\n" +
			"`etherloom grant remove`. Nodes tell within a minute what they use; after a controller has restarted, it knows the day.\n" +
			"With --days 0, the grants that have never let anything pass, however new they are.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if days < 0 {
				return errors.New("--days is a number of days, 0 or more")
			}
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.ListGrants, &v1.ListGrantsRequest{})
			if err != nil {
				return err
			}
			r.Grants = unused(r.GetGrants(), days, time.Now())
			return a.show(cmd, r, func() error {
				var rows [][]string
				for _, g := range r.GetGrants() {
					last := "never"
					if g.GetLastUsed() != nil {
						last = until(g.GetLastUsed().AsTime())
					}
					rows = append(rows, []string{fmt.Sprint(g.GetId()), dash(g.GetName()), g.GetFrom(), arrow(g), until(g.GetCreated().AsTime()), last})
				}
				return table(cmd, "ID NAME FROM TO CREATED USED", rows)
			})
		},
	}
	cmd.Flags().IntVar(&days, "days", 30, "for how many days; 0: never")
	return cmd
}

// unused are the grants that were made, and used last, more than some days ago; with 0 days those never used. Controllers keep
// days, so days are compared.
func unused(list []*v1.GrantRule, days int, now time.Time) (out []*v1.GrantRule) {
	const day = 24 * time.Hour
	since := now.UTC().Truncate(day).Add(-time.Duration(days) * day)
	for _, g := range list {
		never := g.GetLastUsed() == nil
		idle := never || g.GetLastUsed().AsTime().Truncate(day).Before(since)
		if days == 0 && never || days > 0 && idle && g.GetCreated().AsTime().Truncate(day).Before(since) {
			out = append(out, g)
		}
	}
	return out
}
