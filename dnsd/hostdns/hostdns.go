// Package hostdns points the resolver of this host at a DNS server of ours, and takes it back.
//
// There are two ways, and the host decides which:
//
//   - Where systemd-resolved is on the system bus (resolved.go), the link of the TAP gets our server, and our
//     domains for routing only. Nobody else's queries come to us. What resolved knows of a link goes with the link.
//   - Everywhere else /etc/resolv.conf gets our server as its first nameserver (file.go). All queries come to us,
//     and the nameservers that were there follow, so names resolve while our server is down. glibc reads three of
//     them. musl asks all at once and takes the first answer, so it may be told by another one that a name of ours
//     does not exist.
//
// The file is the host's, and the rules are made so that it never stays changed, and no change of others is lost:
//
//	     record the original      write ours        put the original back    drop the record
//	──────────────●───────────────────●─────────────────────●──────────────────────●─────────►
//	  untouched       untouched               ours                 untouched
//
// The rules in words:
//
//   - The original (bytes, mode and owner, or where the symlink points) is recorded in the state directory and is
//     on the disk before the file is touched. Whenever the daemon dies, Recover finds the record at the next start
//     and puts it back.
//   - Only what we wrote is replaced. If a DHCP client or a person has changed the file since, that stays, our record
//     is dropped, and the caller is told (Outcome, State). Nobody is fought over the file.
//   - A file is replaced by rename, so that no reader sees half of one. Where that cannot be, since the file is a
//     mount point as under "ip netns exec" and in containers, it is overwritten, and a half-written one is known for
//     ours too.
//
// A caller runs Recover before anything else, then New, Run in a goroutine of its own, and Set when the server listens.
package hostdns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Config says where things are. Every field but StateDir has the host's usual place as its default.
type Config struct {
	StateDir   string       // the directory for the record of the original file; it must exist
	ResolvConf string       // "" means /etc/resolv.conf
	UplinkConf string       // the upstream nameservers of systemd-resolved; "" means /run/systemd/resolve/resolv.conf
	BusAddress string       // of the D-Bus system bus, such as unix:path=/run/bus; "" means the usual one
	Log        *slog.Logger // nil means no log
}

// Target is what the host's resolver shall be pointed at.
type Target struct {
	Server  netip.AddrPort // where our server listens; resolv.conf knows only port 53
	Link    int            // the interface index of the TAP, for systemd-resolved
	Domains []string       // whose queries shall come to us, without final dots: the zone and its reverse zones
	Search  string         // a domain to complete short names with, beside the host's own; "" for none
}

// check refuses what would write anything but what it says into resolv.conf.
func (t Target) check() error {
	if !t.Server.IsValid() || t.Server.Addr().IsUnspecified() || t.Server.Port() == 0 {
		return fmt.Errorf("DNS server %v: not one address and port", t.Server)
	}
	if len(t.Domains) == 0 {
		return errors.New("no domain to ask the DNS server for")
	}
	for _, d := range append([]string{t.Search}, t.Domains...) {
		if strings.ContainsFunc(d, func(c rune) bool { return c <= ' ' || c > '~' }) || len(d) > 254 {
			return fmt.Errorf("domain %q: not a domain name", d)
		}
	}
	if slices.Contains(t.Domains, "") {
		return errors.New(`domain "": not a domain name`)
	}
	return nil
}

// Mode is the way in which the host's resolver is pointed at our server.
type Mode string

// The modes.
const (
	ModeNone     Mode = "none"             // it is not
	ModeResolved Mode = "systemd-resolved" // through the link of the TAP
	ModeFile     Mode = "resolv.conf"      // through the file
)

// State is what there is to say of the host's resolver at one moment.
type State struct {
	Mode    Mode
	Server  netip.AddrPort // the target's; zero in ModeNone
	Changed bool           // resolv.conf has been changed by somebody else since, and may no longer name our server
	Note    string         // one sentence for the operator; "" if all is well
}

// Outcome is what came of restoring.
type Outcome string

// The outcomes.
const (
	Nothing   Outcome = "nothing to restore"
	Restored  Outcome = "restored"
	LeftAlone Outcome = "left as it is: somebody else has changed it"
)

// Resolver is the resolver of this host. Its methods may be called from several goroutines.
type Resolver struct {
	cfg   Config
	bus   bus
	state atomic.Pointer[State]
	wake  chan struct{} // of capacity 1: what there is to watch has changed

	// Set, Restore and Run's looks at the file happen one at a time, so this lock is held across disk and bus.
	busy   sync.Mutex
	file   file
	target Target
}

// New returns the host's resolver, which it does not touch.
func New(cfg Config) *Resolver {
	cfg.ResolvConf = cmp.Or(cfg.ResolvConf, "/etc/resolv.conf")
	if abs, err := filepath.Abs(cfg.ResolvConf); err == nil {
		cfg.ResolvConf = abs // the next daemon may have another working directory
	}
	cfg.UplinkConf = cmp.Or(cfg.UplinkConf, "/run/systemd/resolve/resolv.conf")
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	r := &Resolver{
		cfg:  cfg,
		bus:  bus{address: cfg.BusAddress},
		wake: make(chan struct{}, 1),
		file: file{path: cfg.ResolvConf, records: records{dir: cfg.StateDir}},
	}
	r.state.Store(&State{Mode: ModeNone})
	return r
}

// State returns the last known state. Run keeps it up to date.
func (r *Resolver) State() State { return *r.state.Load() }

// Set points the host's resolver at the target, in place of an earlier one. The server should listen by then.
//
// A target that is refused changes nothing. If the host cannot be pointed at it, everything is as before the first Set.
// What resolv.conf holds at the first Set, or at the first one after somebody else has changed it, is the original that
// comes back.
func (r *Resolver) Set(ctx context.Context, t Target) error {
	if err := t.check(); err != nil {
		return err
	}
	t.Server = netip.AddrPortFrom(t.Server.Addr().Unmap(), t.Server.Port())
	r.busy.Lock()
	defer r.busy.Unlock()
	mode, err := r.mode(ctx)
	if err != nil {
		return err
	}
	if mode == ModeFile && t.Server.Port() != 53 {
		return fmt.Errorf("DNS server %v: resolv.conf cannot name a port other than 53", t.Server)
	}
	if old := r.State().Mode; old != mode || old == ModeResolved && r.target.Link != t.Link {
		if _, err := r.restoreLocked(ctx); err != nil {
			return err
		}
	}
	return r.setLocked(ctx, mode, t)
}

// mode finds out which way the host has.
func (r *Resolver) mode(ctx context.Context) (Mode, error) {
	resolved, err := r.bus.present(ctx)
	if err != nil {
		return ModeNone, fmt.Errorf("look for systemd-resolved: %w", err)
	}
	if resolved {
		return ModeResolved, nil
	}
	return ModeFile, nil
}

func (r *Resolver) setLocked(ctx context.Context, mode Mode, t Target) error {
	state := State{Mode: mode, Server: t.Server}
	var err error
	if mode == ModeResolved {
		err = r.bus.set(ctx, t)
		state.Note = r.bypass()
	} else {
		err = r.file.set(t)
	}
	if err != nil {
		state = State{Mode: ModeNone}
	}
	r.target = t
	r.publish(state)
	return err
}

// Restore takes back what Set did.
func (r *Resolver) Restore(ctx context.Context) (Outcome, error) {
	r.busy.Lock()
	defer r.busy.Unlock()
	return r.restoreLocked(ctx)
}

func (r *Resolver) restoreLocked(ctx context.Context) (Outcome, error) {
	outcome, err := Nothing, error(nil)
	switch r.State().Mode {
	case ModeResolved:
		outcome, err = Restored, r.bus.revert(ctx, r.target.Link)
	case ModeFile, ModeNone: // a Set that failed may have left a record
		outcome, err = recoverFile(r.file.records)
	}
	if err != nil {
		return Nothing, err
	}
	if outcome == LeftAlone {
		r.cfg.Log.Warn("resolver left as somebody else has set it", "path", r.cfg.ResolvConf)
	}
	r.publish(State{Mode: ModeNone})
	return outcome, nil
}

func (r *Resolver) publish(s State) {
	r.state.Store(&s)
	select {
	case r.wake <- struct{}{}:
	default: // Run has been told already
	}
}

// Recover puts back the resolv.conf that a daemon which died had recorded in its state directory. A daemon calls it
// at its start, before it uses the network. Without a record it does nothing.
func Recover(stateDir string) (Outcome, error) { return recoverFile(records{dir: stateDir}) }

// recoverFile acts on the file that the record names, wherever New would look.
func recoverFile(from records) (Outcome, error) {
	rec, err := from.load()
	if err != nil {
		return Nothing, err
	}
	if rec == nil {
		return Nothing, from.drop() // may be half a record, of a file that was not touched yet
	}
	f := file{path: rec.Path, records: from}
	return f.restore()
}
