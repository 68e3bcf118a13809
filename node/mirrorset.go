package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/etherloom/etherloom/internal/atomicfile"
)

// This file adds, lists and removes mirrors, and keeps them over restarts.

// MirrorSpec says which frames are copied where.
type MirrorSpec struct {
	From      string `json:"from"`      // a port, as `etherloom ports` calls it
	Segment   string `json:"segment"`   // of that port; may be left out if only one has such a port
	Direction string `json:"direction"` // in, out or both
	To        string `json:"to"`        // a network device of this machine; one that is not there is made
}

// MirrorLine is one line of `etherloom mirror list`.
type MirrorLine struct {
	MirrorSpec

	Made   bool   `json:"made"`          // of the device: with the mirror, and gone with the last one
	State  string `json:"state"`         // copies, no-port (it is not there now) or no-device
	Why    string `json:"why,omitempty"` // no copies go to the device
	Copied uint64 `json:"copied"`        // frames, since the daemon has begun
	Lost   uint64 `json:"lost"`          // that the device did not take at once
}

// MirrorRemove asks to end mirrors: all that match.
type MirrorRemove struct {
	From    string `json:"from"` // none: every port
	Segment string `json:"segment"`
	To      string `json:"to"` // none: every device
}

// MirrorChange is what came of a command.
type MirrorChange struct {
	Schema  int          `json:"schema"`
	Mirrors []MirrorLine `json:"mirrors"` // that were added or removed
}

// mostMirrors bounds the work that one frame can make.
const mostMirrors = 16

// AddMirror begins to copy, and does so after restarts, too.
func (d *Daemon) AddMirror(r MirrorSpec) (*MirrorChange, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, err := d.newMirrorLocked(r)
	if err != nil {
		return nil, err
	}
	if m.sink = d.sinks[r.To]; m.sink == nil {
		_, absent := net.InterfaceByName(r.To)
		m.sink = &sink{name: r.To, made: absent != nil}
		if err := d.openSinkLocked(m.sink); err != nil {
			return nil, err
		}
		d.sinks[r.To] = m.sink
	}
	if err := d.replaceMirrorsLocked(append(slices.Clone(d.mirrors), m)); err != nil {
		d.closeSinksLocked()
		return nil, err
	}
	d.log.Info("mirror was added by command", "segment", m.spec.Segment, "port", m.spec.From, "direction", r.Direction, "to", r.To)
	return &MirrorChange{Schema, []MirrorLine{m.line()}}, nil
}

// newMirrorLocked is what a request asks for, as yet without its device.
func (d *Daemon) newMirrorLocked(r MirrorSpec) (*mirror, error) {
	s, p, err := d.onePortLocked(r.Segment, r.From)
	if err != nil {
		return nil, err
	}
	if err := checkDirection(r.Direction); err != nil {
		return nil, err
	}
	if err := checkDevice(r.To); err != nil {
		return nil, err
	}
	if len(d.mirrors) >= mostMirrors {
		return nil, fmt.Errorf("there are %d mirrors, and no more can be: remove one with `etherloom mirror remove`", len(d.mirrors))
	}
	m := &mirror{spec: MirrorSpec{s.portName(p), s.name, r.Direction, r.To}, key: portKey(s, p)}
	for _, o := range d.mirrors {
		if o.key == m.key && o.spec.To == r.To {
			return nil, fmt.Errorf("port %s is mirrored to %s already (%s): remove that first with `etherloom mirror remove --from %s --to %s`",
				r.From, r.To, o.spec.Direction, r.From, r.To)
		}
	}
	return m, nil
}

func checkDirection(direction string) error {
	if direction != "in" && direction != "out" && direction != "both" {
		return fmt.Errorf("a direction is in, out or both, found %q", direction)
	}
	return nil
}

// checkDevice holds the name of a device against what the kernel takes (dev_valid_name in net/core/dev.c), before one is made.
func checkDevice(name string) error {
	odd := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/:%", r) }
	if name == "" || len(name) > 15 || name == "." || name == ".." || strings.ContainsFunc(name, odd) {
		return fmt.Errorf("%q is not the name of a network device: give one that is there, such as eth2, or the name of one to be made, such as span0", name)
	}
	return nil
}

// Mirrors lists them.
func (d *Daemon) Mirrors() []MirrorLine {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []MirrorLine{}
	for _, m := range d.mirrors {
		out = append(out, m.line())
	}
	return out
}

func (m *mirror) line() MirrorLine {
	line := MirrorLine{MirrorSpec: m.spec, Made: m.sink.made, State: "copies", Copied: m.copied.Load(), Lost: m.lost.Load()}
	if !m.here {
		line.State = "no-port"
	}
	if m.sink.err != nil {
		line.State, line.Why = "no-device", m.sink.err.Error()
	}
	return line
}

// RemoveMirror ends mirrors.
func (d *Daemon) RemoveMirror(r MirrorRemove) (*MirrorChange, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.From == "" && r.To == "" {
		return nil, errors.New("say which mirrors end, with --from PORT or --to DEVICE, or both")
	}
	out := &MirrorChange{Schema, []MirrorLine{}}
	next := slices.DeleteFunc(slices.Clone(d.mirrors), func(m *mirror) bool {
		is := (r.From == "" || m.from(r.From)) && (r.To == "" || m.spec.To == r.To) && (r.Segment == "" || m.spec.Segment == r.Segment)
		if is {
			out.Mirrors = append(out.Mirrors, m.line())
		}
		return is
	})
	if len(out.Mirrors) == 0 {
		return nil, errors.New("there is no such mirror: `etherloom mirror list` shows those there are")
	}
	if err := d.replaceMirrorsLocked(next); err != nil {
		return nil, err
	}
	d.log.Info("mirrors were removed by command", "segment", r.Segment, "port", r.From, "to", r.To, "removed", len(out.Mirrors))
	return out, nil
}

// from reports whether a mirror is of the port that is called so: by its name, or with its kind in front.
func (m *mirror) from(name string) bool {
	return m.spec.From == name || m.key == m.spec.Segment+"/"+name
}

// replaceMirrorsLocked makes these be the mirrors, and closes devices that none goes to any more.
func (d *Daemon) replaceMirrorsLocked(next []*mirror) error {
	if err := d.saveMirrors(next); err != nil {
		return err
	}
	d.mirrors = next
	d.applyMirrorsLocked()
	d.closeSinksLocked()
	return nil
}

// mirrorsFile is what is kept of mirrors.
type mirrorsFile struct {
	Schema  int          `json:"schema"`
	Mirrors []keptMirror `json:"mirrors"`
}

type keptMirror struct {
	MirrorSpec

	Key  string `json:"key"` // of the port, as in ports.json
	Made bool   `json:"made"`
}

func (d *Daemon) saveMirrors(list []*mirror) error {
	f := mirrorsFile{Schema, []keptMirror{}}
	for _, m := range list {
		f.Mirrors = append(f.Mirrors, keptMirror{m.spec, m.key, m.sink.made})
	}
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(d.dir.Path("mirrors.json"), append(data, '\n'), 0o600)
}

// loadMirrors reads which mirrors there are. Their devices are opened when the daemon runs.
func (d *Daemon) loadMirrors() error {
	d.sinks = map[string]*sink{}
	path := d.dir.Path("mirrors.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var f mirrorsFile
	err = json.Unmarshal(data, &f)
	if err == nil && f.Schema != Schema {
		err = fmt.Errorf("expected schema %d, found %d", Schema, f.Schema)
	}
	for _, k := range f.Mirrors {
		err = errors.Join(err, checkDirection(k.Direction), checkDevice(k.To))
	}
	if err != nil {
		return fmt.Errorf("%s, which holds what `etherloom mirror add` has set, cannot be read: correct it, or move it away and set it anew: %w", path, err)
	}
	for _, k := range f.Mirrors {
		if d.sinks[k.To] == nil {
			d.sinks[k.To] = &sink{name: k.To, made: k.Made, err: errors.New("it is not open yet")}
		}
		d.mirrors = append(d.mirrors, &mirror{spec: k.MirrorSpec, key: k.Key, sink: d.sinks[k.To]})
	}
	return nil
}

func (d *Daemon) localMirrors(mux *http.ServeMux) {
	mux.HandleFunc("POST /mirror/add", answering(d.AddMirror))
	mux.HandleFunc("POST /mirror/remove", answering(d.RemoveMirror))
}

// AddMirror begins to copy frames.
func (l *Local) AddMirror(ctx context.Context, r MirrorSpec) (out *MirrorChange, err error) {
	err = l.do(ctx, http.MethodPost, "mirror/add", r, &out)
	return out, err
}

// RemoveMirror ends mirrors.
func (l *Local) RemoveMirror(ctx context.Context, r MirrorRemove) (out *MirrorChange, err error) {
	err = l.do(ctx, http.MethodPost, "mirror/remove", r, &out)
	return out, err
}
