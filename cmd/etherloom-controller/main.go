// Command etherloom-controller is the controller, and the relay.
package main

import (
	"context"
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
		fmt.Fprintln(os.Stderr, "etherloom-controller:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

func root() *cobra.Command {
	cmd := serveCommand()
	cmd.Version, cmd.SilenceUsage, cmd.SilenceErrors = node.Version, true, true
	cmd.AddCommand(relayCommand())
	return cmd
}
