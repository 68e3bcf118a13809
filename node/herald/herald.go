// Package herald tells the other nodes of a segment which machines are behind this gateway, and hears of those behind others (RFC 7432
// sections 7.7, 8.2 and 15; the rules of who wins are package fdb's).
//
// A Herald is given the time and messages, and gives messages: it has no goroutine, no socket and no clock. Four things decide its
// shape:
//
//   - A peer is told of an address only if the machine that has it has anything to do with the peer, or with a machine behind it. What
//     it is told, numbers included, says nothing of the others: so each peer has a list and numbers of its own.
//   - Messages get lost, come twice and out of order. So a change says from which list to which it leads. Who misses one asks
//     for the whole list, which may come in parts, in any order; a part that was lost comes again with the same number.
//   - A gateway that dies says nothing. So a peer that was told of an address hears each 200 ms that its gateway is there; one
//     that hears nothing for 800 ms forgets all of that gateway's at once, however many that are. A peer that was told of none
//     hears nothing.
//   - Of an address all claims are kept, and not only the best one (a router's Adj-RIB-In), for each peer up to a limit. So what
//     loses against a claim that is withdrawn later, or was not permitted by a policy that changes, is found again without asking.
//
// Notices say nothing of frames, and must not keep a link open that carries none. So a peer whose link has carried no frame for
// as long as a learned address lives is told that there is none any more, and then nothing, until a frame passes; its link is
// closed when it has been idle for as long as any. A closed link is not opened to tell of an address, but to two. Other gateways
// are told of an address that has moved, for one may still have it on its own side. And who is one of several gateways of a VLAN is always
// told: one that stands by carries no frame, and has to know where everybody is when it takes over.
//
// What a peer says is believed only as far as the signed state lets it speak: of machines of which it is a gateway, and MACs that these may use.
package herald

import (
	"log/slog"
	"sync"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// Every is how often Tick is to be called. A change is told at most so much later.
const Every = 100 * time.Millisecond

// Timers and limits.
const (
	beatEvery  = 200 * time.Millisecond // who was told of addresses hears so often that this node is there
	lostAfter  = 800 * time.Millisecond // who has not been heard for so long has none any more
	askEvery   = 200 * time.Millisecond // a peer is asked, and answered, at most so often
	wakeEvery  = time.Second            // a gateway that stands by is asked so often while its link is closed, and each time half as often
	wakeSeldom = time.Minute            // but not more seldom
	maxTries   = 6
	burst      = 2048 // messages in one tick; who is left waits for the next
)

// Links are the links of a segment to other nodes.
type Links interface {
	Ports() map[policy.Identity]*vswitch.Port // by peer; replaced as a whole
	Live(port *vswitch.Port) bool             // what is sent leaves at once
	Frames(port *vswitch.Port) uint64         // that have passed, both ways
}

// Config is what a herald is made of.
type Config struct {
	VNI    policy.VNI
	Self   policy.Identity
	Table  *fdb.Table[vswitch.Place]
	Policy func() *policy.View
	Links  Links
	Epoch  func() uint64 // a new random number
	Most   int           // addresses that are remembered of one peer
	Quiet  time.Duration // who is told nothing more when its link has carried no frame for so long
	Log    *slog.Logger
	// Moved is told of an address that was on a VLAN here and is behind another gateway now; it must not block. nil: nobody is.
	Moved func(mac ether.MAC, from vswitch.Place)

	Groups   Groups           // nil: no VLAN is carried by several gateways at once
	Together func() []Carried // the ports of this node of such a kind, by attachment
	// Fellow is told of a peer when it and this node begin to share a VLAN; it must not block. nil: nobody is.
	Fellow func(peer *vswitch.Port, attachment policy.Identity)
}

// Message is one that is to be sent.
type Message struct {
	To    *vswitch.Port
	Bytes []byte
}

// Herald is one segment's. Its methods may be called concurrently.
type Herald struct {
	cfg Config

	mu       sync.Mutex // taken before the table's
	view     *policy.View
	until    time.Time                             // when the view means something else
	audience map[policy.Identity][]policy.Identity // who is to know where each machine of ours is: nodes, by number
	ticked   time.Time

	told    uint64 // of the table's changes
	mine    map[ether.MAC]claim
	sorted  []entry // mine, by address; nil if it is to be made
	changes []change
	whose   map[policy.Identity]bool // they are
	to      map[policy.Identity]*telling
	order   []policy.Identity // of to
	turn    int

	heard map[policy.Identity]*hearing
	tog   together

	out  []Message
	room []byte // of what is in out
	list []byte // scratch
	left int    // of burst
}

// New returns a herald that has told and heard nothing. Nobody but it may call the table's Changes.
func New(cfg Config) *Herald {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Table.SetAnnouncers(func(at vswitch.Place) bool { return at.Port.Kind == vswitch.Link && at.Who != at.Port.Identity })
	return &Herald{
		cfg: cfg, whose: map[policy.Identity]bool{}, mine: map[ether.MAC]claim{}, to: map[policy.Identity]*telling{}, heard: map[policy.Identity]*hearing{},
		tog: together{told: map[policy.Identity]*toldCarried{}},
	}
}

// Tick returns what is to be sent now. It belongs to the caller until it calls Tick again.
func (h *Herald) Tick(now time.Time) []Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.out, h.room, h.left = h.out[:0], h.room[:0], burst
	h.followLocked(now)
	ports := h.cfg.Links.Ports()
	h.forgetLocked(ports, now)
	h.shareLocked(ports, now)
	h.ticked = now
	if len(h.to) > 0 || len(h.mine) > 0 {
		h.collectLocked(now)
		h.tellLocked(ports, now)
	}
	h.tellCarriedLocked(ports, now)
	h.askLocked(ports, now)
	return h.out
}

// followLocked takes a new policy, or what the end of a grant makes of the old one.
func (h *Herald) followLocked(now time.Time) {
	view := h.cfg.Policy()
	if view == h.view && (h.until.IsZero() || now.Before(h.until)) {
		return
	}
	h.view, h.until = view, view.NextExpiry(now)
	h.addressLocked(now)
	h.reconsiderAllLocked(now)
}

// isGateway reports whether a node speaks for others.
func (h *Herald) isGateway(id policy.Identity) bool { return h.view.IsGateway(id) }

// isRedundant reports whether a node is one of several gateways of a VLAN, so that it may have to take over.
func (h *Herald) isRedundant(id policy.Identity) bool { return h.view.IsRedundant(id) }

// emit puts a notice into what is to be sent.
func (h *Herald) emit(port *vswitch.Port, n *notice) {
	n.vni = h.cfg.VNI
	at := len(h.room)
	h.room = n.append(h.room)
	h.out = append(h.out, Message{port, h.room[at:len(h.room):len(h.room)]})
	h.left--
}
