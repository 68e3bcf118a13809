package probe

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"slices"
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// Config says who sends probes.
type Config struct {
	Node     uint32
	Boot     uint64        // random, anew each time the process starts
	Interval time.Duration // between two probes of a port, give or take a tenth; 0: 200 ms
	Patience time.Duration // with 3 intervals, how long a block lasts; who is silent for so long is forgotten; 0: 1 s
}

// Defaults of Config.
const (
	DefaultInterval = 200 * time.Millisecond
	DefaultPatience = time.Second
)

// Guard watches the attached ports of one gateway. One goroutine at a time may call it, with times that do not go back; a
// Port's Blocked may be called by anybody at any time.
type Guard struct {
	cfg     Config
	ports   map[uint32]*Port // by attachment
	seals   map[uint32]*seal // by segment
	heard   time.Duration    // how long it has listened: since it was made, less the gaps between calls
	entered time.Time
	events  []Event
	stats   Stats
}

// seal authenticates the probes of a segment.
type seal struct {
	mac  hash.Hash
	head []byte
	sum  []byte
}

// Attached is a port to watch. Everybody who calls a probe of VNI authentic has the same key.
type Attached struct {
	VNI, Attachment uint32
	MAC             ether.MAC // of its probes: locally administered, and no other port's
	Key             []byte    // KeyLen bytes
}

// Port is a port that is watched.
type Port struct {
	Attached
	blocked atomic.Bool

	sequence uint64
	at       [recalled]time.Time // when probes were sent, by sequence
	due      time.Time
	senders  map[sender]*track
	causes   map[sender]time.Duration // by whom it must block: when that was heard last, of Guard.heard
	cabled   map[uint32]time.Duration // segments that were heard here: when last
}

// recalled is how many of its own probes a port remembers.
const recalled = 64

// sender names who sends probes.
type sender struct{ attachment, node uint32 }

func (s sender) over(o sender) bool {
	return s.attachment > o.attachment || s.attachment == o.attachment && s.node > o.node
}

// track is what a port has heard of a sender. Durations are of Guard.heard.
type track struct {
	boot, sequence uint64
	last           time.Duration
	open           time.Duration // since when it says that it is open, without a break
}

// maxSenders is how many senders a port remembers. Only gateways of the network are authentic, so there are never so many.
const maxSenders = 256

// Blocked reports whether the port must carry no frames.
func (p *Port) Blocked() bool { return p.blocked.Load() }

// New makes a guard without ports.
func New(cfg Config, now time.Time) (*Guard, error) {
	if cfg.Interval == 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Patience == 0 {
		cfg.Patience = DefaultPatience
	}
	if cfg.Node == 0 || cfg.Interval < time.Millisecond || cfg.Patience < cfg.Interval {
		return nil, fmt.Errorf("probe: node %d, interval %v, patience %v; need a node, 1 ms or more, and no less patience than that",
			cfg.Node, cfg.Interval, cfg.Patience)
	}
	return &Guard{cfg: cfg, entered: now, ports: make(map[uint32]*Port), seals: make(map[uint32]*seal)}, nil
}

// Add watches a port from now on. There is one for each attachment; adding it again changes its key and MAC.
func (g *Guard) Add(a Attached, now time.Time) (*Port, error) {
	if len(a.Key) != KeyLen || a.Attachment == 0 || a.VNI >= 1<<24 {
		return nil, fmt.Errorf("probe: attachment %d of segment %d with a key of %d bytes; need %d, and numbers in their ranges",
			a.Attachment, a.VNI, len(a.Key), KeyLen)
	}
	const local = 2 // U/L bit of the first byte (IEEE 802 section 8.2)
	if !a.MAC.IsStation() || a.MAC[0]&local == 0 {
		return nil, fmt.Errorf("probe: MAC %v of attachment %d is no locally administered one of a station, such as 02:00:5e:10:00:01",
			a.MAC, a.Attachment)
	}
	g.enter(now)
	p := g.ports[a.Attachment]
	if p != nil && p.VNI != a.VNI {
		g.Remove(a.Attachment)
		p = nil
	}
	if p == nil {
		p = &Port{
			due: now, senders: make(map[sender]*track), causes: make(map[sender]time.Duration), cabled: make(map[uint32]time.Duration),
		}
		g.ports[a.Attachment] = p
	}
	g.seals[a.VNI] = &seal{mac: hmac.New(sha256.New, a.Key)}
	a.Key = nil // the seal has it
	p.Attached = a
	return p, nil
}

// Remove forgets a port.
func (g *Guard) Remove(attachment uint32) {
	p := g.ports[attachment]
	if p == nil {
		return
	}
	delete(g.ports, attachment)
	for _, o := range g.ports {
		if o.VNI == p.VNI {
			return
		}
	}
	delete(g.seals, p.VNI)
}

// Frame is a frame to send out of the port of an attachment, blocked or not.
type Frame struct {
	Attachment uint32
	Data       []byte
}

// Tick lets time pass. It returns the probes that are due, and when it must be called next at the latest.
func (g *Guard) Tick(now time.Time) (frames []Frame, next time.Time) {
	g.enter(now)
	next = now.Add(g.cfg.Interval * 3 / 2)
	for a, p := range g.ports {
		if left := g.heal(p); left > 0 {
			next = earlier(next, now.Add(left))
		}
		if !now.Before(p.due) {
			frames = append(frames, Frame{a, g.send(p, nil, now)})
		}
		next = earlier(next, p.due)
	}
	slices.SortFunc(frames, func(a, b Frame) int { return cmp.Compare(a.Attachment, b.Attachment) })
	return frames, next
}

// hurryEvery is how far apart, at least, probes are that are sent before their time.
const hurryEvery = 20 * time.Millisecond

// Hurry makes a probe due now on every port, because there may be a loop.
func (g *Guard) Hurry(now time.Time) {
	g.enter(now)
	for _, p := range g.ports {
		p.hurry(now)
	}
}

func (p *Port) hurry(now time.Time) { p.due = earlier(p.due, later(now, p.sentLast().Add(hurryEvery))) }

func (p *Port) sentLast() time.Time { return p.at[p.sequence%recalled] }

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Carry returns a probe that carries a hello of the election, out of the port of an attachment. It takes the place of the
// next that is due.
func (g *Guard) Carry(attachment uint32, hello []byte, now time.Time) ([]byte, error) {
	p := g.ports[attachment]
	if p == nil {
		return nil, ErrNoPort
	}
	if len(hello) > MaxHello {
		return nil, errors.New("probe: hello is too long for a probe")
	}
	g.enter(now)
	return g.send(p, hello, now), nil
}

func (g *Guard) send(p *Port, hello []byte, now time.Time) []byte {
	p.sequence++
	p.at[p.sequence%recalled] = now
	// Ports that have started together must not send together for ever. What spreads them is no secret.
	const mix = 0x9e3779b97f4a7c15 // 2^64 by the golden ratio (Knuth, volume 3, section 6.4)
	spread := time.Duration((g.cfg.Boot^uint64(p.Attachment)+p.sequence)*mix>>33) % (g.cfg.Interval/5 + 1)
	p.due = now.Add(g.cfg.Interval*9/10 + spread)
	m := message{
		vni: p.VNI, attachment: p.Attachment, node: g.cfg.Node, boot: g.cfg.Boot, sequence: p.sequence,
		blocked: p.Blocked(), hello: hello,
	}
	return m.appendFrame(make([]byte, 0, ether.HeaderLen+headerLen+len(hello)+tagLen), p.MAC, g.seals[p.VNI])
}

// enter is what every call does first. Time in which nobody listened does not count as time in which nothing was heard: what
// heals a port may lie unread.
func (g *Guard) enter(now time.Time) {
	if gap := now.Sub(g.entered); gap > 0 {
		g.entered = now
		if gap <= 2*g.cfg.Interval {
			g.heard += gap
		}
	}
}

// lasts is for how long a port stays blocked that hears nothing more.
func (g *Guard) lasts() time.Duration { return 3*g.cfg.Interval + g.cfg.Patience }

// waits is for how long the lesser hears probes of the greater until it blocks itself: three, each of which it has answered.
func (g *Guard) waits() time.Duration { return 2 * g.cfg.Interval * 9 / 10 }

// heal opens a port that has heard nothing more by which it must block, and forgets who is silent. It says how long the port
// stays blocked if nothing more is heard.
func (g *Guard) heal(p *Port) (left time.Duration) {
	for s, last := range p.causes {
		if stays := last + g.lasts() - g.heard; stays > 0 {
			left = max(left, stays)
		} else {
			delete(p.causes, s)
		}
	}
	for vni, last := range p.cabled {
		if g.heard-last >= g.lasts() {
			delete(p.cabled, vni)
		}
	}
	if len(p.causes) == 0 && p.blocked.Swap(false) {
		g.report(Event{Kind: Healed, Attachment: p.Attachment, VNI: p.VNI})
	}
	return left
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// block blocks a port because of a sender.
func (g *Guard) block(p *Port, why Kind, by sender) {
	p.causes[by] = g.heard
	if !p.blocked.Swap(true) {
		g.report(Event{
			Kind: why, Attachment: p.Attachment, VNI: p.VNI, OtherAttachment: by.attachment, OtherNode: by.node, OtherVNI: p.VNI,
		})
	}
}
