package probe

import (
	"time"

	"github.com/etherloom/etherloom/ether"
)

// Heard is what a probe was: the hello of another gateway of the attachment, or a sign of a loop in the segment. It borrows the
// frame's bytes.
type Heard struct {
	Node  uint32 // who says hello; 0: nobody
	Hello []byte
	Loop  bool // it has come by a loop, blocked or not
}

// Hear takes a frame for which Is holds, from the port of an attachment. It blocks ports, and returns the other gateway's
// hello if that is what it is. What it refuses changes nothing but a counter. It must not be given what this host itself has
// just sent, as packet sockets show it (PACKET_OUTGOING): that would be a loop.
func (g *Guard) Hear(attachment uint32, f *ether.Frame, now time.Time) (Heard, error) {
	g.enter(now)
	p := g.ports[attachment]
	if p == nil {
		return Heard{}, ErrNoPort
	}
	m, err := g.open(p, f)
	g.stats.count(err)
	if err != nil {
		return Heard{}, err
	}
	return g.judge(p, &m), nil
}

// open authenticates a probe.
func (g *Guard) open(p *Port, f *ether.Frame) (message, error) {
	m, covered, tag, err := parse(f.Payload)
	if err != nil {
		return message{}, err
	}
	s := g.seals[m.vni]
	if s == nil {
		return message{}, ErrKey
	}
	if !s.verifies(f.Dst, f.Src, covered, tag) {
		return message{}, ErrTag
	}
	if m.node == g.cfg.Node {
		return m, g.own(&m)
	}
	return m, g.fresh(p, &m)
}

// own refuses a probe of this node that was not sent just now: it did not come by a loop. A sequence that was not sent yet is
// further away than any, since differences do not become negative.
func (g *Guard) own(m *message) error {
	from := g.ports[m.attachment]
	if from == nil || from.VNI != m.vni || m.boot != g.cfg.Boot || from.sequence-m.sequence >= recalled {
		return ErrOld
	}
	if g.entered.Sub(from.at[m.sequence%recalled]) > g.cfg.Patience {
		return ErrOld
	}
	return nil
}

// fresh refuses what is not newer than what this port has heard of the sender. A new run of it counts when the old one is
// silent: what was kept of a run that has ended cannot take the place of the present one.
func (g *Guard) fresh(p *Port, m *message) error {
	s := sender{m.attachment, m.node}
	t := p.senders[s]
	switch {
	case t == nil:
		t = g.remember(p, s)
	case t.boot == m.boot && m.sequence <= t.sequence:
		return ErrOld
	case t.boot != m.boot && g.heard-t.last < g.cfg.Patience:
		return ErrOld
	}
	if m.blocked || g.heard-t.last >= g.cfg.Patience {
		t.open = g.heard
	}
	t.boot, t.sequence, t.last = m.boot, m.sequence, g.heard
	return nil
}

// remember makes room for a sender, at the expense of the one that was silent for longest.
func (g *Guard) remember(p *Port, s sender) *track {
	if len(p.senders) >= maxSenders {
		var oldest sender
		last := time.Duration(-1)
		for o, t := range p.senders {
			if last < 0 || t.last < last {
				oldest, last = o, t.last
			}
		}
		delete(p.senders, oldest)
	}
	t := &track{last: g.heard, open: g.heard}
	p.senders[s] = t
	return t
}

// judge does what an authentic probe asks for. Its cases are those of the table at the head of the package.
func (g *Guard) judge(p *Port, m *message) Heard {
	me, from := sender{p.Attachment, g.cfg.Node}, sender{m.attachment, m.node}
	switch {
	case m.vni != p.VNI:
		if _, known := p.cabled[m.vni]; !known {
			g.report(Event{
				Kind: Cabled, Attachment: p.Attachment, VNI: p.VNI, OtherAttachment: m.attachment, OtherNode: m.node, OtherVNI: m.vni,
			})
		}
		p.cabled[m.vni] = g.heard
	case from == me:
		g.block(p, Looped, from)
	case m.node == g.cfg.Node && m.attachment > p.Attachment:
		g.block(g.ports[m.attachment], Joined, me)
	case m.node == g.cfg.Node:
		g.block(p, Joined, from)
	case m.attachment == p.Attachment:
		return Heard{Node: m.node, Hello: m.hello}
	case me.over(from):
		g.block(p, Bridged, from)
	case g.heard-p.senders[from].open >= g.waits():
		g.block(p, Unheeded, from)
	case !m.blocked:
		p.hurry(g.entered) // the greater blocks as soon as it hears of this one
	}
	return Heard{Loop: m.vni == p.VNI}
}
