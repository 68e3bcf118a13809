package main

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/etherloom/etherloom/node"
	"github.com/etherloom/etherloom/node/statedir"
	"github.com/etherloom/etherloom/transport"
)

// local is what every command that asks the daemon has.
type local struct {
	dir  string
	json bool
}

func (l *local) daemon() (*node.Local, error) {
	dir, err := statedir.Open(l.dir)
	if err != nil {
		return nil, err
	}
	return node.Dial(dir), nil
}

// asking makes a command that gets something from the daemon and prints it.
func asking[T any](use, short, key string, show func(*cobra.Command, T) error) *cobra.Command {
	l := new(local)
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := l.daemon()
			if err != nil {
				return err
			}
			var v T
			if err := d.Get(cmd.Context(), key, &v); err != nil {
				return err
			}
			if l.json {
				switch any(v).(type) {
				case node.Status, node.PostureStatus:
					return printJSON(cmd, v)
				}
				if use == "list" { // of a group of commands, which is called after what is listed
					return printJSON(cmd, listing(key, v))
				}
				return printJSON(cmd, listing(use, v))
			}
			return show(cmd, v)
		},
	}
	l.flags(cmd)
	return cmd
}

func (l *local) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.dir, "state-dir", envOr("ETHERLOOM_STATE_DIR", statedir.Default), "state directory of the daemon")
	jsonFlag(cmd, &l.json)
}

func statusCommand() *cobra.Command {
	return asking("status", "How this node is, and what an administrator should look at", "status", showStatus)
}

func showStatus(cmd *cobra.Command, s node.Status) error {
	out := cmd.OutOrStdout()
	line := func(name, format string, args ...any) {
		fmt.Fprintf(out, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("node", "%s (identity %d), version %s, up since %s", s.Name, s.ID, s.Version, until(s.Since))
	line("network", "%s, names in %s", s.Network, s.Zone)
	if s.Lock != nil {
		line("LOCKED", "by an administrator, %s: %s", lockEnd(s.Lock.Until), cmp.Or(s.Lock.Message, "no reason given"))
	}
	line("certificate", "until %s", until(s.Certificate))
	if s.Policy.Held {
		line("policy", "version %d of %s, void after %s", s.Policy.Version, until(s.Policy.Issued), until(s.Policy.Expires))
	} else {
		line("policy", "none yet: nothing passes")
	}
	line("segments", "%s", dash(strings.Join(s.Segments, ", ")))
	for _, c := range s.Controllers {
		if c.Connected {
			line("controller", "%s: connected since %s", c.URL, until(c.Since))
		} else {
			line("controller", "%s: not connected: %s", c.URL, c.Error)
		}
	}
	for _, r := range s.Relays {
		if r.Up {
			line("relay", "%s (%s): up", r.Name, r.Server)
		} else {
			line("relay", "%s (%s): down: %s", r.Name, dash(r.Server), r.Why)
		}
	}
	for _, u := range s.Underlay {
		batches := ""
		if !u.Segmentation {
			batches = ", datagrams leave one by one (no UDP_SEGMENT)"
		}
		line("underlay", "%s, seen as %s, NAT: %s, queues: %d%s", u.Local, dash(strings.Join(u.Mapped, ", ")), u.NAT, u.Queues, batches)
	}
	line("names", "%s; answered on %s", s.Resolver.Mode, dash(strings.Join(s.Resolver.Listen, ", ")))
	if len(s.Problems) == 0 {
		line("problems", "none")
	}
	for _, p := range s.Problems {
		line("PROBLEM", "%s: %s", p.About, p.Text)
	}
	return nil
}

func peersCommand() *cobra.Command {
	return asking("peers", "The nodes that this one shares a grant with: how each is reached, and why not directly", "peers",
		func(cmd *cobra.Command, list []transport.PeerStatus) error {
			var rows [][]string
			for _, p := range list {
				rows = append(rows, []string{
					p.Name, strconv.Itoa(int(p.ID)), p.Link, dash(p.Path), dash(firstOf(p.Relay, p.Address)), millis(p.RTT),
					fmt.Sprintf("%d/%d", p.SentMessages, p.ReceivedMessages), dash(p.Why),
				})
			}
			return table(cmd, "PEER ID LINK PATH BY RTT SENT/RECEIVED WHY", rows)
		})
}

func firstOf(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}

func pathsCommand() *cobra.Command {
	return asking("paths", "Every way to every peer, with what its probes say", "peers",
		func(cmd *cobra.Command, list []transport.PeerStatus) error {
			var rows [][]string
			for _, p := range list {
				for _, w := range p.Paths {
					state := "down"
					if w.Alive {
						state = "up"
					}
					if w.Alive && w.Shaky {
						state = fmt.Sprintf("shaky (%.0f %% lost)", 100*w.Loss)
					}
					if w.InUse {
						state += ", in use"
					}
					rows = append(rows, []string{
						p.Name, w.Kind, dash(w.Local), dash(firstOf(w.Relay, w.Remote)), state, millis(w.RTT), strconv.Itoa(w.MTU), fmt.Sprintf("%d/%d", w.Replies, w.Probes),
					})
				}
			}
			return table(cmd, "PEER KIND LOCAL REMOTE STATE RTT MTU REPLIES/PROBES", rows)
		})
}

func namesCommand() *cobra.Command {
	return asking("names", "The names that this host may resolve", "names",
		func(cmd *cobra.Command, list []node.Name) error {
			var rows [][]string
			for _, n := range list {
				rows = append(rows, []string{n.Name, dash(strings.Join(n.Addresses, " "))})
			}
			return table(cmd, "NAME ADDRESSES", rows)
		})
}

func dropsCommand() *cobra.Command {
	return asking("drops", "Why frames and datagrams went nowhere, and how many", "drops",
		func(cmd *cobra.Command, list []node.Drop) error {
			var rows [][]string
			for _, d := range list {
				rows = append(rows, []string{d.Where, d.Reason, fmt.Sprint(d.Count), d.Text})
			}
			return table(cmd, "WHERE REASON COUNT MEANING", rows)
		})
}

func pingCommand() *cobra.Command {
	l := new(local)
	var count int
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "ping PEER", Short: "Measure the round trip to a peer by every path, below the network it carries", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := l.daemon()
			if err != nil {
				return err
			}
			return ping(cmd, d, l.json, args[0], count, wait)
		},
	}
	l.flags(cmd)
	cmd.Flags().IntVarP(&count, "count", "c", 3, "how often")
	cmd.Flags().DurationVar(&wait, "wait", 5*time.Second, "how long to wait for an answer")
	return cmd
}

func ping(cmd *cobra.Command, d *node.Local, asJSON bool, peer string, count int, wait time.Duration) error {
	var all [][]transport.PingResult
	answered := false
	for i := range count {
		if i > 0 {
			select {
			case <-cmd.Context().Done():
				return cmd.Context().Err()
			case <-time.After(200 * time.Millisecond):
			}
		}
		results, err := d.Ping(cmd.Context(), node.PingRequest{Peer: peer, Wait: wait})
		if err != nil {
			return err
		}
		all = append(all, results)
		for _, r := range results {
			answered = answered || !r.Lost
			if asJSON {
				continue
			}
			if r.Lost {
				fmt.Fprintf(cmd.OutOrStdout(), "%s by %s: no answer within %v\n", peer, r.Path, wait)
			} else {
				fmt.Fprintf(cmd.OutOrStdout(), "%s by %s: %s\n", peer, r.Path, millis(r.RTT))
			}
		}
	}
	if asJSON {
		if err := printJSON(cmd, listing("rounds", all)); err != nil {
			return err
		}
	}
	if !answered {
		return errors.New("no path answered")
	}
	return nil
}
