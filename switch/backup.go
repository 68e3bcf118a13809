package vswitch

import "slices"

// This file sends what is for a port that has no carrier to another one, as bridge(8) does with backup_port: what is for one alone, and
// is known to be there. What goes to many leaves by the other port anyway.

// SetCarrier says whether the port's wire can carry frames at all. A new port has a carrier.
func (p *Port) SetCarrier(up bool) { p.lost.Store(!up) }

// SetAttributes replaces a port's attributes, and finds its backup port.
func (s *Segment) SetAttributes(p *Port, a Attributes) {
	p.SetAttributes(a)
	s.change(func(*layout) {})
}

// Backup returns the port that stands in for one; nil if there is none of that name.
func (s *Segment) Backup(p *Port) *Port { return s.layout.Load().backups[p] }

// Called reports whether the port has a name: its own, or with its kind in front, as in attached:lan.
func (p *Port) Called(name string) bool { return p.Name == name || p.Kind.String()+":"+p.Name == name }

// pair finds the backup ports. A TAP is none, for behind it is this machine alone.
func (l *layout) pair() {
	l.backups = nil
	for _, p := range l.ports {
		name := p.Attributes().BackupPort
		if name == "" {
			continue
		}
		for _, q := range l.ports {
			if q != p && q.Kind != Local && q.Called(name) {
				if l.backups == nil {
					l.backups = map[*Port]*Port{}
				}
				l.backups[p] = q
				break
			}
		}
	}
}

// instead is where a frame goes that is for a place: there, or to the backup port if that has no carrier. The frame is judged for whom
// it is for then. That is the same machine, if it may be behind the backup port, or another gateway may speak for it; of those whom
// nobody named, those that are there. A host that may not be there is not looked for: its answers would be refused.
func (l *layout) instead(at Place) Place {
	backup := l.backups[at.Port]
	switch {
	case backup == nil || !at.Port.lost.Load():
		return at
	case slices.Contains(l.leads[backup], at.Who):
		return Place{backup, at.Who}
	case backup.Kind == Attached && at.Who == at.Port.Identity:
		return Place{backup, backup.Identity}
	}
	return at
}
