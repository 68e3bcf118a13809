package transport

import (
	"time"
)

// openLocked begins to open the link to a peer, because this node wants it.
func (e *Endpoint) openLocked(p *Peer, now time.Time) {
	if !e.beginLocked(p, now) {
		return
	}
	if p.pair.initiates() {
		e.startAttemptLocked(p, now)
		e.initiateLocked(p, now)
	} else {
		e.wakeLocked(p, now)
	}
}

// beginLocked makes a closed link an opening one. The caller arranges the rest.
func (e *Endpoint) beginLocked(p *Peer, now time.Time) bool {
	if p.link != linkClosed || p.gone {
		return false
	}
	p.link, p.since, p.why = linkOpening, now, ""
	p.try = handshakeTry{}
	p.ice.reset(now)
	for _, r := range e.relays {
		e.addRelayedPathLocked(p, r)
	}
	e.log.Debug("opening link", "peer", p.cfg.Name)
	return true
}

// closeLinkLocked ends the link and everything that belongs to it.
func (e *Endpoint) closeLinkLocked(p *Peer, now time.Time, why string) {
	if p.link == linkClosed {
		return
	}
	if way := p.active.Load(); way != nil {
		e.sendControlLocked(p, way.path, recordClose, nil)
	}
	p.active.Store(nil)
	p.staged.take()
	e.removeEpochLocked(p.current)
	e.removeEpochLocked(p.previous)
	e.removeEpochLocked(p.pending)
	p.current, p.previous, p.pending = nil, nil, nil
	e.dropTryLocked(p)
	e.stopICELocked(p)
	for _, path := range p.pathsLocked() {
		e.dropPathLocked(path)
	}
	clear(p.probes)
	p.link, p.since, p.why = linkClosed, now, why
	e.log.Info("link is closed", "peer", p.cfg.Name, "reason", why)
}

// openingLife is how long a link that nobody uses is tried for.
const openingLife = 30 * time.Second

// idleLocked reports whether a link should be closed because nothing uses it. While no controller can be reached, none
// is: it might be the only way to hear of another.
func (e *Endpoint) idleLocked(p *Peer, now time.Time) bool {
	used := time.Unix(0, max(p.wanted.Load(), p.heard.Load(), p.since.UnixNano()))
	if p.link == linkOpening {
		return now.Sub(used) > min(openingLife, e.cfg.Timers.Idle)
	}
	return now.Sub(used) > e.cfg.Timers.Idle && e.cfg.Controlled()
}

// tendLocked does what is due for one peer.
func (e *Endpoint) tendLocked(p *Peer, now time.Time) {
	if p.link == linkClosed {
		return
	}
	e.expireLocked(p, now)
	e.checkCertificateLocked(p, now)
	if p.link == linkClosed {
		return
	}
	if e.idleLocked(p, now) {
		e.closeLinkLocked(p, now, "nothing was sent for a while")
		return
	}
	if p.pair.initiates() && e.rekeyDueLocked(p, now) && !now.Before(p.try.next) {
		e.initiateLocked(p, now)
	}
	e.tendICELocked(p, now)
	e.probesLocked(p, now)
}
