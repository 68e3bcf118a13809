package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/etherloom/etherloom/control/controlv1"
	rpc "github.com/etherloom/etherloom/control/controlv1/controlv1connect"
)

func groupCommand(a *admin) *cobra.Command {
	return group("group", "Names for several machines, for grants", groupSet(a), groupList(a), groupRemove(a))
}

func groupSet(a *admin) *cobra.Command {
	req := new(v1.SetGroupRequest)
	cmd := &cobra.Command{
		Use: "set NAME --member SELECTOR", Short: "Make a group, or say anew who is in it",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("who is in a group is said with --member, once for each: `etherloom group set %s --member %s`", args[0], strings.Join(args[1:], " --member "))
			}
			return cobra.ExactArgs(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Name = args[0]
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.SetGroup, req)
			if err != nil {
				return err
			}
			return a.show(cmd, r.GetGroup(), func() error { return groupTable(cmd, []*v1.Group{r.GetGroup()}) })
		},
	}
	cmd.Flags().BoolVar(&req.Force, "force", false, "also if a test of the policy fails by it")
	cmd.Flags().StringArrayVar(&req.Members, "member", nil, "who is in it: node:NAME, label:KEY=VALUE, host:NAME or attachment:NODE/PORT; may be repeated; none: nobody")
	return cmd
}

func groupTable(cmd *cobra.Command, list []*v1.Group) error {
	var rows [][]string
	for _, g := range list {
		rows = append(rows, []string{g.GetName(), dash(strings.Join(g.GetMembers(), ", "))})
	}
	return table(cmd, "NAME MEMBERS", rows)
}

func groupList(a *admin) *cobra.Command {
	return lists(a, "List the groups", rpc.AdminServiceClient.ListGroups, func(cmd *cobra.Command, r *v1.ListGroupsResponse) error {
		return groupTable(cmd, r.GetGroups())
	})
}

func groupRemove(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Remove a group that no grant names", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.RemoveGroup, &v1.RemoveGroupRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "group %s is gone\n", args[0])
				return err
			})
		},
	}
}
