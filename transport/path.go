package transport

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// Path is one way to a peer: a pair of underlay addresses, or a relay.
type Path struct {
	peer  *Peer
	out   carrier
	addr  netip.AddrPort // where datagrams go: the peer, or its place at the relay
	local netip.AddrPort // of the socket; zero for a relay
	relay string         // name; empty for a direct path

	handshakes *rate.Limiter
	size       pathSize

	// Guarded by Endpoint.mu.
	alive bool // the last probes were answered
	lost  int  // probes in a row that were not
	rtt   time.Duration
	sent  uint64 // probes
	back  uint64 // replies
	next  time.Time
	quality
}

// pathKey finds the path that a datagram arrived on.
type pathKey struct {
	in   carrier
	from netip.AddrPort
}

// Bounds of handshakes on one path.
const (
	handshakeRate  = 5
	handshakeBurst = 10
)

func (e *Endpoint) newPathLocked(p *Peer, out carrier, addr, local netip.AddrPort, relay string) *Path {
	path := &Path{
		peer: p, out: out, addr: addr, local: local, relay: relay,
		handshakes: rate.NewLimiter(handshakeRate, handshakeBurst),
	}
	v6 := addr.Addr().Is6()
	if r, ok := out.(*relayClient); ok {
		v6 = r.server.Addr().Is6()
	}
	path.size.overhead = overheadOf(v6, relay != "")
	path.size.now.Store(baseDatagram)
	e.paths[pathKey{out, addr}] = path
	return path
}

func (e *Endpoint) dropPathLocked(path *Path) {
	if path == nil {
		return
	}
	p := path.peer
	if key := (pathKey{path.out, path.addr}); e.paths[key] == path {
		delete(e.paths, key)
	}
	if p.direct == path {
		p.direct = nil
	}
	if p.relayed[path.relay] == path {
		delete(p.relayed, path.relay)
	}
	for id, pr := range p.probes {
		if pr.path == path {
			delete(p.probes, id)
		}
	}
	e.chooseLocked(p)
}

// pathsLocked lists a peer's paths, best first.
func (p *Peer) pathsLocked() []*Path {
	var out []*Path
	if p.direct != nil {
		out = append(out, p.direct)
	}
	for _, path := range p.relayed {
		out = append(out, path)
		for i := len(out) - 1; i > 0 && better(out[i], out[i-1]); i-- {
			out[i], out[i-1] = out[i-1], out[i]
		}
	}
	return out
}

// better orders paths: those that answer before those that do not, steady before shaky, direct before relayed, quick before slow.
func better(a, b *Path) bool {
	if a.alive != b.alive {
		return a.alive
	}
	if a.shaky != b.shaky {
		return b.shaky
	}
	if (a.relay == "") != (b.relay == "") {
		return a.relay == ""
	}
	if a.rtt != b.rtt {
		return a.rtt < b.rtt
	}
	return a.relay < b.relay
}

// chooseLocked makes a peer's data go by its best path, under its current epoch.
func (e *Endpoint) chooseLocked(p *Peer) {
	now := p.active.Load()
	paths := p.pathsLocked()
	if p.current == nil || len(paths) == 0 {
		if now != nil {
			p.active.Store(nil)
		}
		return
	}
	best := paths[0]
	// Of two relays that both answer, stay with the one in use: their order is noise.
	if now != nil && now.path.alive && best.alive && now.path.shaky == best.shaky && now.path.relay != "" && best.relay != "" &&
		p.relayed[now.path.relay] == now.path {
		best = now.path
	}
	if now == nil || now.epoch != p.current || now.path != best {
		p.active.Store(&sending{p.current, best})
	}
}

// probe is one that has not been answered yet.
type probe struct {
	path *Path
	at   time.Time
	size int                  // of the datagram that asks whether it passes; 0: whether the path lives
	done chan<- time.Duration // of Ping; or nil
}

const (
	probesLost   = 3               // in a row: the path is dead
	probeIdle    = 5 * time.Second // between probes of a path that carries nothing
	probeTimeout = 500 * time.Millisecond
)

// probeLocked sends a probe on a path.
func (e *Endpoint) probeLocked(path *Path, now time.Time, done chan<- time.Duration) {
	p := path.peer
	if p.current == nil {
		return
	}
	id := rand.Uint64() //nolint:gosec // the record is sealed; the id only has to be unique
	p.probes[id] = probe{path: path, at: now, done: done}
	path.sent++
	e.sendControlLocked(p, path, recordProbe, binary.BigEndian.AppendUint64(nil, id))
}

func (e *Endpoint) probeReplyLocked(p *Peer, id uint64, now time.Time) {
	pr, ok := p.probes[id]
	if !ok {
		return
	}
	delete(p.probes, id)
	path, rtt := pr.path, now.Sub(pr.at)
	if pr.size > 0 {
		e.sizeFoundLocked(path, pr.size)
		return
	}
	path.back++
	path.lost = 0
	e.noteLocked(path, false)
	if path.rtt == 0 {
		path.rtt = rtt
	}
	path.rtt += (rtt - path.rtt) / 8 // RFC 6298 section 2
	if pr.done != nil {
		pr.done <- rtt
	}
	if !path.alive {
		path.alive = true
		if path.relay == "" {
			p.why = ""
		}
		e.log.Info("path is up", "peer", p.cfg.Name, "path", path.String(), "rtt", rtt)
	}
	e.chooseLocked(p)
}

// noteLocked counts a probe of a path, and leaves one that has become shaky.
func (e *Endpoint) noteLocked(path *Path, lost bool) {
	if !path.note(lost) {
		return
	}
	e.log.Info("path", "peer", path.peer.cfg.Name, "path", path.String(), "shaky", path.shaky)
	e.chooseLocked(path.peer)
}

// probesLocked times probes out and sends the ones that are due.
func (e *Endpoint) probesLocked(p *Peer, now time.Time) {
	for id, pr := range p.probes {
		timeout := probeTimeout
		if pr.size > 0 {
			timeout = sizeTimeout
		}
		if now.Sub(pr.at) < max(timeout, 3*pr.path.rtt) {
			continue
		}
		delete(p.probes, id)
		if pr.size > 0 {
			e.sizeLostLocked(pr.path, pr.size, now)
			continue
		}
		pr.path.lost++
		e.noteLocked(pr.path, true)
		if pr.path.lost == probesLost && pr.path.alive {
			e.pathDiedLocked(pr.path, now)
		}
	}
	busy := now.UnixNano()-max(p.wanted.Load(), p.heard.Load()) < int64(probeIdle)
	for _, path := range p.pathsLocked() {
		e.tendSizeLocked(path, busy, now)
		if now.Before(path.next) {
			continue
		}
		every := probeIdle
		if busy || !path.alive && path.lost < probesLost {
			every = e.cfg.Timers.Probe
		}
		path.next = now.Add(every)
		e.probeLocked(path, now, nil)
	}
}

func (e *Endpoint) pathDiedLocked(path *Path, now time.Time) {
	path.alive = false
	path.size.toBase(now)
	p := path.peer
	e.log.Info("path is down", "peer", p.cfg.Name, "path", path.String())
	if path.relay == "" {
		p.why = "the direct path stopped answering probes"
		e.restartICELocked(p, now)
	}
	e.chooseLocked(p)
}

func (p *Path) String() string {
	if p.relay != "" {
		return "relay " + p.relay
	}
	return p.addr.String()
}
