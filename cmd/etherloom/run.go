package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/settings"
	"github.com/etherloom/etherloom/node"
	"github.com/etherloom/etherloom/node/statedir"
)

func runCommand() *cobra.Command {
	cfg := node.Defaults()
	var file string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon in the foreground, logging to standard error",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := settings.Load(cmd.Flags(), file, &cfg); err != nil {
				return err
			}
			if err := cfg.Check(); err != nil {
				return fmt.Errorf("configuration: %w", err)
			}
			if err := canRun(); err != nil {
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
			d, err := node.New(cfg, dir, newLog(cmd.ErrOrStderr(), cfg.Log.Level, cfg.Log.Format))
			if err != nil {
				return err
			}
			return d.Run(cmd.Context())
		},
	}
	settings.Flags(cmd.Flags(), &cfg)
	cmd.Flags().StringVar(&file, "config", os.Getenv("ETHERLOOM_CONFIG"), "configuration file, YAML")
	return cmd
}

// canRun says what this process lacks to make TAPs, before it begins anything.
func canRun() error {
	if _, err := os.Stat("/dev/net/tun"); errors.Is(err, os.ErrNotExist) {
		return errors.New("/dev/net/tun does not exist, so no TAP can be made: load the kernel module with `modprobe tun`, " +
			"or pass the device into the container")
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read this process's capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return errors.New("not permitted to make network devices: run as root, or with CAP_NET_ADMIN")
	}
	return nil
}

func newLog(w io.Writer, level, format string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: l}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
