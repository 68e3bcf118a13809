package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/etherloom/etherloom/control/server"
	"github.com/etherloom/etherloom/internal/settings"
)

// config is what can be set. Every field has a key in the file, a flag and an environment variable.
type config struct {
	DataDir   string   `yaml:"data_dir" mapstructure:"data_dir" usage:"directory of the store, the keys and admin.json"`
	Listen    string   `yaml:"listen" mapstructure:"listen" usage:"HTTPS address"`
	Advertise []string `yaml:"advertise" mapstructure:"advertise" usage:"https://HOST:PORT by which nodes reach this controller; default: the address by which this host reaches others"`
	UDP       string   `yaml:"udp" mapstructure:"udp" usage:"UDP address of the relay beside the controller; the port after it answers STUN, too"`
	Relay     bool     `yaml:"relay" mapstructure:"relay" usage:"run a relay beside the controller"`
	RelayHost []string `yaml:"relay_host" mapstructure:"relay_host" usage:"addresses or names by which nodes reach the relay; default: those of --advertise"`

	Zone        string        `yaml:"zone" mapstructure:"zone" usage:"DNS zone of the network's names; default etherloom.internal"`
	Pool        string        `yaml:"pool" mapstructure:"pool" usage:"IPv4 prefix from which segments get theirs; default 10.64.0.0/10"`
	Certificate time.Duration `yaml:"certificate_lifetime" mapstructure:"certificate_lifetime" usage:"of nodes; default 24h"`
	Grace       time.Duration `yaml:"grace" mapstructure:"grace" usage:"how long nodes go on without any controller; default 72h"`
	LinkIdle    time.Duration `yaml:"link_idle" mapstructure:"link_idle" usage:"links without a frame for so long are closed; default 5m"`
	Posture     struct {
		MaxAge time.Duration `yaml:"max_age" mapstructure:"max_age" usage:"how long a node that is not heard still counts as it was, for conditions on posture; default 5m"`
		Grace  time.Duration `yaml:"grace" mapstructure:"grace" usage:"after a start, for nodes to come back before they count as not heard; default 30s"`
	} `yaml:"posture" mapstructure:"posture"`
	Declare  bool `yaml:"gateways_declare" mapstructure:"gateways_declare" usage:"gateways may attach VLANs by their own configuration; else administrators alone do; set it alike on all controllers"`
	NewAdmin bool `yaml:"new_admin" mapstructure:"new_admin" usage:"write a new admin.json, because the last one is lost or has expired"`

	Etcd struct {
		Endpoints   []string `yaml:"endpoints" mapstructure:"endpoints" usage:"external etcd cluster, https://HOST:PORT; default: an embedded one"`
		CA          string   `yaml:"ca" mapstructure:"ca" usage:"file, PEM: CA of the etcd cluster"`
		Certificate string   `yaml:"certificate" mapstructure:"certificate" usage:"file, PEM: this controller's certificate for the etcd cluster"`
		Key         string   `yaml:"key" mapstructure:"key" usage:"file, PEM: its key"`
	} `yaml:"etcd" mapstructure:"etcd"`

	Log settings.Log `yaml:"log" mapstructure:"log"`
}

func defaults() config {
	var c config
	c.DataDir, c.Listen, c.UDP, c.Relay = "/var/lib/etherloom-controller", ":443", ":3478", true
	c.Declare = true
	c.Log = settings.DefaultLog()
	return c
}

func serveCommand() *cobra.Command {
	cfg := defaults()
	var file string
	var show bool
	cmd := &cobra.Command{
		Use:   "etherloom-controller",
		Short: "Run a controller: it enrols machines, and tells nodes what concerns them",
		Long: "Run a controller: it enrols machines, and tells nodes what concerns them. It is never in the way of data.\n\n" +
			"The first run makes the network's certificate authority, the segment \"lan\", a policy that lets nothing pass, and\n" +
			"DATA-DIR/admin.json, the administrator's credential.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := settings.Load(cmd.Flags(), file, &cfg); err != nil {
				return err
			}
			if show {
				return settings.Print(cmd.OutOrStdout(), &cfg)
			}
			if err := cfg.check(); err != nil {
				return fmt.Errorf("configuration: %w", err)
			}
			return serve(cmd.Context(), &cfg, cfg.Log.New(cmd.ErrOrStderr()))
		},
	}
	settings.Flags(cmd.Flags(), &cfg)
	cmd.Flags().StringVar(&file, "config", os.Getenv("ETHERLOOM_CONFIG"), "configuration file, YAML")
	cmd.Flags().BoolVar(&show, "print-config", false, "print the settings, as a file that --config takes, and exit")
	return cmd
}

// check says what is wrong, each fault with the key it is about. What the controller itself looks at is left to it.
func (cfg *config) check() error {
	var errs []error
	if cfg.Relay {
		_, _, err := splitUDP(cfg.UDP)
		errs = append(errs, err)
	}
	return errors.Join(append(errs, cfg.Log.Check())...)
}

func serve(ctx context.Context, cfg *config, log *slog.Logger) error {
	opts, err := cfg.options(log)
	if err != nil {
		return err
	}
	_, missing := os.Stat(filepath.Join(cfg.DataDir, "admin.json"))
	c, err := server.Open(ctx, opts)
	if err != nil {
		return err
	}
	if errors.Is(missing, fs.ErrNotExist) {
		log.Info("the administrator's credential has been written; keep it secret", "path", filepath.Join(cfg.DataDir, "admin.json"))
	}
	group, ctx := errgroup.WithContext(ctx)
	if cfg.Relay {
		keeper, err := cfg.relayBeside(ctx, c, log)
		if err != nil {
			c.Close()
			return err
		}
		group.Go(func() error { return keeper.Run(ctx) })
	}
	group.Go(func() error { return c.Run(ctx) })
	return group.Wait()
}

func (cfg *config) options(log *slog.Logger) (server.Options, error) {
	o := server.Options{
		DataDir: cfg.DataDir, Listen: cfg.Listen, Advertise: cfg.Advertise, Zone: cfg.Zone,
		CertificateLifetime: cfg.Certificate, Grace: cfg.Grace, LinkIdle: cfg.LinkIdle,
		PostureMaxAge: cfg.Posture.MaxAge, PostureGrace: cfg.Posture.Grace, NewAdmin: cfg.NewAdmin, NoDeclare: !cfg.Declare,
		EtcdEndpoints: cfg.Etcd.Endpoints, EtcdCA: cfg.Etcd.CA, EtcdCertificate: cfg.Etcd.Certificate, EtcdKey: cfg.Etcd.Key,
		Log: log,
	}
	if cfg.Pool != "" {
		p, err := netip.ParsePrefix(cfg.Pool)
		if err != nil {
			return o, fmt.Errorf("pool: %q is not a prefix such as 10.64.0.0/10", cfg.Pool)
		}
		o.Pool = p
	}
	return o, nil
}

// relayHosts are the addresses by which nodes reach the relay.
func (cfg *config) relayHosts(urls []string) []string {
	if len(cfg.RelayHost) > 0 {
		return cfg.RelayHost
	}
	var out []string
	for _, u := range urls {
		if p, err := url.Parse(u); err == nil {
			out = append(out, p.Hostname())
		}
	}
	return out
}
