package node

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
)

// A NIC that the host itself needs is taken by a bridge that gets what the host has there (bridge/move.go). Whether the host is still reached
// then, only somebody can say who reaches it: unless he confirms the move in time, it is taken back, by this node alone, and does
// not happen again before it is asked for anew. What became of it is kept, and written down before the NIC is touched: a daemon that
// was killed before the move was confirmed does not repeat it.

// hostMove is what became of the request to move the host away from a NIC.
type hostMove struct {
	Port    string        `json:"port"`  // for which it was asked
	Asked   uint64        `json:"asked"` // the controllers' number of the request
	Confirm time.Duration `json:"confirm_ns"`
	Until   time.Time     `json:"until,omitzero"` // when it is taken back
	Outcome string        `json:"outcome,omitempty"`
}

// What a move can have come to; before that it waits for its confirmation.
const (
	moveConfirmed = "confirmed"
	moveTakenBack = "taken back"
)

// movesFile is what is kept of moves.
type movesFile struct {
	Schema int                  `json:"schema"`
	Moves  map[string]*hostMove `json:"moves"` // by NIC
}

func (d *Daemon) loadMoves() error {
	var f movesFile
	if err := readJSON(d.dir.Path("moves.json"), &f, "which says what became of moves of the host"); err != nil {
		return err
	}
	d.moves = f.Moves
	if d.moves == nil {
		d.moves = make(map[string]*hostMove)
	}
	return nil
}

func (d *Daemon) saveMovesLocked() {
	if err := writeJSON(d.dir.Path("moves.json"), movesFile{Schema, d.moves}); err != nil {
		d.problemLocked("moves", fmt.Errorf("what became of moves of the host is not kept: %w", err))
		return
	}
	d.problemLocked("moves", nil)
}

// crashedMoves takes down which moves were not confirmed when a daemon was killed: its journals say whose NICs it had.
func (d *Daemon) crashedMoves() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for nic, m := range d.moves {
		if _, err := os.Stat(d.journalOf(nic)); err == nil && m.Outcome == "" {
			m.Outcome = moveTakenBack
			d.saveMovesLocked()
		}
	}
}

// asksToMove is the newest of the requests to move the host; nil if there is none.
func asksToMove(wanted []*controlv1.Attachment) (ask *controlv1.Attachment) {
	for _, a := range wanted {
		if a.GetMoveHost() && (ask == nil || a.GetAsked() > ask.GetAsked()) {
			ask = a
		}
	}
	return ask
}

// mayMoveLocked says whether the host may be moved away from a NIC, for attachments that want it; an error says why not any more.
func (d *Daemon) mayMoveLocked(nic string, wanted []*controlv1.Attachment, now time.Time) (bool, error) {
	ask, m := asksToMove(wanted), d.moves[nic]
	if ask == nil {
		if m != nil {
			delete(d.moves, nic)
			d.saveMovesLocked()
		}
		return false, nil
	}
	if m == nil || m.Outcome != moveConfirmed && m.Asked != ask.GetAsked() {
		m = &hostMove{Port: ask.GetPort(), Asked: ask.GetAsked(), Confirm: ask.GetConfirm().AsDuration()}
		d.moves[nic] = m
	}
	if outcome := m.comesTo(ask.GetConfirmed(), now); outcome != m.Outcome {
		m.Outcome = outcome
		d.log.Info("a move of the host has come to its end", "nic", nic, "port", m.Port, "state", outcome)
		d.saveMovesLocked()
	}
	if m.Outcome == moveTakenBack {
		return false, fmt.Errorf("what this host has on %s was moved, and moved back because nobody has confirmed in time that the host is still reached: "+
			"`etherloom attachment move %s` moves it again", nic, m.Port)
	}
	return true, nil
}

// comesTo is the outcome of a move as it is now.
func (m *hostMove) comesTo(confirmed bool, now time.Time) string {
	switch {
	case m.Outcome != "":
		return m.Outcome
	case confirmed || m.Confirm == 0:
		return moveConfirmed
	case !m.Until.IsZero() && !now.Before(m.Until):
		return moveTakenBack
	}
	return ""
}

// movingLocked takes down, before a NIC is touched, that the host may be moved, and says whether that is new.
func (d *Daemon) movingLocked(nic string, now time.Time) bool {
	m := d.moves[nic]
	if m == nil || m.Outcome != "" || !m.Until.IsZero() {
		return false
	}
	m.Until = now.Add(m.Confirm)
	d.saveMovesLocked()
	return true
}

// movedLocked takes down whether the host was moved: the time for the confirmation of a new move begins now.
func (d *Daemon) movedLocked(t *trunk, fresh bool, now time.Time) {
	name, gap := t.wire.Moved()
	if name != "" && fresh {
		d.log.Info("what the host has on a NIC is moved", "to", t.to.String(), "port", name, "gap", gap)
	}
	m := d.moves[t.to.nic]
	if m == nil || m.Outcome != "" {
		return
	}
	before := m.Until
	switch {
	case name == "" && fresh:
		m.Until = time.Time{} // there was nothing to move
	case name != "" && (fresh || m.Until.IsZero()):
		m.Until = now.Add(m.Confirm)
	}
	if m.Until != before {
		d.saveMovesLocked()
	}
}

// scheduleMovesLocked looks again when the next move is to be taken back.
func (d *Daemon) scheduleMovesLocked(now time.Time) {
	var next time.Time
	for _, m := range d.moves {
		if m.Outcome == "" && !m.Until.IsZero() && (next.IsZero() || m.Until.Before(next)) {
			next = m.Until
		}
	}
	if d.takeBack != nil {
		d.takeBack.Stop()
	}
	if !next.IsZero() && d.ctx.Err() == nil {
		d.takeBack = time.AfterFunc(max(next.Sub(now), 0)+time.Millisecond, d.hostChanged)
	}
}

// oneVLAN is the attachments of which the frames can be told from the host's own on a bridge that cannot filter by VLAN: those of the first
// VLAN; the error names the others.
func oneVLAN(nic string, wanted []*controlv1.Attachment) ([]*controlv1.Attachment, error) {
	var one []*controlv1.Attachment
	var errs []error
	for _, a := range wanted {
		if len(one) == 0 || a.GetVlan() == one[0].GetVlan() && a.GetService() == one[0].GetService() {
			one = append(one, a)
			continue
		}
		errs = append(errs, fmt.Errorf("port %s is not attached: this host's addresses are moved away from %s to a bridge, and this kernel's bridges do not filter by VLAN "+
			"(CONFIG_BRIDGE_VLAN_FILTERING), so that it can serve one VLAN alone: use another NIC for it", a.GetPort(), nic))
	}
	return one, errors.Join(errs...)
}

// underlayInterfaces are the patterns of links to send by: a bridge that has what the host had on a NIC counts as the NIC.
func (d *Daemon) underlayInterfaces() []string {
	only := d.cfg.Underlay.Interfaces
	for _, t := range d.trunks {
		is := func(p string) bool {
			ok, err := path.Match(p, t.to.nic)
			return err == nil && ok
		}
		if name, _ := t.wire.Moved(); name != "" && slices.ContainsFunc(only, is) {
			only = append(slices.Clone(only), name)
		}
	}
	return only
}

// moveProblemLocked says that a move waits to be confirmed.
func (t *trunk) moveProblemLocked() (out []Problem) {
	name, _ := t.wire.Moved()
	m := t.d.moves[t.to.nic]
	if name == "" || m == nil || m.Outcome != "" || m.Until.IsZero() {
		return nil
	}
	return []Problem{{t.to.String(), fmt.Sprintf("what this host has on %s is on %s now, and is moved back at %s unless somebody confirms that the host is still reached: "+
		"`etherloom attachment confirm %s`", t.to.nic, name, m.Until.Format(time.RFC3339), m.Port)}}
}
