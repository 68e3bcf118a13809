// Package posture finds what can be said of this machine, and of what its own configuration names: whether files are
// there, whether programs run, what commands answer. It judges nothing: the controllers do, by the conditions of grants.
//
//	every Interval                                  every Interval
//	os-release, uname, mountinfo, /sys   ─┐     ┌─  commands, one after the other, each with its time
//	files, processes (/proc/PID/exe)     ─┼► Watcher ──► changed(), if anything differs from the last Report
//	underlay addresses                   ─┘
//
// Nobody but this machine's administrator can make it look at a file or run a program: there is no other source of names
// than the configuration, and a command runs only if nobody but root could have put it there (trust.go). Everything is
// bounded: how many things are looked at, how much of a file is read, how long a command runs and how much of its output
// is kept. A file is opened only after it is known to be a regular one, so that no device is touched.
//
// A report proves nothing against the machine's own root, who can make it say anything.
package posture

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"regexp"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Config is what to look at.
type Config struct {
	Interval  time.Duration `yaml:"interval" mapstructure:"interval" usage:"between two looks at this machine; a report is sent only when one differs from the last"`
	Files     []string      `yaml:"files" mapstructure:"files" usage:"paths of files that conditions of grants may ask about"`
	Processes []string      `yaml:"processes" mapstructure:"processes" usage:"paths of programs that conditions may ask about: does one run, with which SHA-256"`
	Commands  []Command     `yaml:"commands" mapstructure:"commands" usage:"programs to run, each {name, path, args}, that conditions may ask about: exit status, first line of output; root's alone"`
}

// Command is a program that is run, without a shell and without an environment.
type Command struct {
	Name string   `yaml:"name" mapstructure:"name"`
	Path string   `yaml:"path" mapstructure:"path"`
	Args []string `yaml:"args" mapstructure:"args"`
}

// Bounds. Controllers refuse reports beyond them.
const (
	MinInterval  = 200 * time.Millisecond
	maxFiles     = 32
	maxProcesses = 32
	maxCommands  = 16
	maxAddresses = 32
	maxArgs      = 32
	maxText      = 256 // bytes
)

// commandName is what a command may be called.
var commandName = regexp.MustCompile(`^[a-z0-9]([a-z0-9_.-]{0,62}[a-z0-9])?$`)

// Check says what is wrong with a configuration, each fault with the key it is about.
func (c *Config) Check() error {
	var errs []error
	need := func(ok bool, key string, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("posture.%s: %s", key, fmt.Sprintf(format, args...)))
		}
	}
	need(c.Interval >= MinInterval, "interval", "%v is less than %v", c.Interval, MinInterval)
	for _, list := range []struct {
		key   string
		paths []string
		most  int
	}{{"files", c.Files, maxFiles}, {"processes", c.Processes, maxProcesses}} {
		need(len(list.paths) <= list.most, list.key, "there are %d, expected at most %d", len(list.paths), list.most)
		seen := map[string]bool{}
		for _, p := range list.paths {
			need(goodPath(p), list.key, "%q is not an absolute path in its shortest form, of at most %d bytes", p, maxText)
			need(!seen[p], list.key, "%q is named twice", p)
			seen[p] = true
		}
	}
	need(len(c.Commands) <= maxCommands, "commands", "there are %d, expected at most %d", len(c.Commands), maxCommands)
	seen := map[string]bool{}
	for _, cmd := range c.Commands {
		need(commandName.MatchString(cmd.Name), "commands", "name %q is not of lower case letters, digits, dots, dashes and underscores", cmd.Name)
		need(!seen[cmd.Name], "commands", "two are called %q", cmd.Name)
		need(goodPath(cmd.Path), "commands", "path %q of %q is not an absolute path in its shortest form, of at most %d bytes", cmd.Path, cmd.Name, maxText)
		need(len(cmd.Args) <= maxArgs, "commands", "%q has %d args, expected at most %d", cmd.Name, len(cmd.Args), maxArgs)
		seen[cmd.Name] = true
	}
	return errors.Join(errs...)
}

func goodPath(p string) bool {
	return filepath.IsAbs(p) && filepath.Clean(p) == p && clean(p) == p
}

// Report is what was found. It never changes.
type Report struct {
	Sequence      uint64             `json:"sequence"` // greater than that of every earlier report
	Changed       time.Time          `json:"changed"`  // when it was found to differ from the one before
	OS            string             `json:"os"`
	OSVersion     string             `json:"os_version"`
	Kernel        string             `json:"kernel"`
	Arch          string             `json:"arch"`
	Agent         string             `json:"agent"`
	Hostname      string             `json:"hostname"`
	DiskEncrypted bool               `json:"disk_encrypted"` // the root file system
	Underlay      []string           `json:"underlay"`       // addresses
	Files         map[string]File    `json:"files"`          // by path
	Processes     map[string]Process `json:"processes"`      // by path
	Commands      map[string]Result  `json:"commands"`       // by name
}

// File is a file that the configuration names.
type File struct {
	Exists  bool   `json:"exists"`
	Regular bool   `json:"regular"`
	SHA256  string `json:"sha256,omitempty"` // hex, of a regular file of at most 64 MiB
	Mode    string `json:"mode,omitempty"`   // permission bits, octal
	UID     uint32 `json:"uid"`
	GID     uint32 `json:"gid"`
	Size    int64  `json:"size"`
	Fault   string `json:"fault,omitempty"` // why it could not be looked at
}

// Process is a program that the configuration names.
type Process struct {
	Running bool   `json:"running"`          // a process runs the very file that is at the path now
	SHA256  string `json:"sha256,omitempty"` // of that file
	UID     uint32 `json:"uid"`              // owner of the file
	Fault   string `json:"fault,omitempty"`
}

// Result is what came of a command.
type Result struct {
	Ran   bool   `json:"ran"` // it came to its end by itself, in time
	Exit  int    `json:"exit"`
	Line  string `json:"line,omitempty"` // first line of its standard output
	Fault string `json:"fault,omitempty"`
}

// Watcher keeps the newest Report.
type Watcher struct {
	cfg      Config
	agent    string
	underlay func() []netip.Addr
	changed  func()
	poke     chan struct{}
	looker   *looker
	runner   *runner

	mu     sync.Mutex
	looked *Report
	ran    map[string]Result
	latest *Report
}

// New returns a Watcher. The agent is the daemon's version; underlay returns the addresses that it sends from. Changed is
// called when there is a new Report, and must not wait.
func New(cfg Config, agent string, underlay func() []netip.Addr, changed func()) *Watcher {
	cfg.Interval = max(cfg.Interval, MinInterval)
	return &Watcher{
		cfg: cfg, agent: agent, underlay: underlay, changed: changed, poke: make(chan struct{}, 1), looker: newLooker("/"),
		runner: newRunner(),
	}
}

// Latest returns the newest Report; nil before everything has been looked at once.
func (w *Watcher) Latest() *Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest
}

// Poke makes the Watcher look at everything but the commands now. It does not wait.
func (w *Watcher) Poke() {
	select {
	case w.poke <- struct{}{}:
	default:
	}
}

// Run looks until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.every(ctx, w.poke, w.look) })
	group.Go(func() error { return w.every(ctx, nil, w.run) })
	return group.Wait()
}

// every calls f at once, at each interval and when it is poked.
func (w *Watcher) every(ctx context.Context, poke <-chan struct{}, f func(context.Context)) error {
	tick := time.NewTicker(w.cfg.Interval)
	defer tick.Stop()
	for {
		f(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-poke:
		case <-tick.C:
		}
	}
}

// look takes in everything but the commands.
func (w *Watcher) look(ctx context.Context) {
	r := w.looker.facts()
	r.Agent, r.Underlay = clean(w.agent), []string{}
	for _, a := range w.underlay() {
		if len(r.Underlay) < maxAddresses {
			r.Underlay = append(r.Underlay, a.String())
		}
	}
	r.Files = map[string]File{}
	for _, path := range w.cfg.Files {
		r.Files[path] = w.looker.file(ctx, path)
	}
	r.Processes = w.looker.processes(ctx, w.cfg.Processes)
	if ctx.Err() != nil {
		return // what was not finished would look like a change
	}
	w.mu.Lock()
	w.looked = r
	w.mu.Unlock()
	w.publish()
}

// run runs the commands.
func (w *Watcher) run(ctx context.Context) {
	ran := map[string]Result{}
	for _, c := range w.cfg.Commands {
		ran[c.Name] = w.runner.run(ctx, c)
	}
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	w.ran = ran
	w.mu.Unlock()
	w.publish()
}

// publish makes a new Report if what is known differs from the last one. The first waits until everything is known, so
// that a daemon which starts does not look like a machine on which something is missing.
func (w *Watcher) publish() {
	w.mu.Lock()
	if w.looked == nil || w.ran == nil {
		w.mu.Unlock()
		return
	}
	next := *w.looked
	next.Commands = w.ran
	if last := w.latest; last != nil {
		next.Sequence, next.Changed = last.Sequence, last.Changed
		if reflect.DeepEqual(&next, last) {
			w.mu.Unlock()
			return
		}
	}
	next.Changed = time.Now()
	next.Sequence = max(next.Sequence+1, uint64(next.Changed.UnixNano())) //nolint:gosec // after 1970
	w.latest = &next
	w.mu.Unlock()
	w.changed()
}
