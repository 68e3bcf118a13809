// Command etherloom is the node: the daemon, what asks it, and the administrator's commands.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/etherloom/etherloom/node"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errSilent) {
			fmt.Fprintln(os.Stderr, "etherloom:", err)
		}
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

// errSilent ends a command that has said already what is wrong.
var errSilent = errors.New("failed")

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "etherloom",
		Short: "A virtual Ethernet switch that spans sites",
		Long: "Etherloom joins machines at many sites to one Ethernet switch, encrypted end to end and by grant alone.\n\n" +
			"On a machine: preflight URL, join TOKEN, then run; bench says what it can carry. Ask it: status, peers, paths, ports, port, mirror, fdb, names, drops, flows, grants, posture, ping, explain.\n" +
			"As administrator: token, node, segment, attachment, host, group, grant, policy, relay, audit, with --admin FILE or ETHERLOOM_ADMIN.",
		Version: node.Version, SilenceUsage: true, SilenceErrors: true,
	}
	cmd.AddGroup(
		&cobra.Group{ID: "machine", Title: "On this machine:"},
		&cobra.Group{ID: "ask", Title: "What the daemon does now:"},
		&cobra.Group{ID: "admin", Title: "Administration, through the controller:"},
	)
	add := func(group string, list ...*cobra.Command) {
		for _, c := range list {
			c.GroupID = group
			cmd.AddCommand(c)
		}
	}
	add("machine", preflightCommand(), joinCommand(), runCommand(), demoCommand(), benchCommand())
	add("ask", statusCommand(), peersCommand(), pathsCommand(), portsCommand(), fdbCommand(), portCommand(), mirrorCommand(), namesCommand(), dhcpCommand(), dropsCommand(), flowsCommand(), grantsCommand(), postureCommand(), pingCommand(), explainCommand())
	add("admin", adminCommands()...)
	return cmd
}
