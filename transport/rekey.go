package transport

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/etherloom/etherloom/identity"
)

// handshakeTry is the initiator's unfinished handshake with a peer.
type handshakeTry struct {
	init   *initiation
	ownEnd time.Time // of the certificate in it
	sent   []byte    // the whole message, for a cookie's sake
	path   *Path
	count  int
	next   time.Time // of the next try
	cookie []byte
	gotten time.Time // the cookie
}

// tryDelay is how long the initiator waits for an answer before it tries again.
func tryDelay(count int) time.Duration {
	return min(time.Second<<min(count, 3), 5*time.Second)
}

// hurry has the next try made at once, by the best path, and those after it soon: what has failed before says nothing any more.
func (t *handshakeTry) hurry(now time.Time) { t.next, t.count = now, 0 }

// initiateLocked sends a first message by one of the peer's paths, another each time.
func (e *Endpoint) initiateLocked(p *Peer, now time.Time) {
	paths := p.pathsLocked()
	if len(paths) == 0 {
		return
	}
	t := &p.try
	e.dropTryLocked(p)
	index := e.newIndexLocked()
	own := e.cfg.Certificate()
	init, msg, err := p.party.initiate(index, stamp{e.nonce, e.stampLocked(now)}, own.DER)
	if err != nil {
		p.why = err.Error()
		e.log.Error("cannot begin a handshake", "peer", p.cfg.Name, "err", err)
		t.next = now.Add(tryDelay(8))
		return
	}
	cookie := t.cookie
	if now.Sub(t.gotten) > cookieLife {
		cookie = nil
	}
	t.path = paths[t.count%len(paths)]
	t.init, t.ownEnd, t.sent = init, own.NotAfter, appendMACs(msg, p.party.remote, cookie)
	t.next = now.Add(tryDelay(t.count))
	t.count++
	e.initiations[index] = p
	if err := t.path.write(t.sent); err != nil {
		e.counts.unsent.Add(1)
	}
}

func (e *Endpoint) dropTryLocked(p *Peer) {
	if p.try.init != nil {
		delete(e.initiations, p.try.init.index)
		p.try.init = nil
	}
}

// stampLocked reads the clock that orders what this node says.
func (e *Endpoint) stampLocked(now time.Time) uint64 {
	v, raised := e.clock.next(now)
	if raised {
		// The new ceiling must be on disk before a value below it is used by this process's successor: what was
		// reserved before still covers this value.
		e.dirty = true
		e.rememberLocked()
	}
	return v
}

// queueHandshake passes a handshake message to the control loop. Only an address that ICE has checked, or a place at a
// relay, is listened to; everybody else hears nothing.
func (e *Endpoint) queueHandshake(b []byte, at pathKey) {
	if len(b) > maxHandshake {
		e.counts.foreign.Add(1)
		return
	}
	select {
	case e.handshakes <- inbound{path: at, data: append([]byte(nil), b...)}:
	default:
		e.counts.handshakesLost.Add(1)
	}
}

// handshake handles one message on the control loop.
func (e *Endpoint) handshake(in inbound, now time.Time) {
	load := len(e.handshakes) >= handshakeQueue/8
	e.mu.Lock()
	defer e.mu.Unlock()
	path := e.paths[in.path]
	if path == nil {
		path = e.greetLocked(in.path, in.data, now)
	}
	if path == nil || in.data[0]&(versionMask|suiteBit) != firstByte(0, path.peer.party.suite)&(versionMask|suiteBit) {
		e.counts.foreign.Add(1)
		return
	}
	var err error
	switch in.data[0] & typeMask {
	case typeInitiation:
		err = e.initiationLocked(path, in.data, load, now)
	case typeResponse:
		err = e.responseLocked(path, in.data, now)
	case typeCookie:
		err = e.cookieLocked(path, in.data, now)
	}
	if err != nil {
		e.counts.handshakesRefused.Add(1)
		e.log.Debug("handshake refused", "peer", path.peer.cfg.Name, "path", path.String(), "err", err)
	}
}

// greetLocked opens the link of a peer that knocks through the relay while it is closed here. A first message that is not
// from it (mac1) opens nothing.
func (e *Endpoint) greetLocked(at pathKey, msg []byte, now time.Time) *Path {
	r, ok := at.in.(*relayClient)
	if !ok || msg[0]&typeMask != typeInitiation || !goodMAC1(msg, e.cfg.Keys.StaticPublic()) {
		return nil
	}
	p := e.bySlot[at.from.Port()]
	if p == nil || at.from.Addr() != relayLabel() || !p.signals.AllowN(now, 1) {
		return nil
	}
	e.beginLocked(p, now)
	return p.relayed[r.cfg.Name]
}

func (e *Endpoint) initiationLocked(path *Path, msg []byte, load bool, now time.Time) error {
	p := path.peer
	if p.pair.initiates() {
		return fmt.Errorf("handshake: this node initiates towards %s, not the other way round", p.cfg.Name)
	}
	if len(msg) < minInitiation || !goodMAC1(msg, e.cfg.Keys.StaticPublic()) {
		return errHandshake
	}
	if load && !e.jar.goodMAC2(msg, path.addr, now) {
		e.counts.cookies.Add(1)
		return path.write(e.jar.reply(msg, path.addr, p.party.suite, e.cfg.Keys.StaticPublic(), now))
	}
	if !path.handshakes.AllowN(now, 1) {
		return fmt.Errorf("handshake: more than %d a second on this path", handshakeRate)
	}
	o, err := p.party.readInitiation(msg)
	if err != nil {
		return err
	}
	if !o.at.newer(p.last) {
		return fmt.Errorf("handshake: not newer than the last from %s: replayed, or its clock was set back", p.cfg.Name)
	}
	cert, err := e.verifyLocked(p, o.cert, now)
	if err != nil {
		return err
	}
	index := e.newIndexLocked()
	own := e.cfg.Certificate()
	reply, send, recv, err := p.party.respond(o, index, own.DER)
	if err != nil {
		return err
	}
	p.last = o.at
	e.dirty = true
	e.beginLocked(p, now)
	e.removeEpochLocked(p.pending)
	p.pending = &epoch{
		suite: p.party.suite, local: index, remote: o.index, peer: p, created: now,
		cert: cert, ownEnd: own.NotAfter, sendSecret: send, recvSecret: recv,
	}
	e.addEpochLocked(p.pending)
	return path.write(appendMACs(reply, p.party.remote, nil))
}

// verifyLocked judges the one leaf that a peer presented: this network's CA, a node, this identity, and the very key
// that spoke in the handshake.
func (e *Endpoint) verifyLocked(p *Peer, leaf []byte, now time.Time) (*identity.Certificate, error) {
	cert, err := e.cfg.Verifier().Verify([][]byte{leaf}, identity.KindNode, now)
	if err == nil && (cert.Name.ID != p.id || cert.Static != p.party.remote || len(cert.Roles) == 0) {
		err = fmt.Errorf("certificate of %s does not belong to this peer and key", cert.Name)
	}
	if err != nil {
		p.why = "the peer's certificate is not accepted: " + err.Error()
		return nil, fmt.Errorf("handshake with %s: %w", p.cfg.Name, err)
	}
	return cert, nil
}

// confirm makes an epoch that was answered the current one: its first data datagram has opened, so the initiator is
// there and holds the keys. Before that it was sent nothing.
func (e *Endpoint) confirm(ep *epoch, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := ep.peer
	if p.gone || p.pending != ep {
		return
	}
	p.pending = nil
	ep.confirmed.Store(true)
	e.installLocked(p, ep, now)
}

func (e *Endpoint) responseLocked(path *Path, msg []byte, now time.Time) error {
	p := path.peer
	index, ok := responseIndex(msg)
	if !ok || !goodMAC1(msg, e.cfg.Keys.StaticPublic()) || e.initiations[index] != p || p.try.init == nil {
		return errHandshake
	}
	a, err := p.try.init.readResponse(msg)
	if err != nil {
		return err
	}
	cert, err := e.verifyLocked(p, a.cert, now)
	if err != nil {
		return err
	}
	ep := &epoch{
		suite: p.party.suite, initiator: true, local: index, remote: a.index, peer: p, created: now,
		cert: cert, ownEnd: p.try.ownEnd, sendSecret: a.send, recvSecret: a.recv,
	}
	ep.confirmed.Store(true)
	e.dropTryLocked(p)
	p.try = handshakeTry{cookie: p.try.cookie, gotten: p.try.gotten}
	e.addEpochLocked(ep)
	e.installLocked(p, ep, now)
	return nil
}

func (e *Endpoint) cookieLocked(path *Path, msg []byte, now time.Time) error {
	p := path.peer
	if p.try.init == nil || p.try.path != path {
		return errCookie
	}
	cookie, err := readCookie(msg, p.party.remote, p.try.sent)
	if err != nil {
		return err
	}
	p.try.cookie, p.try.gotten = cookie, now
	p.try.next = now.Add(tryDelay(0))
	return nil
}

// installLocked makes ep the epoch that sends. The one before still receives for a while.
func (e *Endpoint) installLocked(p *Peer, ep *epoch, now time.Time) {
	e.removeEpochLocked(p.previous)
	p.previous, p.retire = p.current, now.Add(overlap)
	p.current = ep
	if p.link != linkOpen {
		p.link, p.since = linkOpen, now
		e.log.Info("link is open", "peer", p.cfg.Name)
	}
	e.chooseLocked(p)
	for _, path := range p.pathsLocked() {
		// At once, by every path: the responder sends nothing before it has heard from us.
		path.next = now.Add(e.cfg.Timers.Probe)
		e.probeLocked(path, now, nil)
	}
	e.flushStagedLocked(p, now)
}

// rekeyDueLocked reports whether the initiator should start the next epoch.
func (e *Endpoint) rekeyDueLocked(p *Peer, now time.Time) bool {
	ep := p.current
	if ep == nil || ep.wantRekey.Load() || now.Sub(ep.created) >= e.cfg.Timers.Rekey {
		return true
	}
	// No path answers: the peer may have restarted, and know nothing of this session.
	if way := p.active.Load(); way == nil || !way.path.alive && way.path.lost >= probesLost {
		return true
	}
	end := ep.certEnd()
	if now.Before(end) {
		// A certificate near its end: by then both have new ones to show.
		return now.Sub(ep.created) >= max(time.Second, end.Sub(ep.created)*3/4)
	}
	// Ended while nobody could renew it. As soon as somebody can, the new one must be seen.
	return e.cfg.Controlled() && now.Sub(ep.created) >= 2*time.Second
}

// certEnd is when the first of the two certificates of a handshake ends.
func (e *epoch) certEnd() time.Time {
	if e.ownEnd.Before(e.cert.NotAfter) {
		return e.ownEnd
	}
	return e.cert.NotAfter
}

// checkCertificateLocked closes a link whose peer's certificate is no longer honoured.
func (e *Endpoint) checkCertificateLocked(p *Peer, now time.Time) {
	if p.current == nil {
		return
	}
	if err := e.cfg.Verifier().CheckTime(p.current.cert, now); err != nil {
		e.closeLinkLocked(p, now, "the peer's certificate is no longer accepted: "+err.Error())
	}
}

// expireLocked ends what has lived too long.
func (e *Endpoint) expireLocked(p *Peer, now time.Time) {
	if p.previous != nil && (now.After(p.retire) || now.Sub(p.previous.created) > rejectAfter) {
		e.removeEpochLocked(p.previous)
		p.previous = nil
	}
	if p.pending != nil && now.Sub(p.pending.created) > overlap {
		e.removeEpochLocked(p.pending)
		p.pending = nil
	}
	if p.current != nil && now.Sub(p.current.created) > rejectAfter {
		e.removeEpochLocked(p.current)
		p.current = nil
		p.why = "the session was not renewed in time: no answer to handshakes"
		p.link, p.since = linkOpening, now
		e.chooseLocked(p)
	}
	p.rejoin.expire(now)
}

func relayLabel() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 0, 8}) }
