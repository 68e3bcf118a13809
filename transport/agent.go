package transport

import (
	"context"
	"net/netip"
	"time"

	"github.com/pion/ice/v2"
)

// iceState is a peer's search for a direct path. An attempt is one ICE agent on each side; the initiator numbers it and
// both derive the agents' credentials from the number. Attempt 0 needs no arranging: when no signal gets through, both
// sides fall back to it with the candidates that they remember.
type iceState struct {
	coldFragment string // of this side's agent in attempt 0

	remote  []Candidate // the peer's newest
	mapping Mapping     // of the peer's NAT

	agent     *ice.Agent
	attempt   uint64
	began     time.Time
	answered  bool // the peer has joined this attempt
	connected bool
	failed    bool // the last attempt ended without a path

	signals  int       // sent in a row without an answer
	next     time.Time // of the next signal, or of the next attempt
	failures int
	coldAt   time.Time
}

const (
	attemptLife  = 15 * time.Second // an attempt that has found nothing has failed
	attemptPause = 2 * time.Second  // between attempts that are asked for
	coldAfter    = 3 * time.Second  // without an answer to signals
	retryFirst   = 15 * time.Second // until the next attempt after a failure; doubled each time
	retryMost    = 5 * time.Minute

	iceChecks       = 50 // binding requests for a pair before it is given up
	iceCheckEvery   = 100 * time.Millisecond
	iceDisconnected = 5 * time.Second
	iceFailed       = 10 * time.Second
)

func (s *iceState) reset(now time.Time) {
	s.signals, s.failures, s.failed, s.next, s.coldAt = 0, 0, false, now, time.Time{}
}

// startAttemptLocked begins a new attempt as the initiator and offers it.
func (e *Endpoint) startAttemptLocked(p *Peer, now time.Time) {
	attempt := e.stampLocked(now)
	if !e.startAgentLocked(p, attempt, now) {
		return
	}
	p.ice.signals = 0
	e.offerLocked(p, now)
}

func (e *Endpoint) offerLocked(p *Peer, now time.Time) {
	e.signalLocked(p, signalOffer, p.ice.attempt, now)
	p.ice.next = now.Add(signalDelay(p.ice.signals))
	p.ice.signals++
}

// wakeLocked asks the initiator for a session, or for a direct path if there is a session.
func (e *Endpoint) wakeLocked(p *Peer, now time.Time) {
	kind := byte(signalWake)
	if p.current != nil {
		kind = signalSeek
	}
	e.signalLocked(p, kind, 0, now)
	p.ice.next = now.Add(signalDelay(p.ice.signals))
	p.ice.signals++
}

func signalDelay(count int) time.Duration {
	return min(500*time.Millisecond<<min(count, 6), 30*time.Second)
}

// startAgentLocked replaces the peer's agent by one for the attempt.
func (e *Endpoint) startAgentLocked(p *Peer, attempt uint64, now time.Time) bool {
	e.stopICELocked(p)
	agent, err := e.newAgent(p, attempt)
	if err != nil {
		p.why = "cannot search for a direct path: " + err.Error()
		e.log.Error("cannot make an ICE agent", "peer", p.cfg.Name, "err", err)
		p.ice.next = now.Add(retryFirst)
		return false
	}
	s := &p.ice
	s.agent, s.attempt, s.began = agent, attempt, now
	s.answered, s.connected, s.failed = attempt == 0, false, false
	e.addRemoteLocked(p)
	e.runAgentLocked(p, agent, attempt)
	return true
}

func (e *Endpoint) newAgent(p *Peer, attempt uint64) (*ice.Agent, error) {
	fragment, pwd, err := p.pair.iceCredentials(e.cfg.Self, attempt)
	if err != nil {
		return nil, err
	}
	checks, every := uint16(iceChecks), iceCheckEvery
	disconnected, failed, none := iceDisconnected, iceFailed, time.Duration(0)
	agent, err := ice.NewAgent(&ice.AgentConfig{
		LocalUfrag: fragment, LocalPwd: pwd, UDPMux: e.mux,
		NetworkTypes:     []ice.NetworkType{ice.NetworkTypeUDP4, ice.NetworkTypeUDP6},
		CandidateTypes:   []ice.CandidateType{ice.CandidateTypeHost},
		MulticastDNSMode: ice.MulticastDNSModeDisabled,
		CheckInterval:    &every, MaxBindingRequests: &checks,
		DisconnectedTimeout: &disconnected, FailedTimeout: &failed,
		SrflxAcceptanceMinWait: &none, PrflxAcceptanceMinWait: &none,
		LoggerFactory: quietFactory{e.log},
	})
	if err != nil {
		return nil, err
	}
	err = agent.OnSelectedCandidatePairChange(func(local, remote ice.Candidate) {
		e.selected(p, agent, local, remote)
	})
	if err == nil {
		err = agent.OnConnectionStateChange(func(s ice.ConnectionState) { e.agentState(p, agent, s) })
	}
	if err == nil {
		err = agent.OnCandidate(func(ice.Candidate) {}) // pion demands one before it gathers; ours are in localLocked
	}
	if err == nil {
		err = agent.GatherCandidates()
	}
	return agent, err
}

// runAgentLocked starts the agent's checks. Dial and Accept return when they have succeeded or the agent is closed.
func (e *Endpoint) runAgentLocked(p *Peer, agent *ice.Agent, attempt uint64) {
	fragment, pwd, err := p.pair.iceCredentials(p.id, attempt)
	if err != nil {
		return
	}
	start := agent.Accept
	if p.pair.initiates() {
		start = agent.Dial
	}
	e.spawnLocked(func(ctx context.Context) {
		if _, err := start(ctx, fragment, pwd); err != nil {
			e.log.Debug("ICE ended", "peer", p.cfg.Name, "err", err)
		}
	})
}

// addRemoteLocked tells the agent where the peer may be.
func (e *Endpoint) addRemoteLocked(p *Peer) {
	for _, c := range p.ice.remote {
		if e.avoidedLocked(c.Addr.Addr()) {
			continue
		}
		cand, err := iceCandidate(c)
		if err == nil {
			err = p.ice.agent.AddRemoteCandidate(cand)
		}
		if err != nil {
			e.log.Debug("candidate refused", "peer", p.cfg.Name, "err", err)
		}
	}
}

func iceCandidate(c Candidate) (ice.Candidate, error) {
	addr, port := c.Addr.Addr().String(), int(c.Addr.Port())
	if c.Reflexive {
		return ice.NewCandidateServerReflexive(&ice.CandidateServerReflexiveConfig{
			Network: "udp", Address: addr, Port: port, Component: ice.ComponentRTP,
		})
	}
	return ice.NewCandidateHost(&ice.CandidateHostConfig{
		Network: "udp", Address: addr, Port: port, Component: ice.ComponentRTP,
	})
}

// stopICELocked closes the peer's agent, if there is one. A path that it found stays.
func (e *Endpoint) stopICELocked(p *Peer) {
	agent := p.ice.agent
	p.ice.agent, p.ice.connected, p.ice.answered = nil, false, false
	if agent != nil {
		e.spawnLocked(func(context.Context) { _ = agent.Close() })
	}
}

// selected is called by an agent that has found a pair of addresses.
func (e *Endpoint) selected(p *Peer, agent *ice.Agent, local, remote ice.Candidate) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p.ice.agent != agent || p.link == linkClosed {
		return
	}
	at, err1 := netip.ParseAddr(local.Address())
	to, err2 := netip.ParseAddr(remote.Address())
	s := e.sockets[at]
	if err1 != nil || err2 != nil || s == nil {
		return
	}
	now := time.Now()
	p.ice.connected, p.ice.failures = true, 0
	if p.pair.initiates() && e.rekeyDueLocked(p, now) {
		p.try.hurry(now) // a session that is still here may be with a process that has ended; the one that is there now listens to this path
	}
	addr := netip.AddrPortFrom(to.Unmap(), uint16(remote.Port())) //nolint:gosec // a port
	if old := p.direct; old != nil {
		if old.out == carrier(s) && old.addr == addr {
			old.next = now
			return
		}
		e.dropPathLocked(old)
	}
	p.direct = e.newPathLocked(p, s, addr, s.local, "")
	e.chooseLocked(p)
	e.log.Debug("direct path found", "peer", p.cfg.Name, "path", p.direct.String())
}

func (e *Endpoint) agentState(p *Peer, agent *ice.Agent, state ice.ConnectionState) {
	if state != ice.ConnectionStateFailed {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if p.ice.agent == agent {
		e.attemptFailedLocked(p, time.Now())
	}
}

func (e *Endpoint) attemptFailedLocked(p *Peer, now time.Time) {
	e.stopICELocked(p)
	s := &p.ice
	s.failed = true
	s.next = now.Add(min(retryFirst<<min(s.failures, 5), retryMost))
	s.failures++
	s.signals, s.coldAt = 0, time.Time{}
	if p.direct != nil && !p.direct.alive {
		e.dropPathLocked(p.direct)
	}
}

// restartICELocked begins anew because something has changed: addresses, or a path that died.
func (e *Endpoint) restartICELocked(p *Peer, now time.Time) {
	s := &p.ice
	if s.agent != nil && now.Sub(s.began) < attemptPause {
		return
	}
	s.failures, s.signals, s.coldAt = 0, 0, time.Time{}
	if p.pair.initiates() {
		e.startAttemptLocked(p, now)
		return
	}
	e.stopICELocked(p)
	e.wakeLocked(p, now)
}

// tendICELocked does what is due in the search for a direct path.
func (e *Endpoint) tendICELocked(p *Peer, now time.Time) {
	s := &p.ice
	if s.connected {
		return
	}
	if s.agent != nil && now.Sub(s.began) > attemptLife {
		e.attemptFailedLocked(p, now)
		return
	}
	if s.agent == nil && s.failed && now.Before(s.next) {
		return
	}
	if e.coldDueLocked(p, now) {
		s.coldAt = now
		e.startAgentLocked(p, 0, now)
		return
	}
	if now.Before(s.next) || s.agent != nil && s.answered {
		return
	}
	switch {
	case !p.pair.initiates():
		e.wakeLocked(p, now)
	case s.agent == nil:
		e.startAttemptLocked(p, now)
	default:
		e.offerLocked(p, now)
	}
}

// coldDueLocked reports whether signals seem to get nowhere, so that the remembered candidates should be tried. It
// happens once for each time that the search begins anew.
func (e *Endpoint) coldDueLocked(p *Peer, now time.Time) bool {
	s := &p.ice
	if len(s.remote) == 0 || !s.coldAt.IsZero() || s.answered {
		return false
	}
	since := p.since
	if s.agent != nil {
		since = s.began
	}
	return s.signals >= 2 && now.Sub(since) > coldAfter
}

// unknownFragment is called when a check arrives for an agent that does not exist. If it is the one of attempt 0 of a
// peer, that peer is trying to meet us without anybody's help.
func (e *Endpoint) unknownFragment(fragment string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.cold[fragment]
	if p == nil || len(p.ice.remote) == 0 {
		return
	}
	now := time.Now()
	if p.ice.agent != nil && (p.ice.connected || p.ice.answered) && now.Sub(p.ice.began) < attemptLife {
		return
	}
	if now.Sub(p.ice.coldAt) < attemptPause {
		return
	}
	e.beginLocked(p, now)
	p.ice.coldAt = now
	e.startAgentLocked(p, 0, now)
}
