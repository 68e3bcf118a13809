package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/etherloom/etherloom/node"
)

func fdbCommand() *cobra.Command {
	cmd := asking("fdb", "Which port every MAC address was last seen on", "fdb",
		func(cmd *cobra.Command, list []node.FDBEntry) error {
			return table(cmd, "SEGMENT MAC PORT WHO IDENTITY KIND MOVES IDLE", fdbRows(list))
		})
	cmd.AddCommand(fdbAddCommand(), fdbRemoveCommand(), fdbFlushCommand())
	return cmd
}

func fdbRows(list []node.FDBEntry) (rows [][]string) {
	for _, e := range list {
		kind, idle := e.Kind, e.Idle.Round(time.Second).String()
		if e.Frozen {
			kind = "frozen"
		}
		if e.Static {
			idle = "-"
		}
		rows = append(rows, []string{e.Segment, e.MAC, e.Port, dash(e.Who), strconv.Itoa(int(e.Identity)), kind, strconv.Itoa(int(e.Moves)), idle})
	}
	return rows
}

// changing runs a command that changes the FDB, and says what came of it.
func (l *local) changing(cmd *cobra.Command, do func(*node.Local) (*node.FDBChange, error), say func(*node.FDBChange) string) error {
	d, err := l.daemon()
	if err != nil {
		return err
	}
	change, err := do(d)
	if err != nil {
		return err
	}
	if l.json {
		return printJSON(cmd, change)
	}
	fmt.Fprintln(cmd.OutOrStdout(), say(change))
	return nil
}

func fdbAddCommand() *cobra.Command {
	l := new(local)
	var static, sticky bool
	cmd := &cobra.Command{
		Use: "add SEGMENT MAC PORT", Args: cobra.ExactArgs(3),
		Short: "Pin an address to a port, until the daemon ends",
		Long: "Pin an address to a port, as `etherloom ports` calls it, in place of any other entry. A static entry neither ages nor moves; a sticky one " +
			"ages like one that was learned, but does not move. Neither is kept when the daemon ends, nor when the port goes.",
		Example: "  etherloom fdb add lan 02:00:5e:10:00:01 gw1\n  etherloom fdb add lan 02:00:5e:10:00:01 gw1 --sticky",
		RunE: func(cmd *cobra.Command, args []string) error {
			return l.changing(cmd, func(d *node.Local) (*node.FDBChange, error) {
				return d.AddFDB(cmd.Context(), node.FDBAdd{Segment: args[0], MAC: args[1], Port: args[2], Sticky: sticky})
			}, saidAdded)
		},
	}
	l.flags(cmd)
	cmd.Flags().BoolVar(&static, "static", false, "it neither ages nor moves (the default)")
	cmd.Flags().BoolVar(&sticky, "sticky", false, "it ages, but does not move")
	cmd.MarkFlagsMutuallyExclusive("static", "sticky")
	return cmd
}

func saidAdded(c *node.FDBChange) string {
	e, end := c.Added, "until the daemon ends"
	if !e.Static {
		end = "until it has been silent for too long, or the daemon ends"
	}
	text := fmt.Sprintf("%s is %s on port %s of segment %s, %s", e.MAC, e.Kind, e.Port, e.Segment, end)
	if c.Replaced {
		text += "; it replaces the entry that was there"
	}
	return text
}

func fdbRemoveCommand() *cobra.Command {
	l := new(local)
	cmd := &cobra.Command{
		Use: "remove SEGMENT MAC", Args: cobra.ExactArgs(2),
		Short:   "Forget an address, of whatever kind",
		Example: "  etherloom fdb remove lan 02:00:5e:10:00:01",
		RunE: func(cmd *cobra.Command, args []string) error {
			return l.changing(cmd, func(d *node.Local) (*node.FDBChange, error) {
				return d.RemoveFDB(cmd.Context(), node.FDBRemove{Segment: args[0], MAC: args[1]})
			}, func(*node.FDBChange) string { return "removed" })
		},
	}
	l.flags(cmd)
	return cmd
}

func fdbFlushCommand() *cobra.Command {
	l := new(local)
	var dynamic bool
	var ask node.FDBFlush
	cmd := &cobra.Command{
		Use: "flush [SEGMENT]", Args: cobra.MaximumNArgs(1),
		Short: "Forget the addresses that were learned, or those that are frozen",
		Long: "Forget the addresses that were learned, sticky ones included, of one segment or all. Static entries stay; `etherloom fdb remove` ends them. " +
			"So do those that peers have announced.",
		Example: "  etherloom fdb flush\n  etherloom fdb flush lan --port gw1\n  etherloom fdb flush --frozen",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				ask.Segment = args[0]
			}
			return l.changing(cmd, func(d *node.Local) (*node.FDBChange, error) { return d.FlushFDB(cmd.Context(), ask) },
				func(c *node.FDBChange) string { return fmt.Sprintf("%d forgotten", c.Removed) })
		},
	}
	l.flags(cmd)
	cmd.Flags().StringVar(&ask.Port, "port", "", "only those of one port, as etherloom ports calls it")
	cmd.Flags().BoolVar(&dynamic, "dynamic", false, "all that were learned (the default)")
	cmd.Flags().BoolVar(&ask.Frozen, "frozen", false, "only those that are frozen because they moved too often")
	cmd.MarkFlagsMutuallyExclusive("dynamic", "frozen")
	return cmd
}
