package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "github.com/etherloom/etherloom/control/controlv1"
	rpc "github.com/etherloom/etherloom/control/controlv1/controlv1connect"
	"github.com/etherloom/etherloom/node"
)

// attachmentCommand has an administrator's commands, which name NODE/PORT, and those of a gateway about its own ports, which name PORT.
func attachmentCommand(a *admin) *cobra.Command {
	return group("attachment", "Segments' places on VLANs that exist: NODE/PORT by an administrator, PORT on a gateway by itself",
		attachmentAdd(a), attachmentSet(a), attachmentList(a), attachmentRemove(a), attachmentConfirm(a), attachmentMove(a))
}

func attachmentAdd(a *admin) *cobra.Command {
	req, private, confirm := new(v1.AddAttachmentRequest), new(privateFlags), node.DefaultConfirm
	gw := &gateway{admin: a}
	cmd := &cobra.Command{
		Use: "add NODE/PORT|PORT --segment NAME --nic IF", Short: "Bridge a segment to a VLAN at a gateway", Args: cobra.ExactArgs(1),
		Long: "Bridge a segment to a VLAN at a gateway: a node that joined with a token of role gateway.\n\n" +
			"An administrator names NODE/PORT. On the gateway itself, PORT alone asks its daemon, which has it signed by the controllers; it gives " +
			"nobody anything by itself. Adding a port of its own again changes it.\n\n" +
			"The machines behind it whom nobody named are one party, attachment:NODE/PORT, and may do nothing until a grant says so.\n" +
			"`etherloom host add` names one, and pins its MAC. With --with, two gateways on the same VLAN are ports of one attachment.\n\n" +
			"A NIC by which the gateway itself is reached is taken with --move-host: what it has there, addresses and routes, moves to a bridge, br-NIC, and " +
			"moves back by itself unless `etherloom attachment confirm` says in time that the gateway is still reached.",
		Example: "  etherloom attachment add gw1/site --segment lan --nic eth1 --vlan 10\n" +
			"  etherloom attachment add gw2/site --with gw1/site --nic eth1 --vlan 10\n" +
			"  etherloom grant add --from attachment:gw1/site --to segment:lan\n" +
			"  gw1# etherloom attachment add site --segment lan --nic eth0 --vlan 10 --move-host --confirm 60s",
		RunE: func(cmd *cobra.Command, args []string) error {
			if gw.own(args[0]) {
				if req.Redundancy != "" || req.Lacp != "" {
					return errors.New("--redundancy and --lacp are an administrator's: they are about all gateways of an attachment; name NODE/PORT, and the credential")
				}
				if req.With != "" {
					return errors.New("--with is an administrator's: a gateway cannot put itself beside another one; name NODE/PORT, and the credential")
				}
				if private.secondary() != nil {
					return errors.New("a private VLAN is an administrator's: a gateway cannot say from whom its machines are kept apart; name NODE/PORT, and the credential")
				}
				return gw.change(cmd, func(d *node.Local) (*node.AttachmentStatus, error) {
					return d.AddAttachment(cmd.Context(), declarationOf(args[0], req, confirm))
				})
			}
			req.Name, req.Secondary, req.Confirm = args[0], private.secondary(), durationpb.New(confirm)
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.AddAttachment, req)
			if err != nil {
				return err
			}
			a.noteUngranted(cmd, r.GetAttachment())
			return a.show(cmd, r, func() error { return attachmentTable(cmd, []*v1.AttachmentRule{r.GetAttachment()}) })
		},
	}
	gw.flags(cmd)
	cmd.Flags().StringVar(&req.Segment, "segment", "", "the segment")
	portFlags(cmd, &req.Nic, &req.Bridge, &req.Vlan, &req.Native, &req.Service, &req.Priority, &req.Preference)
	moveFlags(cmd, &req.MoveHost, &confirm)
	redundancyFlags(cmd, &req.Redundancy, &req.Lacp)
	cmd.Flags().StringVar(&req.With, "with", "", "NODE/PORT of an attachment to the same VLAN, of which this becomes a further port")
	private.add(cmd)
	return cmd
}

// declarationOf is a request about a gateway's own port.
func declarationOf(port string, r *v1.AddAttachmentRequest, confirm time.Duration) node.Declaration {
	out := node.Declaration{
		Port: port, Segment: r.GetSegment(), NIC: r.GetNic(), Bridge: r.GetBridge(), VLAN: int(r.GetVlan()), Native: r.GetNative(), Service: r.GetService(),
		Priority: r.GetPriority(), Preference: int(r.GetPreference()), MoveHost: r.GetMoveHost(),
	}
	if out.MoveHost {
		out.Confirm = confirm.String()
	}
	return out
}

// moveFlags say what becomes of what the host has on the NIC.
func moveFlags(cmd *cobra.Command, move *bool, confirm *time.Duration) {
	cmd.Flags().BoolVar(move, "move-host", false, "take the NIC also if the gateway itself is reached by it: its addresses and routes move to a bridge")
	cmd.Flags().DurationVar(confirm, "confirm", *confirm, "with --move-host: move them back unless somebody confirms in this time that the gateway is reached; 0: do not")
}

// portFlags say which frames of which link are a port's.
func portFlags(cmd *cobra.Command, nic, bridge *string, vlan *uint32, native *string, service *bool, priority *string, preference *uint32) {
	cmd.Flags().StringVar(nic, "nic", "", "the gateway's NIC to take, such as eth1")
	cmd.Flags().StringVar(bridge, "bridge", "", "in place of a NIC: a bridge of the gateway's to join")
	cmd.Flags().Uint32Var(vlan, "vlan", 0, "VLAN, 1 to 4094; default: untagged frames")
	cmd.Flags().StringVar(native, "native", "", "untagged frames are of the VLAN, too, and it is sent untagged or tagged")
	cmd.Flags().BoolVar(service, "service", false, "the VLAN is that of a service tag (802.1ad)")
	cmd.Flags().StringVar(priority, "priority", "", "what is sent untagged has a priority tag: nonzero (if its priority is not 0) or always; default: never")
	cmd.Flags().Uint32Var(preference, "preference", 0, "which of several gateways carries the VLAN's frames: the one with the highest that can, 0 to 65535")
}

func attachmentSet(a *admin) *cobra.Command {
	req, private, confirm := new(v1.SetAttachmentRequest), new(privateFlags), node.DefaultConfirm
	cmd := &cobra.Command{
		Use: "set NODE/PORT", Short: "Say anew which frames of which link are a port's, or with whom its machines exchange frames", Args: cobra.ExactArgs(1),
		Long: "Say anew which frames of which link are a port's: all of it. Or, with nothing else, keep the machines of the attachment apart from others\n" +
			"(--isolated, --community NAME), or no longer (--promiscuous): that is so behind all its ports, and stays until it is set again.\n\n" +
			"A port that a gateway has declared is an administrator's from then on. With --move-host a move that was not confirmed begins anew.",
		Example: "  etherloom attachment set gw1/site --nic eth2 --vlan 10\n  etherloom attachment set gw1/site --isolated",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := wantsLink(cmd); err != nil {
				return err
			}
			req.Name, req.Secondary, req.Confirm = args[0], private.secondary(), durationpb.New(confirm)
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.SetAttachment, req)
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error { return attachmentTable(cmd, []*v1.AttachmentRule{r.GetAttachment()}) })
		},
	}
	portFlags(cmd, &req.Nic, &req.Bridge, &req.Vlan, &req.Native, &req.Service, &req.Priority, &req.Preference)
	moveFlags(cmd, &req.MoveHost, &confirm)
	redundancyFlags(cmd, &req.Redundancy, &req.Lacp)
	private.add(cmd)
	return cmd
}

// wantsLink refuses something of a port without its link: what is not said of a port would be taken from it.
func wantsLink(cmd *cobra.Command) error {
	said := func(name string) bool { return cmd.Flags().Changed(name) }
	about := []string{"vlan", "native", "service", "priority", "preference", "move-host", "confirm"}
	if said("nic") || said("bridge") || !slices.ContainsFunc(about, said) {
		return nil
	}
	return errors.New("say the port's --nic or --bridge, too, and all else of it that is to stay, for a port is said anew: --vlan, --native, --service, --priority, " +
		"--preference, --move-host; `etherloom attachment list` shows what is said now")
}

// redundancyFlags say what several gateways do at a time.
func redundancyFlags(cmd *cobra.Command, redundancy, lacp *string) {
	cmd.Flags().StringVar(redundancy, "redundancy", "", "which gateways carry the VLAN's frames: single-active (one at a time) or all-active (all at once, where the "+
		"site's switch has one link aggregation to all of them); default: as it is, at first single-active")
	cmd.Flags().StringVar(lacp, "lacp", "", "with all-active: the site's switch aggregates by LACP (on), and a gateway that it does not answer takes no part; or statically (off); "+
		"default: as it is, at first off")
}

// privateFlags say where in a private VLAN an attachment is.
type privateFlags struct {
	isolated, promiscuous bool
	community             string
}

func (p *privateFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&p.isolated, "isolated", false, "its machines exchange frames only with those that are neither isolated nor of a community, whatever the grants")
	cmd.Flags().StringVar(&p.community, "community", "", "they do so with each other's and those of other attachments of this community, too")
	cmd.Flags().BoolVar(&p.promiscuous, "promiscuous", false, "neither: they are kept apart from nobody (so it is by default)")
	cmd.MarkFlagsMutuallyExclusive("isolated", "community", "promiscuous")
}

// secondary is nil if nothing was said.
func (p *privateFlags) secondary() *v1.SecondaryVLAN {
	if !p.isolated && p.community == "" && !p.promiscuous {
		return nil
	}
	return &v1.SecondaryVLAN{Isolated: p.isolated, Community: p.community}
}

// privateText says with whom the machines of an attachment exchange frames.
func privateText(s *v1.SecondaryVLAN) string {
	switch {
	case s.GetIsolated():
		return "isolated"
	case s.GetCommunity() != "":
		return "community " + s.GetCommunity()
	}
	return "-"
}

func attachmentTable(cmd *cobra.Command, list []*v1.AttachmentRule) error {
	return table(cmd, "NAME IDENTITY SEGMENT LINK FRAMES BY GATEWAY PRIVATE HOSTS", attachmentRows(list))
}

// attachmentRows has one row for each port; the identity, which the ports of one attachment share, shows who belongs together.
func attachmentRows(list []*v1.AttachmentRule) [][]string {
	var rows [][]string
	for _, at := range list {
		for _, p := range at.GetPorts() {
			link := p.GetNic()
			if p.GetBridge() != "" {
				link = "bridge " + p.GetBridge()
			}
			frames := framesText(p)
			if at.GetRedundancy() == "all-active" {
				frames += ", all-active"
			}
			if at.GetLacp() {
				frames += " by LACP"
			}
			rows = append(rows, []string{
				p.GetName(), fmt.Sprint(at.GetId()), at.GetSegment(), link, frames, p.GetOrigin(), statusName(p.GetStatus()),
				privateText(at.GetSecondary()), dash(strings.Join(at.GetHosts(), ",")),
			})
		}
	}
	return rows
}

// framesText says which frames of a link are a port's, and how they are sent.
func framesText(p *v1.AttachmentPort) string {
	text := "untagged"
	switch {
	case p.GetService():
		text = fmt.Sprintf("service VLAN %d", p.GetVlan())
	case p.GetVlan() != 0:
		text = fmt.Sprintf("VLAN %d", p.GetVlan())
	}
	if p.GetNative() != "" {
		text += ", native " + p.GetNative()
	}
	switch p.GetPriority() {
	case "nonzero":
		text += ", priority tag if not 0"
	case "always":
		text += ", priority tag always"
	}
	return text
}

func attachmentList(a *admin) *cobra.Command {
	gw := &gateway{admin: a}
	cmd := &cobra.Command{
		Use: "list", Short: "List the attachments, a line for each port", Args: cobra.NoArgs,
		Long: "List the attachments, a line for each port: those of the network with an administrator's credential, without one those of this gateway.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.file == "" || cmd.Flags().Changed("state-dir") {
				return gw.list(cmd)
			}
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.ListAttachments, &v1.ListAttachmentsRequest{})
			if err != nil {
				return err
			}
			a.noteUngranted(cmd, r.GetAttachments()...)
			return a.show(cmd, r, func() error { return attachmentTable(cmd, r.GetAttachments()) })
		},
	}
	gw.flags(cmd)
	return cmd
}

func attachmentRemove(a *admin) *cobra.Command {
	gw := &gateway{admin: a}
	cmd := &cobra.Command{
		Use: "remove NODE/PORT|PORT", Short: "Remove a port; with its last one goes an attachment that nothing names", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if gw.own(args[0]) {
				return gw.change(cmd, func(d *node.Local) (*node.AttachmentStatus, error) {
					return d.ChangeAttachment(cmd.Context(), "remove", node.AttachmentAsk{Port: args[0]})
				})
			}
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.RemoveAttachment, &v1.RemoveAttachmentRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), removedPort(args[0], r.GetAttachment()))
				return err
			})
		},
	}
	gw.flags(cmd)
	return cmd
}

// removedPort says what is left of an attachment.
func removedPort(name string, left *v1.AttachmentRule) string {
	if left == nil {
		return fmt.Sprintf("attachment %s is gone", name)
	}
	var ports []string
	for _, p := range left.GetPorts() {
		ports = append(ports, p.GetName())
	}
	return fmt.Sprintf("port %s is gone; the attachment still has %s", name, strings.Join(ports, ", "))
}
