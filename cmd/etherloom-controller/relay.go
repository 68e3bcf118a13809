package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/etherloom/etherloom/control/credential"
	"github.com/etherloom/etherloom/control/server"
	"github.com/etherloom/etherloom/internal/atomicfile"
	"github.com/etherloom/etherloom/internal/settings"
	"github.com/etherloom/etherloom/internal/sidecar"
	"github.com/etherloom/etherloom/transport/relay"
)

// besideName is the name of the relay that a controller runs beside itself.
const besideName = "beside-controller"

func relayCommand() *cobra.Command {
	var file, host string
	log := settings.DefaultLog()
	cmd := &cobra.Command{
		Use:   "relay --config FILE",
		Short: "Run a relay: it passes sealed datagrams on between nodes that cannot reach each other",
		Long: "Run a relay: it passes sealed datagrams on between nodes that cannot reach each other, and to nobody else.\n\n" +
			"FILE is the relay's credential, which `etherloom relay add` prints. A controller runs one relay beside itself.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := log.Check(); err != nil {
				return err
			}
			if file == "" {
				return errors.New("no credential: `etherloom relay add NAME --host ADDRESS` prints one; save it and name it with --config")
			}
			return runRelay(cmd.Context(), file, host, log.New(cmd.ErrOrStderr()))
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "the relay's credential")
	cmd.Flags().StringVar(&host, "host", "", "address to listen on; default: every one of this machine")
	cmd.Flags().StringVar(&log.Level, "log-level", log.Level, "debug, info, warn or error")
	cmd.Flags().StringVar(&log.Format, "log-format", log.Format, "text or json")
	return cmd
}

func runRelay(ctx context.Context, file, host string, log *slog.Logger) error {
	// The relay outlives a controller that is killed, and with it the pipe that its log goes to.
	signal.Ignore(syscall.SIGPIPE)
	data, err := credential.Read(file)
	if err != nil {
		return err
	}
	cred, err := credential.ParseRelay(data)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	addr := netip.IPv6Unspecified()
	if host != "" {
		if addr, err = netip.ParseAddr(host); err != nil {
			return fmt.Errorf("host: %q is not an IP address", host)
		}
	}
	release, err := sidecar.Hold(file+".lock", relayMark(data, host))
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	defer release()
	main, err := relay.Listen(netip.AddrPortFrom(addr, cred.Port))
	if err != nil {
		return explainPort(err, cred.Port)
	}
	probe, err := relay.Listen(netip.AddrPortFrom(addr, cred.ProbePort))
	if err != nil {
		_ = main.Close()
		return explainPort(err, cred.ProbePort)
	}
	return relay.New(relay.Config{
		Log: log,
		Authenticate: func(username string, now time.Time) (uint16, string, error) {
			slot, password, err := cred.Secret.Check(username, now)
			if slot > 65535 {
				return 0, "", fmt.Errorf("slot %d does not exist", slot)
			}
			return uint16(slot), password, err
		},
	}, main, probe).Run(ctx)
}

func explainPort(err error, port uint16) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("UDP port %d is in use by another process (`ss -lunp sport = :%d` shows which): stop it, or choose another port", port, port)
	}
	return err
}

// relayMark names what a relay runs with.
func relayMark(credential []byte, host string) string {
	sum := sha256.Sum256(append([]byte(host+"\x00"), credential...))
	return fmt.Sprintf("%x", sum[:8])
}

// relayBeside registers a relay and makes ready to run it as a process of its own, so that it goes on when the controller
// dies.
func (cfg *config) relayBeside(ctx context.Context, c *server.Controller, log *slog.Logger) (*sidecar.Keeper, error) {
	host, port, err := splitUDP(cfg.UDP)
	if err != nil {
		return nil, err
	}
	cred, err := c.LocalRelay(ctx, besideName, cfg.relayHosts(c.URLs()), credential.Relay{Port: port, ProbePort: port + 1})
	if err != nil {
		return nil, err
	}
	data, err := cred.Marshal()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(cfg.DataDir, "relay.json")
	if err := atomicfile.Write(file, data, 0o600); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	args := []string{"relay", "--config", file, "--log-level", cfg.Log.Level, "--log-format", cfg.Log.Format}
	if host != "" {
		args = append(args, "--host", host)
	}
	return &sidecar.Keeper{
		Lock: file + ".lock", Mark: relayMark(data, host), Log: log, Stderr: os.Stderr,
		Command: func() *exec.Cmd { return exec.Command(self, args...) }, //nolint:gosec // our own program and arguments
	}, nil
}

func splitUDP(s string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(s)
	n, err2 := strconv.ParseUint(text, 10, 16)
	if err != nil || err2 != nil || n == 0 || n == 65535 {
		return "", 0, fmt.Errorf("udp: %q is not [ADDRESS]:PORT with a port from 1 to 65534", s)
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil {
		return "", 0, fmt.Errorf("udp: %q is not an IP address of this machine", host)
	}
	return host, uint16(n), nil
}
