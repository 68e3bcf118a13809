package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/etherloom/etherloom/control/controlv1"
	rpc "github.com/etherloom/etherloom/control/controlv1/controlv1connect"
	"github.com/etherloom/etherloom/node"
	"github.com/etherloom/etherloom/node/statedir"
)

// gateway is what a command about a gateway's own ports has beside an administrator's.
type gateway struct {
	admin *admin
	local local
}

func (g *gateway) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&g.local.dir, "state-dir", envOr("ETHERLOOM_STATE_DIR", statedir.Default), "state directory of the daemon, for a port of this gateway")
}

// own reports whether a name is that of a port of this gateway, and not one of the network.
func (*gateway) own(name string) bool { return !strings.Contains(name, "/") }

// change asks the daemon for something, and shows the port as it is then.
func (g *gateway) change(cmd *cobra.Command, do func(*node.Local) (*node.AttachmentStatus, error)) error {
	if cmd.Flags().Changed("admin") {
		return errors.New("an administrator's command names NODE/PORT, found a name without NODE, which is that of a port of this machine")
	}
	d, err := g.local.daemon()
	if err != nil && g.admin.file != "" {
		name := cmd.Flags().Arg(0)
		return fmt.Errorf("an administrator's command names NODE/PORT, such as %s/site if %s is a node; found %q, which would be a port of this machine: %w", name, name, name, err)
	}
	if err != nil {
		return err
	}
	a, err := do(d)
	if err != nil {
		return err
	}
	if g.admin.json {
		return printJSON(cmd, struct {
			Schema     int                    `json:"schema"`
			Attachment *node.AttachmentStatus `json:"attachment"`
		}{node.Schema, a})
	}
	return ownTable(cmd, []node.AttachmentStatus{*a})
}

func (g *gateway) list(cmd *cobra.Command) error {
	d, err := g.local.daemon()
	if err != nil {
		return err
	}
	var list []node.AttachmentStatus
	if err := d.Get(cmd.Context(), "attachments", &list); err != nil {
		return err
	}
	if g.admin.json {
		return printJSON(cmd, listing("attachments", list))
	}
	return ownTable(cmd, list)
}

// ownTable has a line for each port, and one for each thing to do about it.
func ownTable(cmd *cobra.Command, list []node.AttachmentStatus) error {
	var rows [][]string
	for _, a := range list {
		link := a.NIC
		if a.Bridge != "" {
			link = "bridge " + a.Bridge
		}
		p := &v1.AttachmentPort{Vlan: uint32(a.VLAN), Native: a.Native, Service: a.Service, Priority: a.Priority} //nolint:gosec // at most 4094
		rows = append(rows, []string{a.Port, a.Segment, link, framesText(p), a.Origin, a.State, dash(a.Moved)})
	}
	if err := table(cmd, "PORT SEGMENT LINK FRAMES BY STATE HOST-ON", rows); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	for _, a := range list {
		if a.Why != "" {
			fmt.Fprintf(out, "%s: %s\n", a.Port, a.Why)
		}
		if a.Until != nil {
			fmt.Fprintf(out, "%s: what this host had on %s is on %s now, and moves back at %s unless you confirm that you still reach it: `etherloom attachment confirm %s`\n",
				a.Port, a.NIC, a.Moved, until(*a.Until), a.Port)
		}
	}
	return nil
}

func attachmentConfirm(a *admin) *cobra.Command {
	gw := &gateway{admin: a}
	cmd := &cobra.Command{
		Use: "confirm NODE/PORT|PORT", Short: "Say that a gateway whose host was moved is still reached, so that it stays so", Args: cobra.ExactArgs(1),
		Example: "  gw1# etherloom attachment confirm site\n  etherloom attachment confirm gw1/site",
		RunE: func(cmd *cobra.Command, args []string) error {
			if gw.own(args[0]) {
				return gw.change(cmd, func(d *node.Local) (*node.AttachmentStatus, error) {
					return d.ChangeAttachment(cmd.Context(), "confirm", node.AttachmentAsk{Port: args[0]})
				})
			}
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.ConfirmAttachment, &v1.ConfirmAttachmentRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error { return attachmentTable(cmd, []*v1.AttachmentRule{r.GetAttachment()}) })
		},
	}
	gw.flags(cmd)
	return cmd
}

func attachmentMove(a *admin) *cobra.Command {
	gw := &gateway{admin: a}
	var confirm time.Duration
	cmd := &cobra.Command{
		Use: "move PORT", Short: "On a gateway: move its host off the NIC once more, after that was not confirmed", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ask := node.AttachmentAsk{Port: args[0]}
			if cmd.Flags().Changed("confirm") {
				ask.Confirm = confirm.String()
			}
			return gw.change(cmd, func(d *node.Local) (*node.AttachmentStatus, error) {
				return d.ChangeAttachment(cmd.Context(), "move", ask)
			})
		},
	}
	gw.flags(cmd)
	cmd.Flags().DurationVar(&confirm, "confirm", 0, "how long to wait for the confirmation; default: as it was asked for")
	return cmd
}
