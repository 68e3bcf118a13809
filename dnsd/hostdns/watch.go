package hostdns

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	settle     = 100 * time.Millisecond // an editor writes in several steps
	slowLook   = 30 * time.Second       // for what inotify does not tell: a mount over the file, a full queue
	restoreFor = 5 * time.Second
)

// Run watches what Set has written until ctx is done, and then takes it back. It returns the error of that.
//
// When somebody else changes resolv.conf, Run tells the log and State, and does nothing else. When our file stands in
// for a symlink and the file that the symlink leads to is changed, Run writes ours anew with what that says. Set must
// not be called after Run has returned: nobody would take it back.
func (r *Resolver) Run(ctx context.Context) error {
	events, failures, watch, done := r.watcher()
	defer done()
	slow := time.NewTicker(slowLook)
	defer slow.Stop()
	var due <-chan time.Time
	for {
		paths := r.paths()
		watch(paths)
		select {
		case <-ctx.Done():
			// The context of this call has ended, what is left to do has not.
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreFor)
			defer cancel()
			_, err := r.Restore(last)
			return err
		case <-r.wake:
		case e := <-events:
			if due == nil && concerns(e.Name, paths) {
				due = time.After(settle)
			}
		case err := <-failures: // such as a full queue: some events are lost
			r.cfg.Log.Warn("resolver watch", "path", r.cfg.ResolvConf, "err", err)
			due = time.After(settle)
		case <-slow.C:
			r.look()
		case <-due:
			due = nil
			r.look()
		}
	}
}

// watcher starts inotify. Without it, which happens when the host has used up its watches, the slow look is all there
// is.
func (r *Resolver) watcher() (<-chan fsnotify.Event, <-chan error, func(paths []string), func()) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		r.cfg.Log.Warn("resolver is looked at every 30 s only", "path", r.cfg.ResolvConf, "err", err)
		return nil, nil, func([]string) {}, func() {}
	}
	watch := func(paths []string) {
		// The directory tells of a new file under the name, the file itself of changes made through another name of
		// it, as with a bind mount. Adding a path again costs a system call and follows the name to a new file.
		for _, path := range paths {
			w.Add(filepath.Dir(path)) //nolint:errcheck // no directory, no change in it
			w.Add(path)               //nolint:errcheck // no file, no change of it
		}
	}
	return w.Events, w.Errors, watch, func() { w.Close() } //nolint:errcheck // nothing is left to lose
}

func concerns(name string, paths []string) bool {
	for _, path := range paths {
		if name == path {
			return true
		}
	}
	return false
}

// paths returns the files to watch: resolv.conf and, where it was a symlink, the file that the symlink leads to.
func (r *Resolver) paths() []string {
	if r.State().Mode != ModeFile {
		return nil
	}
	out := []string{filepath.Clean(r.cfg.ResolvConf)}
	r.busy.Lock()
	defer r.busy.Unlock()
	rec, err := r.file.records.load()
	if err == nil && rec != nil && rec.Was.Kind == kindSymlink {
		out = append(out, filepath.Clean(rec.target()))
	}
	return out
}

// look compares the file with what we wrote.
func (r *Resolver) look() {
	r.busy.Lock()
	defer r.busy.Unlock()
	state := r.State()
	if state.Mode != ModeFile {
		return
	}
	rec, _, is, err := r.file.look()
	if err != nil {
		r.cfg.Log.Warn("resolver cannot be read", "path", r.cfg.ResolvConf, "err", err)
		return
	}
	changed := rec == nil || is != ours
	if changed != state.Changed {
		r.noteChange(state, changed)
	}
	if changed || rec.Was.Kind != kindSymlink {
		return
	}
	content, err := os.ReadFile(rec.target())
	if err != nil || bytes.Equal(content, rec.Was.Content) {
		return
	}
	if err := r.file.set(r.target); err != nil {
		r.cfg.Log.Warn("resolver not brought up to date", "path", r.cfg.ResolvConf, "err", err)
	}
}

func (r *Resolver) noteChange(state State, changed bool) {
	state.Changed, state.Note = changed, ""
	if changed {
		r.cfg.Log.Warn("resolver changed by somebody else", "path", r.cfg.ResolvConf)
		state.Note = r.cfg.ResolvConf + " has been changed by somebody else: it stays so, and the network's names may not resolve"
	} else {
		r.cfg.Log.Info("resolver is ours again", "path", r.cfg.ResolvConf)
	}
	r.publish(state)
}
