package world

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
)

// Node is a machine that runs the daemon.
type Node struct {
	World  *World
	Name   string
	Host   *lab.Host
	Uplink *lab.Link
	Daemon *lab.Process
	Token  string // that it joined with

	Program string // that Start runs; Node and PublicNode choose the one under test
	args    []string
}

// Node adds a machine to the site that is to be a node. It has not joined yet.
func (s *Site) Node(name string) (*Node, error) {
	h, link, err := s.Host(name)
	if err != nil {
		return nil, err
	}
	return s.World.node(name, h, link), nil
}

// PublicNode adds a node on the internet itself.
func (w *World) PublicNode(name, addr string) (*Node, error) {
	h, err := w.Lab.AddHost(name)
	if err != nil {
		return nil, err
	}
	link, err := h.Join(w.Internet, "eth0", addr)
	if err != nil {
		return nil, err
	}
	return w.node(name, h, link), nil
}

func (w *World) node(name string, h *lab.Host, uplink *lab.Link) *Node {
	return &Node{World: w, Name: name, Host: h, Uplink: uplink, Program: filepath.Join(w.bin, "etherloom")}
}

// StateDir is the node's state directory.
func (n *Node) StateDir() string { return filepath.Join(n.World.Dir(), "state-"+n.Name) }

// Token makes a registration token.
func (w *World) Token(ctx context.Context, args ...string) (string, error) {
	out, err := w.Admin(ctx, append([]string{"token", "create", "--json"}, args...)...)
	if err != nil {
		return "", err
	}
	var t struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal([]byte(out), &t); err != nil {
		return "", fmt.Errorf("token create printed %q: %w", out, err)
	}
	return t.Token, nil
}

// Join makes the machine a node; args are those of token create.
func (n *Node) Join(ctx context.Context, args ...string) error {
	token, err := n.World.Token(ctx, args...)
	if err != nil {
		return err
	}
	n.Token = token
	out, err := n.Host.Run(ctx, filepath.Join(n.World.bin, "etherloom"), "join", token, "--name", n.Name, "--state-dir", n.StateDir())
	if err != nil {
		return fmt.Errorf("join %s: %w: %s", n.Name, err, strings.TrimSpace(out))
	}
	return nil
}

// Start starts the daemon and waits until it says that it runs. args are further ones of run.
func (n *Node) Start(ctx context.Context, args ...string) error {
	n.args = args
	p, err := n.Host.Start(ctx, n.Program, append([]string{"run", "--state-dir", n.StateDir()}, args...)...)
	if err != nil {
		return err
	}
	n.Daemon = p
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // on a machine with much else to do
	defer cancel()
	if err := p.WaitLog(ctx, "daemon is running"); err != nil {
		log, _ := p.Log()
		return fmt.Errorf("%s does not start: %w\n%s", n.Name, err, log)
	}
	return nil
}

// Stop ends the daemon in order.
func (n *Node) Stop() error { return n.Daemon.Stop(10 * time.Second) }

// Restart starts the daemon again as it was started before.
func (n *Node) Restart(ctx context.Context) error { return n.Start(ctx, n.args...) }

// Loom runs a local command of etherloom and returns what it prints.
func (n *Node) Loom(ctx context.Context, args ...string) (string, error) {
	return n.Host.Run(ctx, filepath.Join(n.World.bin, "etherloom"), append(args, "--state-dir", n.StateDir())...)
}

// Ask runs a local command with --json and decodes what it prints.
func (n *Node) Ask(ctx context.Context, into any, args ...string) error {
	out, err := n.Loom(ctx, append(args, "--json")...)
	if err != nil {
		return fmt.Errorf("%s: etherloom %s: %w: %s", n.Name, strings.Join(args, " "), err, strings.TrimSpace(out))
	}
	return json.Unmarshal([]byte(out), into)
}

// Address is the node's IPv4 address on its first segment; empty if it has none.
func (n *Node) Address(ctx context.Context) string {
	var list struct {
		Names []struct {
			Name      string   `json:"name"`
			Addresses []string `json:"addresses"`
		} `json:"names"`
	}
	if n.Ask(ctx, &list, "names") != nil {
		return ""
	}
	for _, l := range list.Names {
		if strings.HasPrefix(l.Name, n.Name+".") {
			for _, a := range l.Addresses {
				if strings.Contains(a, ".") {
					return a
				}
			}
		}
	}
	return ""
}

// Await waits until a condition holds.
func Await(ctx context.Context, what string, within time.Duration, cond func() bool) error {
	for deadline := time.Now().Add(within); !cond(); {
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %s", within, what)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}
