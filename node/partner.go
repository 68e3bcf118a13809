package node

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/etherloom/etherloom/bridge/lacp"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
)

// This file compares whom the gateways of a VLAN have at the other ends of their cables. If that is not one system, with one key, the cables end in
// two link aggregations, and a frame for many would come by both.

// lag is what a port knows of its gateways' link aggregation. It is guarded by sentinel.mu.
type lag struct {
	on    bool
	told  time.Time                        // when the other gateways were told of the partner
	last  []byte                           // what they were told
	heard map[policy.Identity]heardPartner // by gateway
	since time.Time                        // since when one has said another partner than ours; zero: none does
	split policy.Identity                  // which; 0 until that has lasted
}

// heardPartner is what another gateway has said of its partner.
type heardPartner struct {
	partner partner
	at      time.Time
}

// partner is whom a gateway has at the other end of its cable; zero: nobody.
type partner struct {
	system lacp.System
	key    uint16
}

// formatPartner is the format of what crosses the door to tell other gateways of the partner: attachment, system priority, system, key,
// behind four bytes.
const (
	formatPartner = 9
	partnerHead   = 4
	partnerLen    = partnerHead + 4 + 2 + 6 + 2
)

func partnerMessage(attachment policy.Identity, p partner) []byte {
	b := append(make([]byte, 0, partnerLen), formatPartner, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(attachment))
	b = binary.BigEndian.AppendUint16(b, p.system.Priority)
	b = append(b, p.system.MAC[:]...)
	return binary.BigEndian.AppendUint16(b, p.key)
}

// parsePartner reads such a message. A later version may have more to say behind it.
func parsePartner(b []byte) (attachment policy.Identity, p partner, ok bool) {
	if len(b) < partnerLen || b[0] != formatPartner {
		return 0, partner{}, false
	}
	return policy.Identity(binary.BigEndian.Uint32(b[4:])), partner{
		lacp.System{Priority: binary.BigEndian.Uint16(b[8:]), MAC: ether.MAC(b[10:16])}, binary.BigEndian.Uint16(b[16:]),
	}, true
}

const (
	// partnerEvery is how often the other gateways are told of a partner, and partnerFor how long that is believed.
	partnerEvery = time.Second
	partnerFor   = 3*partnerEvery + partnerEvery/2
	// splitAfter is how long partners must differ: a switch that is set up anew says so on one cable before the other.
	splitAfter = 3 * time.Second
)

// hearPartner takes what another gateway says of its partner.
func (s *sentinel) hearPartner(from identity.ID, message []byte, now time.Time) {
	attachment, who, ok := parsePartner(message)
	if !ok {
		s.d.malformed.Add(1)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.posts[attachment]
	if p == nil || !p.lag.on || !slices.Contains(p.others, policy.Identity(from)) {
		return // of a VLAN that is not both's
	}
	p.lag.heard[policy.Identity(from)] = heardPartner{who, now}
}

// partnerOf is whom a NIC has at the other end.
func partnerOf(g *aggregator) partner {
	if g == nil {
		return partner{}
	}
	system, key, ok := g.port.Partner()
	if !ok {
		return partner{}
	}
	return partner{system, key}
}

// tellPartnerLocked tells the other gateways of the partner when that is due, and compares it with theirs.
func (s *sentinel) tellPartnerLocked(p *post, g *aggregator, now time.Time) {
	own := partnerOf(g)
	message := partnerMessage(p.a.id, own)
	if p.lag.due(message, now) {
		s.overlayLocked(p, message[:partnerHead], message[partnerHead:])
	}
	p.lag.compare(own, p.others, now)
}

// due reports whether the other gateways are to be told something now, and notes that they are.
func (l *lag) due(message []byte, now time.Time) bool {
	if bytes.Equal(message, l.last) && now.Sub(l.told) < partnerEvery {
		return false
	}
	l.last, l.told = message, now
	return true
}

// compare finds out whether another gateway has another partner.
func (l *lag) compare(own partner, others []policy.Identity, now time.Time) {
	other := policy.Identity(0)
	for _, id := range others {
		h := l.heard[id]
		if now.Sub(h.at) < partnerFor && own != (partner{}) && h.partner != (partner{}) && h.partner != own {
			other = id
		}
	}
	switch {
	case other == 0:
		l.since, l.split = time.Time{}, 0
	case l.since.IsZero():
		l.since = now
	case now.Sub(l.since) >= splitAfter:
		l.split = other
	}
}

// splitTextLocked says that the cables of a NIC and of another gateway do not end in one aggregation; empty if they do, as far as is known.
func (s *sentinel) splitTextLocked(t *trunk, g *aggregator) string {
	for _, p := range s.posts {
		if p.a.trunk != t || p.lag.split == 0 {
			continue
		}
		own, theirs := partnerOf(g), p.lag.heard[p.lag.split].partner
		return fmt.Sprintf("the gateways' cables do not end in one link aggregation: by LACP this gateway's switch is %v, key %d, and that of %s is %v, key %d. "+
			"One gateway carries the VLAN meanwhile. Put both of the switch's ports into one aggregation, make the two switches one (a stack, or MLAG), or say "+
			"`etherloom attachment set %s --redundancy single-active --lacp off`", own.system, own.key, s.names[p.lag.split], theirs.system, theirs.key, s.nameOf(t))
	}
	return ""
}
