package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/node/preflight"
)

func preflightCommand() *cobra.Command {
	var file string
	var udp uint16
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "preflight URL | TOKEN | - | --token-file FILE",
		Short: "Look for what would stop this machine from joining; changes nothing",
		Long: "Look for what would stop this machine from joining: DNS, TCP, something that opens TLS, the clock, UDP, NAT, MTU.\n" +
			"Given a token, it also knows whether the controller is the right one. It does not use the token up.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			targets, err := preflightTargets(cmd, args, file)
			if err != nil {
				return err
			}
			var all []preflight.Result
			for _, cfg := range targets {
				cfg.UDP = udp
				list, err := preflight.Run(cmd.Context(), cfg)
				if err != nil {
					return err
				}
				all = append(all, list...)
				if !asJSON {
					printFlight(cmd, cfg.URL, list)
				}
			}
			if asJSON {
				if err := printJSON(cmd, listing("checks", all)); err != nil {
					return err
				}
			}
			for _, r := range all {
				if r.Verdict == preflight.Failed {
					return errSilent
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "token-file", "", "file that holds a token")
	cmd.Flags().Uint16Var(&udp, "udp", 3478, "UDP `PORT` of the relay beside the controller")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// preflightTargets lists the controllers to look at: one by its URL, or all that a token names.
func preflightTargets(cmd *cobra.Command, args []string, file string) ([]preflight.Config, error) {
	if len(args) == 1 && strings.Contains(args[0], "://") {
		return []preflight.Config{{URL: args[0]}}, nil
	}
	if len(args) == 1 && strings.Contains(args[0], ".") && !strings.HasPrefix(args[0], "loom1.") {
		return nil, fmt.Errorf("%q is neither a token nor a URL: did you mean https://%s?", args[0], args[0])
	}
	text, err := tokenText(cmd.InOrStdin(), args, file)
	if err != nil {
		return nil, err
	}
	token, err := identity.ParseToken(text)
	if err != nil {
		return nil, err
	}
	var list []preflight.Config
	for _, url := range token.URLs {
		list = append(list, preflight.Config{URL: url, Pin: &token.Pin})
	}
	return list, nil
}

func printFlight(cmd *cobra.Command, url string, list []preflight.Result) {
	fmt.Fprintln(cmd.OutOrStdout(), url)
	for _, r := range list {
		fmt.Fprintf(cmd.OutOrStdout(), "  %-8s %-8s %s\n", r.Check, r.Verdict, r.Found)
		if r.Advice != "" {
			fmt.Fprintf(cmd.OutOrStdout(), "  %17s %s\n", "", r.Advice)
		}
	}
}
