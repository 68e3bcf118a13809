package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/node"
	"github.com/etherloom/etherloom/node/statedir"
)

func joinCommand() *cobra.Command {
	var file, dir, name string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "join TOKEN | - | --token-file FILE",
		Short: "Make this machine a node of the network that a token is for",
		Long: "Make this machine a node of the network that a token is for.\n\nA token is a secret. On the command line other users can see it, " +
			"so give it there only if it is good for a\nsingle use; otherwise pass it by standard input (-) or in a file.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := tokenText(cmd.InOrStdin(), args, file)
			if err != nil {
				return err
			}
			token, err := identity.ParseToken(text)
			if err != nil {
				return err
			}
			joined, err := node.Join(cmd.Context(), dir, token, name)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd, map[string]any{
					"schema": node.Schema, "name": joined.Membership.Name, "id": joined.Membership.ID,
					"network": joined.Membership.Network, "zone": joined.Membership.Zone, "pending": joined.Pending,
					"locked": joined.Locked,
				})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "joined network %s as %s\n", joined.Membership.Network, joined.Membership.Name)
			next := "start the daemon: etherloom run"
			if dir != statedir.Default {
				next += " --state-dir " + dir
			}
			if joined.Pending {
				next = "an administrator must run `etherloom node approve " + joined.Membership.Name + "`; meanwhile " + next
			}
			if joined.Locked {
				next = "it is locked by an administrator, and gets nothing until it is unlocked; meanwhile " + next
			}
			fmt.Fprintln(cmd.OutOrStdout(), next)
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "token-file", "", "file that holds the token")
	cmd.Flags().StringVar(&dir, "state-dir", envOr("ETHERLOOM_STATE_DIR", statedir.Default), "directory for this machine's keys and state")
	cmd.Flags().StringVar(&name, "name", "", "name of the node; default: the host's name")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// tokenText finds the token in the one place where it is given.
func tokenText(stdin io.Reader, args []string, file string) (string, error) {
	switch {
	case file != "" && len(args) > 0:
		return "", errors.New("give the token once: as argument, by -, or with --token-file")
	case file != "":
		data, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("token file: %w", err)
		}
		return string(data), nil
	case len(args) == 0:
		return "", errors.New("no token: an administrator makes one with `etherloom token create`; give it as argument, by -, or with --token-file")
	case args[0] == "-":
		data, err := io.ReadAll(io.LimitReader(stdin, 1<<16))
		if err != nil {
			return "", fmt.Errorf("read the token from standard input: %w", err)
		}
		return string(data), nil
	}
	return args[0], nil
}

func envOr(name, other string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return other
}
