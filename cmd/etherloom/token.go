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
)

func tokenCommand(a *admin) *cobra.Command {
	return group("token", "Registration tokens, with which machines join", tokenCreate(a), tokenList(a), tokenRevoke(a))
}

func tokenCreate(a *admin) *cobra.Command {
	var role, site string
	var labels []string
	var uses uint32
	var ttl time.Duration
	var approve bool
	cmd := &cobra.Command{
		Use: "create", Short: "Make a token and print it; it is a secret", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if uses == 0 {
				return errors.New("--uses is 0: a token that no machine may join with is of no use; give 1 or more")
			}
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.CreateToken, &v1.CreateTokenRequest{Role: role, Site: site, Labels: labels, Uses: uses, Ttl: durationpb.New(ttl), Approve: approve})
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error {
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), r.GetToken()); err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "its ID, for `token revoke`, is %s\n", r.GetDescription().GetId())
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&role, "role", "member", "what the machine may be: member, gateway or connector")
	f.StringVar(&site, "site", "", "where the machine is")
	f.StringArrayVar(&labels, "label", nil, "KEY=VALUE, by which grants select it; may be given again")
	f.Uint32Var(&uses, "uses", 1, "how many machines may join with it")
	f.DurationVar(&ttl, "ttl", 3*time.Hour, "how long it is good")
	f.BoolVar(&approve, "approve", false, "machines that join with it wait until an administrator approves them")
	return cmd
}

func tokenList(a *admin) *cobra.Command {
	return lists(a, "List tokens, without their secrets", rpc.AdminServiceClient.ListTokens, func(cmd *cobra.Command, r *v1.ListTokensResponse) error {
		var rows [][]string
		for _, t := range r.GetTokens() {
			state := "good"
			switch {
			case t.GetRevoked():
				state = "revoked"
			case t.GetUsed() >= t.GetUses():
				state = "used up"
			case t.GetExpires().AsTime().Before(time.Now()):
				state = "expired"
			case t.GetLocked():
				state = "locked"
			}
			rows = append(rows, []string{
				t.GetId(), t.GetRole(), dash(t.GetSite()), dash(strings.Join(t.GetLabels(), ",")),
				fmt.Sprintf("%d/%d", t.GetUsed(), t.GetUses()), until(t.GetExpires().AsTime()), state,
			})
		}
		return table(cmd, "ID ROLE SITE LABELS USED EXPIRES STATE", rows)
	})
}

func tokenRevoke(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "Make a token useless", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.RevokeToken, &v1.RevokeTokenRequest{Id: args[0]})
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "token %s is useless now\n", args[0])
				return err
			})
		},
	}
}
