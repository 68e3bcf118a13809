package node

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// FDBEntry is one line of `etherloom fdb`.
type FDBEntry struct {
	Segment  string        `json:"segment"`
	MAC      string        `json:"mac"`
	Port     string        `json:"port"`
	Who      string        `json:"who"`      // of those behind that port: a node, a host, or NODE/PORT for those whom nobody named
	Identity uint32        `json:"identity"` // theirs
	Kind     string        `json:"kind"`     // dynamic, sticky, static or announced
	Static   bool          `json:"static"`
	Frozen   bool          `json:"frozen"` // it has moved too often, and moves no more for the present
	Moves    uint32        `json:"moves"`
	Idle     time.Duration `json:"idle_ns"`
}

// FDBAdd asks to pin an address to a port.
type FDBAdd struct {
	Segment string `json:"segment"`
	MAC     string `json:"mac"`
	Port    string `json:"port"`
	Sticky  bool   `json:"sticky"` // it ages, but does not move; otherwise it neither ages nor moves
}

// FDBRemove asks to forget an address, of whatever kind.
type FDBRemove struct {
	Segment string `json:"segment"`
	MAC     string `json:"mac"`
}

// FDBFlush asks to forget addresses that were learned: all of them that match.
type FDBFlush struct {
	Segment string `json:"segment"` // none: every one
	Port    string `json:"port"`    // none: every one
	Frozen  bool   `json:"frozen"`  // only those that are frozen
}

// FDBChange is what came of that.
type FDBChange struct {
	Schema   int       `json:"schema"`
	Added    *FDBEntry `json:"added,omitempty"`
	Replaced bool      `json:"replaced,omitempty"` // there was an entry already
	Removed  int       `json:"removed"`
}

// FDB lists what every segment has learned.
func (d *Daemon) FDB() []FDBEntry {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []FDBEntry{}
	now := time.Now()
	for _, s := range d.sortedSegmentsLocked() {
		for _, e := range s.sw.FDB().Entries(now) {
			out = append(out, s.line(&e))
		}
	}
	return out
}

func (s *segment) line(e *fdb.Entry[vswitch.Place]) FDBEntry {
	return FDBEntry{
		Segment: s.name, MAC: e.MAC.String(), Port: s.portName(e.Port.Port), Who: partyOf(s.d.contents, e.Port.Who).Name, Identity: uint32(e.Port.Who), Kind: e.Kind.String(),
		Static: e.Kind == fdb.Static, Frozen: e.Frozen, Moves: e.Moves, Idle: e.Idle,
	}
}

// portName is how `etherloom ports` calls a port: a TAP may have been renamed since.
func (s *segment) portName(p *vswitch.Port) string {
	if p.Kind == vswitch.Local && s.tap != nil {
		return s.tap.Name()
	}
	return p.Name
}

// AddFDB pins an address to a port, until the daemon ends.
func (d *Daemon) AddFDB(r FDBAdd) (*FDBChange, error) {
	mac, err := stationMAC(r.MAC)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s, err := d.segmentNamedLocked(r.Segment)
	if err != nil {
		return nil, err
	}
	port, ok := s.portNamed(r.Port)
	if !ok {
		return nil, noPort(r.Port, "segment "+s.name)
	}
	at := s.placeOf(port, mac)
	e, now := fdb.Entry[vswitch.Place]{MAC: mac, Port: at, Kind: fdb.Static}, time.Now()
	out := &FDBChange{Schema: Schema}
	if r.Sticky {
		e.Kind = fdb.Sticky
		out.Replaced = s.sw.FDB().AddSticky(mac, at, now)
	} else {
		out.Replaced = s.sw.FDB().AddStatic(mac, at)
	}
	line := s.line(&e)
	out.Added = &line
	d.log.Info("an address was pinned by command", "segment", s.name, "mac", line.MAC, "port", line.Port, "kind", line.Kind)
	return out, nil
}

// RemoveFDB forgets an address.
func (d *Daemon) RemoveFDB(r FDBRemove) (*FDBChange, error) {
	mac, err := stationMAC(r.MAC)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s, err := d.segmentNamedLocked(r.Segment)
	if err != nil {
		return nil, err
	}
	if !s.sw.FDB().Remove(mac) {
		return nil, fmt.Errorf("segment %s has no entry for %s: `etherloom fdb` lists those that there are", s.name, mac)
	}
	d.log.Info("an address was removed by command", "segment", s.name, "mac", mac.String())
	return &FDBChange{Schema: Schema, Removed: 1}, nil
}

// FlushFDB forgets what was learned. What was pinned for good or announced stays, unless it is frozen and that is asked for.
func (d *Daemon) FlushFDB(r FDBFlush) (*FDBChange, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list, err := d.segmentsMeantLocked(r.Segment)
	if err != nil {
		return nil, err
	}
	out, now, known := &FDBChange{Schema: Schema}, time.Now(), r.Port == ""
	for _, s := range list {
		port, ok := s.portNamed(r.Port)
		if !ok && r.Port != "" {
			continue
		}
		known = true
		out.Removed += s.sw.FDB().Flush(func(e fdb.Entry[vswitch.Place]) bool {
			switch {
			case port != nil && e.Port.Port != port:
				return false
			case r.Frozen:
				return e.Frozen
			}
			return e.Kind == fdb.Dynamic || e.Kind == fdb.Sticky
		}, now)
	}
	if !known {
		where := "any segment"
		if r.Segment != "" {
			where = "segment " + r.Segment
		}
		return nil, noPort(r.Port, where)
	}
	d.log.Info("addresses were flushed by command", "segment", r.Segment, "port", r.Port, "removed", out.Removed)
	return out, nil
}

// stationMAC reads an address that a machine can have.
func stationMAC(text string) (ether.MAC, error) {
	mac, err := ether.ParseMAC(text)
	if err != nil {
		return mac, err
	}
	if !mac.IsStation() {
		return mac, fmt.Errorf("MAC address %s is no machine's: expected one that is neither zero nor a group's", mac)
	}
	return mac, nil
}

// segmentsMeantLocked returns the segment of a name; without one all of them.
func (d *Daemon) segmentsMeantLocked(name string) ([]*segment, error) {
	if name == "" {
		return d.sortedSegmentsLocked(), nil
	}
	s, err := d.segmentNamedLocked(name)
	return []*segment{s}, err
}

// segmentNamedLocked returns the segment of a name.
func (d *Daemon) segmentNamedLocked(name string) (*segment, error) {
	var names []string
	for _, s := range d.sortedSegmentsLocked() {
		if s.name == name {
			return s, nil
		}
		names = append(names, s.name)
	}
	have := "it has none"
	if len(names) > 0 {
		have = "it has " + strings.Join(names, ", ")
	}
	return nil, fmt.Errorf("this node has no segment %q: %s; `etherloom status` lists them", name, have)
}

// portNamed finds a port as `etherloom ports` calls it. Of two of one name it is the first: see portsNamed.
func (s *segment) portNamed(name string) (*vswitch.Port, bool) {
	found := s.portsNamed(name)
	if len(found) == 0 {
		return nil, false
	}
	return found[0], true
}

// portsNamed finds the ports of a name: one, but for an attachment that is called as a peer is, or as the TAP. With the kind in front, as
// in link:gw1 or attached:gw1, it is one.
func (s *segment) portsNamed(name string) (found []*vswitch.Port) {
	for _, p := range s.sw.Ports() {
		if called := s.portName(p); called == name || p.Kind.String()+":"+called == name {
			found = append(found, p)
		}
	}
	return found
}

// placeOf says who of those behind a port has an address: somebody to whom policy pins it, or those whom nobody named. Where it is
// pinned to somebody else it is the port's own, and policy lets nothing pass to it: so an address is put out of reach.
func (s *segment) placeOf(port *vswitch.Port, mac ether.MAC) vswitch.Place {
	view, at := s.sw.Policy(), vswitch.Place{Port: port, Who: port.Identity}
	owner := view.Owner(mac)
	for _, id := range append([]policy.Identity{port.Identity}, view.Own(port.Identity)...) {
		if owner == id || owner == 0 && view.Station(id) != nil && view.Station(id).MAC == (ether.MAC{}) {
			at.Who = id
			return at
		}
	}
	if port.Kind == vswitch.Attached && view.IsBehind(owner, port.Identity) {
		at.Who = owner
		return at
	}
	return at
}

func noPort(name, where string) error {
	return fmt.Errorf("no port of %s is called %q: `etherloom ports` lists those that there are", where, name)
}

// duplicates says which addresses were found in two places.
func (s *segment) duplicates(now time.Time) (out []Problem) {
	list := s.sw.FDB().Frozen(now)
	for i, f := range list {
		if i == mostDuplicates {
			out = append(out, Problem{"segment " + s.name, fmt.Sprintf("%d more addresses are in two places at once: `etherloom fdb` lists those that are frozen",
				len(list)-i)})
			break
		}
		out = append(out, Problem{"segment " + s.name, s.duplicate(&f)})
	}
	return out
}

const mostDuplicates = 5

func (s *segment) duplicate(f *fdb.FrozenAddress[vswitch.Place]) string {
	what := fmt.Sprintf("%s is in two places at once, on %s and on %s: look for a loop, or two machines with one address. ",
		f.MAC, s.portName(f.Port.Port), s.portName(f.Other.Port))
	if s.transparent {
		what += "All VLANs inside this segment count together: if it is on two of them, give each a segment of its own. "
	}
	if f.Warned {
		return what + "It still moves (fdb.duplicate is warn)"
	}
	return what + fmt.Sprintf("It stays on %s until %s, or until `etherloom fdb remove %s %s`", s.portName(f.Port.Port), f.Until.Format(time.RFC3339), s.name, f.MAC)
}

// tellDuplicates logs what was found in two places since it was asked last.
func (s *segment) tellDuplicates(now time.Time) {
	found := s.sw.FDB().Stats().Duplicates
	if found == s.found {
		return
	}
	told := 0
	for _, f := range s.sw.FDB().Frozen(now) {
		if f.Since.After(s.foundUntil) && told < mostDuplicates {
			s.d.log.Warn("an address is in two places at once", "segment", s.name, "mac", f.MAC.String(), "port", s.portName(f.Port.Port), "other", s.portName(f.Other.Port))
			told++
		}
	}
	s.found, s.foundUntil = found, now
}

func (d *Daemon) localFDB(mux *http.ServeMux) {
	mux.HandleFunc("POST /fdb/add", answering(d.AddFDB))
	mux.HandleFunc("POST /fdb/remove", answering(d.RemoveFDB))
	mux.HandleFunc("POST /fdb/flush", answering(d.FlushFDB))
}
