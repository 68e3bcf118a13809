package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/etherloom/etherloom/bridge"
	"github.com/etherloom/etherloom/internal/settings"
	"github.com/etherloom/etherloom/node"
	"github.com/etherloom/etherloom/node/statedir"
)

func runCommand() *cobra.Command {
	cfg := node.Defaults()
	var file string
	var show bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon in the foreground, logging to standard error",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := settings.Load(cmd.Flags(), file, &cfg); err != nil {
				return err
			}
			if show {
				return settings.Print(cmd.OutOrStdout(), &cfg)
			}
			if err := cfg.Check(); err != nil {
				return fmt.Errorf("configuration: %w", err)
			}
			if err := bridge.CanMakeTAPs(); err != nil {
				return err
			}
			dir, err := statedir.Open(cfg.StateDir)
			if err != nil {
				return err
			}
			release, err := dir.Lock()
			if err != nil {
				return err
			}
			defer release()
			d, err := node.New(cfg, dir, cfg.Log.New(cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			return d.Run(cmd.Context())
		},
	}
	settings.Flags(cmd.Flags(), &cfg)
	cmd.Flags().StringVar(&file, "config", os.Getenv("ETHERLOOM_CONFIG"), "configuration file, YAML")
	cmd.Flags().BoolVar(&show, "print-config", false, "print the settings, as a file that --config takes, and exit")
	return cmd
}
