package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/etherloom/etherloom/control/client"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/identity"
)

// crowdEnv makes the test program a crowd: COUNT TOKEN.
const crowdEnv = "ETHERLOOM_E2E_CROWD"

// crowdReady is what the crowd prints when every member holds a state.
const crowdReady = "crowd is ready"

// spectator is a simulated node: it has enrolled, keeps a stream, and applies what it is told with the node's own code. It
// has no links.
type spectator struct {
	name   string
	reader *state.Reader
	client *client.Client

	mu      sync.Mutex
	held    *state.Held
	revoked int
}

// crowd is the process that simulates nodes. It prints a line when one of them learns of a revocation.
func crowd(spec string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var count int
	var text string
	if _, err := fmt.Sscan(spec, &count, &text); err != nil {
		return fmt.Errorf("%s: expected COUNT TOKEN: %w", crowdEnv, err)
	}
	token, err := identity.ParseToken(text)
	if err != nil {
		return err
	}
	var all []*spectator
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range count {
		s, err := enrolSpectator(ctx, token, fmt.Sprintf("crowd-%02d", i))
		if err != nil {
			return err
		}
		all = append(all, s)
		wg.Go(func() { _ = s.client.Run(ctx) })
	}
	for _, s := range all {
		for !s.ready() {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	fmt.Println(crowdReady)
	<-ctx.Done()
	return nil
}

// enrolSpectator enrols a node, as often as it takes: the controller takes only so many calls from one address.
func enrolSpectator(ctx context.Context, token identity.Token, name string) (*spectator, error) {
	keys, err := identity.NewNodeKeys()
	if err != nil {
		return nil, err
	}
	e, err := client.Enrol(ctx, token, name, keys)
	for err != nil && strings.Contains(err.Error(), "too many calls") && ctx.Err() == nil {
		time.Sleep(200 * time.Millisecond)
		e, err = client.Enrol(ctx, token, name, keys)
	}
	if err != nil {
		return nil, err
	}
	verifier, err := identity.NewVerifier(e.CA)
	if err != nil {
		return nil, err
	}
	s := &spectator{name: name, reader: &state.Reader{Verifier: verifier, Node: e.Certificate.Name.ID}}
	cert := identity.TLSCertificate(e.Leaf, keys.Sign)
	s.client = client.New(client.Config{
		Controllers: e.Controllers, Verifier: func() *identity.Verifier { return verifier },
		Certificate: func() *tls.Certificate { return cert },
		Hello:       s.hello, Apply: s.apply, Signaled: func(identity.ID, []byte) {},
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	return s, nil
}

func (s *spectator) hello(h *controlv1.Hello, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.Agent, h.MaxWire = "spectator", 1
	if !fresh {
		s.held.Hello(h)
	}
}

func (s *spectator) apply(d *controlv1.Delta) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, err := s.reader.Apply(s.held, d, time.Now())
	if err != nil {
		return err
	}
	s.held = held
	c, err := held.State.Contents()
	if err != nil {
		return err
	}
	if len(c.Revocations) > s.revoked {
		fmt.Printf("revoked %d %s\n", time.Now().UnixNano(), s.name)
	}
	s.revoked = len(c.Revocations)
	return nil
}

func (s *spectator) ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held != nil
}
