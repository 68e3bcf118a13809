// Package demo shows Etherloom's main job on one machine: three sites that only dial out become one Ethernet segment. It
// uses the real programs in network namespaces, shows what a user would type, and checks every claim that it makes.
package demo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
)

// prefix begins the names of everything that the demo makes.
const prefix = "loomdemo"

// Run shows the demo on out, with the programs in bin. Whatever happens, it leaves nothing behind.
func Run(ctx context.Context, bin string, out io.Writer) (err error) {
	if err := lab.Supported(); err != nil {
		return fmt.Errorf("the demo needs network namespaces: %w", err)
	}
	if names, err := lab.Sweep(prefix); err != nil {
		return err
	} else if len(names) > 0 {
		fmt.Fprintf(out, "(removed what an earlier demo that was killed had left: %s)\n", strings.Join(names, ", "))
	}
	w, err := world.New(prefix, bin)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, w.Close())
		if err == nil {
			fmt.Fprintln(out, "\nEverything that the demo made is gone again.")
		}
	}()
	began := time.Now()
	s := &show{World: w, ctx: ctx, out: out, secrets: newSecrets()}
	for _, step := range []func() error{
		s.build, s.join, s.before, s.grant, s.names, s.transfer, s.spoof, s.underlay, s.remove,
	} {
		if err := step(); err != nil {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			return err
		}
	}
	fmt.Fprintf(out, "\nAll of it took %v.\n", time.Since(began).Round(100*time.Millisecond))
	return nil
}

// show is a demo under way.
type show struct {
	*world.World
	ctx     context.Context //nolint:containedctx // that of Run
	out     io.Writer
	secrets secrets

	nodes    []*world.Node
	addrs    []string
	captures []capture
	tap      *lab.Capture
	grantID  string
}

// capture is what somebody on the way would see.
type capture struct {
	where string
	*lab.Capture
}

// secrets are random markers that must be seen nowhere on the way.
type secrets struct{ payload, label string }

func newSecrets() secrets {
	var b [24]byte
	rand.Read(b[:])
	return secrets{"payload-" + hex.EncodeToString(b[:12]), "label-" + hex.EncodeToString(b[12:])}
}

func (s *show) title(text string) {
	fmt.Fprintf(s.out, "\n== %s\n", text)
}

func (s *show) say(format string, args ...any) {
	fmt.Fprintf(s.out, "   %s\n", fmt.Sprintf(format, args...))
}

// typed shows a command as a user would type it, with what it prints.
func (s *show) typed(where, command, output string) {
	fmt.Fprintf(s.out, "   %s$ %s\n", where, command)
	for line := range strings.Lines(strings.TrimRight(output, "\n")) {
		fmt.Fprintf(s.out, "     %s\n", strings.TrimRight(line, "\n"))
	}
}

// name makes names that cannot occur by chance, so that the search for them means something.
func (s *show) name(site string) string { return site + "-" + s.secrets.label[6:14] }

func (s *show) build() error {
	s.title("An internet, a controller, and three sites behind NAT routers that drop every packet from outside")
	if err := s.watch("the controller's and the relay's link", s.Controller, "eth0"); err != nil {
		return err
	}
	if err := s.StartController(s.ctx); err != nil {
		return err
	}
	s.say("controller and relay: %s (HTTPS on TCP 443, STUN and TURN on UDP 3478)", world.ControllerAddr)
	for i, guard := range []lab.Guard{lab.PortPreserving, lab.PortPreserving, lab.Symmetric} {
		letter := string(rune('a' + i))
		site, err := s.Site(letter, guard)
		if err != nil {
			return err
		}
		n, err := site.Node(s.name(letter))
		if err != nil {
			return err
		}
		if err := s.watch("the uplink of site "+letter, n.Host, "eth0"); err != nil {
			return err
		}
		s.nodes = append(s.nodes, n)
		kind := "keeps ports"
		if guard == lab.Symmetric {
			kind = "gives every destination another port (symmetric)"
		}
		s.say("site %s: 192.0.2.2 behind 203.0.113.%d, whose NAT %s", letter, 21+i, kind)
	}
	return nil
}

func (s *show) watch(where string, h *lab.Host, dev string) error {
	c, err := h.Capture(dev)
	if err != nil {
		return err
	}
	s.captures = append(s.captures, capture{where, c})
	return nil
}

func (s *show) join() error {
	s.title("The machines join: one token each, one command, nothing trusted on first use")
	for _, n := range s.nodes {
		if err := n.Join(s.ctx, "--label", "team="+s.secrets.label); err != nil {
			return err
		}
		if err := n.Start(s.ctx); err != nil {
			return err
		}
	}
	s.typed("admin", "etherloom token create --label team=...", "loom1.eyJ1IjpbImh0dHBzOi8v... (a secret, good for one use)")
	s.typed("site a", "etherloom join TOKEN && etherloom run", "joined network ... as "+s.nodes[0].Name)
	out, err := s.Admin(s.ctx, "node", "list")
	s.typed("admin", "etherloom node list", out)
	return err
}

func (s *show) before() error {
	s.title("Without a grant there is nothing: no device, no peer, no name")
	out, err := s.nodes[0].Loom(s.ctx, "peers")
	if err != nil {
		return err
	}
	s.typed("site a", "etherloom peers", out)
	if strings.Contains(out, s.nodes[1].Name) {
		return errors.New("site a knows site b without a grant")
	}
	if out, err := s.nodes[0].Host.Run(s.ctx, "getent", "hosts", s.nodes[1].Name+".etherloom.internal"); err == nil {
		return fmt.Errorf("site a resolves site b without a grant: %s", out)
	}
	s.typed("site a", "ping "+s.nodes[1].Name+".etherloom.internal", "Name or service not known")
	return nil
}

func (s *show) grant() error {
	s.title("One grant, and they are on one Ethernet segment")
	id, err := s.Grant(s.ctx, "label:team="+s.secrets.label, "segment:lan")
	if err != nil {
		return err
	}
	s.grantID = id
	s.typed("admin", "etherloom grant add --from label:team=... --to segment:lan", "grant "+id)
	for _, n := range s.nodes {
		var addr string
		if err := world.Await(s.ctx, n.Name+" has an address", 10*time.Second, func() bool {
			addr = n.Address(s.ctx)
			return addr != ""
		}); err != nil {
			return err
		}
		s.addrs = append(s.addrs, addr)
	}
	if s.tap, err = s.nodes[1].Host.Capture("loom0"); err != nil {
		return err
	}
	for _, i := range []int{1, 2} {
		if err := s.ping(0, i); err != nil {
			return err
		}
	}
	err = world.Await(s.ctx, "sites a and b meet directly", 20*time.Second, func() bool {
		out, err := s.nodes[0].Loom(s.ctx, "peers")
		return err == nil && strings.Contains(out, "direct")
	})
	if err != nil {
		return err
	}
	out, err := s.nodes[0].Loom(s.ctx, "peers")
	s.typed("site a", "etherloom peers", out)
	return err
}

// ping pings by name with the system's ping, or with the demo's own where there is none.
func (s *show) ping(from, to int) error {
	n, name := s.nodes[from], s.nodes[to].Name+".etherloom.internal"
	out, err := n.Host.Run(s.ctx, "ping", "-c", "3", "-i", "0.2", "-W", "5", name)
	if err != nil && !strings.Contains(out, "bytes of data") {
		replies, err := n.Host.Ping(s.ctx, s.addrs[to], lab.Echo{Count: 3, Interval: 200 * time.Millisecond, Wait: 5 * time.Second})
		if err != nil {
			return err
		}
		out = fmt.Sprintf("%d packets transmitted, %d received", replies.Sent, replies.Received)
	} else if err != nil {
		return fmt.Errorf("%s does not answer: %s", name, out)
	}
	s.typed("site "+string(rune('a'+from)), "ping "+name, out)
	return nil
}

func (s *show) names() error {
	s.title("Names resolve, by the host's own resolver; nobody manages addresses")
	name := s.nodes[1].Name + ".etherloom.internal"
	out, err := s.nodes[0].Host.Run(s.ctx, "getent", "ahosts", name)
	if err != nil {
		return fmt.Errorf("%s does not resolve: %s", name, out)
	}
	s.typed("site a", "getent ahosts "+name, out)
	return nil
}

// transferSize is how much the TCP transfer carries, transferTime how long it may take.
const (
	transferSize = 16 << 20
	transferTime = 20 * time.Second
)

func (s *show) transfer() error {
	s.title("A TCP transfer from site a to site b, 1500-byte MTU on both ends")
	ctx, cancel := context.WithTimeout(s.ctx, transferTime)
	defer cancel()
	l, err := s.nodes[1].Host.Listen(ctx, "tcp4", net.JoinHostPort(s.addrs[1], "7000"))
	if err != nil {
		return err
	}
	defer closeWith(ctx, l)()
	got := make(chan error, 1)
	block := []byte(strings.Repeat(s.secrets.payload+" ", 100))
	go func() { got <- receive(ctx, l, block) }()
	conn, err := s.nodes[0].Host.Dial(ctx, "tcp4", net.JoinHostPort(s.addrs[1], "7000"))
	if err != nil {
		return err
	}
	defer closeWith(ctx, conn)()
	began := time.Now()
	for sent := 0; sent < transferSize; sent += len(block) {
		if _, err := conn.Write(block); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	if err := conn.Close(); err != nil {
		return err
	}
	if err := <-got; err != nil {
		return err
	}
	took := time.Since(began)
	s.say("%d MiB arrived, every byte as it was sent, at %.0f Mbit/s", transferSize>>20, transferSize*8/took.Seconds()/1e6)
	return nil
}

// closeWith closes c when ctx ends, which wakes whoever waits for it, and at the latest when what it returns is called.
func closeWith(ctx context.Context, c io.Closer) (closeNow func()) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	return func() {
		stop()
		_ = c.Close()
	}
}

// receive reads a transfer and checks every byte.
func receive(ctx context.Context, l net.Listener, block []byte) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer closeWith(ctx, conn)()
	data, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	if len(data) < transferSize {
		return fmt.Errorf("%d of %d bytes arrived", len(data), transferSize)
	}
	for i := range data {
		if data[i] != block[i%len(block)] {
			return fmt.Errorf("byte %d is wrong", i)
		}
	}
	return nil
}
