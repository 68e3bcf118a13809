package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/etherloom/etherloom/node"
)

func mirrorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "mirror", Short: "Copies of a port's frames, to look at (SPAN)",
		Long: "Copies of a port's frames go to a network device of this machine, for tcpdump or an intrusion detection system to look at. They are as they were " +
			"on the port: with the tag of a VLAN, and as super-frames where the port has those. No copy leaves this machine but by a NIC that is named here, " +
			"and nothing enters a segment by the device. Mirrors stay over restarts.",
	}
	cmd.AddCommand(mirrorAddCommand(), mirrorListCommand(), mirrorRemoveCommand())
	return cmd
}

func mirrorAddCommand() *cobra.Command {
	l := new(local)
	var ask node.MirrorSpec
	cmd := &cobra.Command{
		Use: "add --from PORT --to DEVICE", Args: cobra.NoArgs, Short: "Begin to copy a port's frames",
		Long: "Begin to copy a port's frames, as `etherloom ports` calls it. A device that is not there is made: a TAP, of which nothing but packet sockets and " +
			"tc filters sees anything. A NIC that is there must have no address and no route, and be part of nothing.",
		Example: "  etherloom mirror add --from lan --to span0\n  etherloom mirror add --from lan --direction in --to eth3\n  tcpdump -i span0",
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := l.daemon()
			if err != nil {
				return err
			}
			change, err := d.AddMirror(cmd.Context(), ask)
			if err != nil {
				return err
			}
			if l.json {
				return printJSON(cmd, change)
			}
			return showMirrors(cmd, change.Mirrors)
		},
	}
	l.flags(cmd)
	cmd.Flags().StringVar(&ask.From, "from", "", "the port")
	cmd.Flags().StringVar(&ask.Segment, "segment", "", "its segment, if several have one of that name")
	cmd.Flags().StringVar(&ask.Direction, "direction", "both", "frames that come in by the port, go out, or both: in, out or both")
	cmd.Flags().StringVar(&ask.To, "to", "", "the device to which copies go")
	_, _ = cmd.MarkFlagRequired("from"), cmd.MarkFlagRequired("to")
	return cmd
}

func mirrorListCommand() *cobra.Command {
	return asking("list", "List the mirrors, with how many frames were copied", "mirrors", showMirrors)
}

func showMirrors(cmd *cobra.Command, list []node.MirrorLine) error {
	if err := table(cmd, "FROM SEGMENT DIRECTION TO STATE COPIED LOST", mirrorRows(list)); err != nil {
		return err
	}
	told := map[string]bool{}
	for _, m := range list {
		if m.Why != "" && !told[m.To] {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", m.To, m.Why)
		}
		told[m.To] = true
	}
	return nil
}

func mirrorRows(list []node.MirrorLine) (rows [][]string) {
	for _, m := range list {
		rows = append(rows, []string{m.From, m.Segment, m.Direction, m.To, m.State, fmt.Sprint(m.Copied), fmt.Sprint(m.Lost)})
	}
	return rows
}

func mirrorRemoveCommand() *cobra.Command {
	l := new(local)
	var ask node.MirrorRemove
	cmd := &cobra.Command{
		Use: "remove --from PORT --to DEVICE", Args: cobra.NoArgs, Short: "End mirrors: of a port, to a device, or both",
		Example: "  etherloom mirror remove --from lan --to span0\n  etherloom mirror remove --to span0",
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := l.daemon()
			if err != nil {
				return err
			}
			change, err := d.RemoveMirror(cmd.Context(), ask)
			if err != nil {
				return err
			}
			if l.json {
				return printJSON(cmd, change)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), counted(len(change.Mirrors), "mirror removed", "mirrors removed"))
			return err
		},
	}
	l.flags(cmd)
	cmd.Flags().StringVar(&ask.From, "from", "", "only those of this port")
	cmd.Flags().StringVar(&ask.Segment, "segment", "", "only those of ports of this segment")
	cmd.Flags().StringVar(&ask.To, "to", "", "only those to this device")
	return cmd
}
