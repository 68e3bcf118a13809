package model

import (
	"fmt"
	"time"
)

// Origin says who wants a port.
type Origin string

// OriginNode is that of a port that the gateway itself has declared, and may change and remove. One of an administrator's has none.
const OriginNode Origin = "node"

// Name is the origin in words.
func (o Origin) Name() string {
	if o == OriginNode {
		return "node"
	}
	return "administrator"
}

// Move asks a gateway to take a NIC that its host needs, and to move what the host has there.
type Move struct {
	Host bool `json:"host,omitempty"`
	// Confirm is how long the gateway waits for somebody to say that it is still reached, before it takes the move back; zero: not.
	Confirm   Duration `json:"confirm,omitempty"`
	Asked     uint64   `json:"asked,omitempty"`     // another number with each request
	Confirmed bool     `json:"confirmed,omitempty"` // this request, by an administrator
}

// DefaultConfirm is how long a gateway waits for a confirmation unless it is told otherwise.
const DefaultConfirm = time.Minute

// maxConfirm is for how long a host may be in doubt.
const maxConfirm = 24 * time.Hour

func (p *AttachmentPort) checkMove() error {
	switch confirm := time.Duration(p.Move.Confirm); {
	case p.Move.Host && p.NIC == "":
		return fmt.Errorf("only what the host has on a NIC is moved, found bridge %q: a bridge is joined, and its host stays where it is", p.Bridge)
	case confirm < 0 || confirm > maxConfirm || confirm > 0 && confirm < time.Second:
		return fmt.Errorf("a move is to be confirmed within %v, expected 1s to %v, or 0 for never", confirm, maxConfirm)
	}
	return nil
}

// Asks is the move that a port has after a request: a new one, unless the same NIC's is confirmed.
func (m Move) Asks(host bool, confirm time.Duration, sameNIC bool, now time.Time) Move {
	switch {
	case !host:
		return Move{}
	case m.Host && m.Confirmed && sameNIC:
		m.Confirm = Duration(confirm)
		return m
	}
	return Move{Host: true, Confirm: Duration(confirm), Asked: uint64(now.UnixNano())} //nolint:gosec // after 1970
}
