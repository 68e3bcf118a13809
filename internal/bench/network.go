package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
)

// Network is what went from end to end over a real network of two daemons, while they and the load shared this host's cores.
type Network struct {
	Stream    float64 `json:"tcp_mbit_per_s"`  // one TCP stream's payload
	Datagrams float64 `json:"udp_64b_per_s"`   // UDP datagrams with 64 bytes of payload that arrived
	Address   string  `json:"segment_address"` // where they went
}

const (
	prefix    = "loombench"      // of the names of everything that is made
	setUpTime = 20 * time.Second // of each step of it
)

// lacking says what this host or user lacks to run a network; nil: nothing.
func lacking(bin string) error {
	if err := lab.Supported(); err != nil {
		return err
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return fmt.Errorf("there are no TAPs here (modprobe tun): %w", err)
	}
	for _, p := range []string{"etherloom", "etherloom-controller"} {
		if _, err := os.Stat(filepath.Join(bin, p)); err != nil {
			return fmt.Errorf("both programs must be in one directory: %w", err)
		}
	}
	return nil
}

// network makes a network, measures it, and removes it.
func network(ctx context.Context, cfg Config) (n *Network, err error) {
	if _, err := lab.Sweep(prefix); err != nil {
		return nil, err
	}
	w, err := world.New(prefix, cfg.Bin)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err = errors.Join(err, w.Close()); err != nil {
			n = nil
		}
	}()
	from, to, addr, err := twoNodes(ctx, w)
	if err != nil {
		return nil, err
	}
	n = &Network{Address: addr}
	if n.Stream, err = tcp(ctx, from, to, addr, cfg.Each); err != nil {
		return nil, fmt.Errorf("measure a TCP stream: %w", err)
	}
	if n.Datagrams, err = udp(ctx, from, to, addr, cfg.Each); err != nil {
		return nil, fmt.Errorf("measure UDP datagrams: %w", err)
	}
	return n, nil
}

// twoNodes brings two nodes onto one segment and waits until they reach each other directly. addr is that of the second.
func twoNodes(ctx context.Context, w *world.World) (from, to *lab.Host, addr string, err error) {
	if err := w.StartController(ctx); err != nil {
		return nil, nil, "", err
	}
	var nodes []*world.Node
	for i, name := range []string{"a", "b"} {
		n, err := w.PublicNode(name, fmt.Sprintf("203.0.113.%d/24", 21+i))
		if err != nil {
			return nil, nil, "", err
		}
		if err := n.Join(ctx, "--label", "bench=1"); err != nil {
			return nil, nil, "", err
		}
		if err := n.Start(ctx, "--dns-resolver", "off"); err != nil {
			return nil, nil, "", err
		}
		nodes = append(nodes, n)
	}
	if _, err := w.Grant(ctx, "label:bench=1", "segment:lan"); err != nil {
		return nil, nil, "", err
	}
	if err := world.Await(ctx, "the nodes have addresses", setUpTime, func() bool {
		addr = nodes[1].Address(ctx)
		return addr != "" && nodes[0].Address(ctx) != ""
	}); err != nil {
		return nil, nil, "", err
	}
	soon, cancel := context.WithTimeout(ctx, setUpTime)
	defer cancel()
	if _, err := nodes[0].Host.WaitPing(soon, addr); err != nil {
		return nil, nil, "", err
	}
	err = world.Await(ctx, "the nodes meet directly", setUpTime, func() bool {
		out, err := nodes[0].Loom(ctx, "peers")
		return err == nil && strings.Contains(out, " direct ")
	})
	return nodes[0].Host, nodes[1].Host, addr, err
}

func tcp(ctx context.Context, from, to *lab.Host, addr string, each time.Duration) (float64, error) {
	l, err := to.Listen(ctx, "tcp4", net.JoinHostPort(addr, "7000"))
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	conn, err := from.Dial(ctx, "tcp4", l.Addr().String())
	if err != nil {
		return 0, err
	}
	return stream(ctx, l, conn, each)
}

func udp(ctx context.Context, from, to *lab.Host, addr string, each time.Duration) (float64, error) {
	in, err := to.ListenPacket(ctx, "udp4", net.JoinHostPort(addr, "7000"))
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }()
	out, err := from.Dial(ctx, "udp4", in.LocalAddr().String())
	if err != nil {
		return 0, err
	}
	defer func() { _ = out.Close() }()
	return datagrams(ctx, in, out, each)
}
