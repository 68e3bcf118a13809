package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/etherloom/etherloom/internal/demo"
)

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use: "demo", Short: "Show the main job on this machine, in network namespaces; needs root, leaves nothing behind", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP) // the terminal may go
			defer stop()
			return demo.Run(ctx, filepath.Dir(self), cmd.OutOrStdout())
		},
	}
}
