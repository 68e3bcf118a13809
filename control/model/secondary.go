package model

import (
	"fmt"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

// SecondaryVLAN is where in a private VLAN the machines behind an attachment are (RFC 5517 section 2): isolated, of a community, or, as
// the zero one says, promiscuous. Of each other only those are told of whom policy lets pass frames, at both ends
// (docs/decisions/0012-private-vlans.md).
type SecondaryVLAN struct {
	Isolated  bool   `json:"isolated,omitempty"`
	Community string `json:"community,omitempty"` // one DNS label, of the segment
}

// Check holds it against form.
func (s SecondaryVLAN) Check() error {
	if s.Isolated && s.Community != "" {
		return fmt.Errorf("an attachment is isolated or of a community, not both: found community %q", s.Community)
	}
	if s.Community == "" {
		return nil
	}
	if err := identity.CheckHostName(s.Community); err != nil {
		return fmt.Errorf("community: %w", err)
	}
	return nil
}

// and is the place of a host that may be in either of two: nobody can tell from its frames in which, so it is kept apart from
// everybody from whom one of the two is.
func (s SecondaryVLAN) and(o SecondaryVLAN) SecondaryVLAN {
	switch {
	case s == o, o == SecondaryVLAN{}:
		return s
	case s == SecondaryVLAN{}:
		return o
	}
	return SecondaryVLAN{Isolated: true}
}

// Proto is the place as nodes and administrators are told it; nil for promiscuous ones.
func (s SecondaryVLAN) Proto() *controlv1.SecondaryVLAN {
	if s == (SecondaryVLAN{}) {
		return nil
	}
	return &controlv1.SecondaryVLAN{Isolated: s.Isolated, Community: s.Community}
}

// SecondaryOf reads one; nil is that of promiscuous ones.
func SecondaryOf(p *controlv1.SecondaryVLAN) SecondaryVLAN {
	return SecondaryVLAN{p.GetIsolated(), p.GetCommunity()}
}

// WithSecondary is the record of an attachment with another place.
func (a *Attachment) WithSecondary(s SecondaryVLAN) *Attachment {
	c := *a
	c.Secondary = s
	return &c
}
