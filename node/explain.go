package node

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/etherloom/etherloom/bridge"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// This file answers `etherloom explain`: what becomes of a frame, by which check or grant, on which node, and what would
// change that. What this node itself does is asked of the very segment that carries its frames (vswitch.Segment.Explain). What
// another node does is asked of a segment built as that node has it (elsewhere.go), as far as this node is told of the policy;
// no check is written twice.

// ExplainRequest asks what becomes of a frame: of one that is given, or of one of a kind from one party to another.
type ExplainRequest struct {
	From    string `json:"from,omitempty"`    // name, NODE/PORT or address; empty: this node, or of Frame the machine behind it that has its source
	To      string `json:"to,omitempty"`      // name, NODE/PORT or address
	Kind    string `json:"kind,omitempty"`    // icmp, tcp, udp or arp
	Port    uint16 `json:"port,omitempty"`    // of tcp and udp
	Segment string `json:"segment,omitempty"` // its name; needed when more than one fits
	Frame   []byte `json:"frame,omitempty"`   // from the destination address on; instead of To and Kind
	VLAN    string `json:"vlan,omitempty"`    // inside a transparent segment, such as "10", or "20.10" with the outer one first; not with Frame
	Flow    string `json:"flow,omitempty"`    // such as "tcp 192.0.2.1:4242 192.0.2.2:22": its next packet, instead of all the others
	Grant   uint32 `json:"grant,omitempty"`   // that Frame names, if it comes from a peer; 0: that which an honest peer would name
}

// Explained is what `etherloom explain` tells.
type Explained struct {
	Schema  int         `json:"schema"`
	Segment string      `json:"segment"`
	VNI     uint32      `json:"vni"`
	Frame   string      `json:"frame"` // in words
	Hex     string      `json:"hex,omitempty"`
	Passes  bool        `json:"passes"`
	Check   string      `json:"check"` // pass, answered, or the reason as `etherloom drops` names it
	Text    string      `json:"text"`
	Grant   uint32      `json:"grant,omitempty"` // that lets it pass
	On      string      `json:"on"`              // the node whose check decided
	Steps   []Judgement `json:"steps"`
	Fixes   []Fix       `json:"fixes"`
	Notes   []string    `json:"notes"`
}

// Judgement is what one node's switch says of the frame.
type Judgement struct {
	Node      string    `json:"node"`
	Sends     bool      `json:"sends"`        // its own host sends the frame, or a machine behind it; otherwise it has come over a link
	In        string    `json:"in,omitempty"` // the port onto a VLAN by which it comes in from a machine
	Here      bool      `json:"here"`         // by the switch of this node as it runs; otherwise by what this node knows of the policy
	Passes    bool      `json:"passes"`
	Check     string    `json:"check"`
	Text      string    `json:"text"`
	Grant     uint32    `json:"grant,omitempty"` // that the frame named when it came
	Flooded   bool      `json:"flooded,omitempty"`
	Receivers []Outcome `json:"receivers"`
}

// Outcome is what a Judgement says of one port.
type Outcome struct {
	Port   string `json:"port"`
	Kind   string `json:"kind"` // local, link or attached
	Node   string `json:"node"` // who is meant behind it: a node or a machine
	Passes bool   `json:"passes"`
	Check  string `json:"check"`
	Grant  uint32 `json:"grant,omitempty"` // that the frame will name
}

// Fix is one thing that would let a frame pass.
type Fix struct {
	Text    string `json:"text"`
	Command string `json:"command,omitempty"`
}

// question is a request, with what this node knows of it.
type question struct {
	d     *Daemon
	ask   ExplainRequest
	now   time.Time
	on    place
	from  party
	to    party // of a frame that is given: who has its destination address
	frame []byte
	tuple *tuple // of the flow that is asked about; nil if it is none
	vlans ether.VLANs
	lost  error // why nothing can be said of who sends
	out   *Explained
}

// Explain says what becomes of a frame. An error means that the question cannot be answered.
func (d *Daemon) Explain(ask ExplainRequest) (*Explained, error) {
	flow, err := ask.flow()
	if err == nil {
		err = ask.check()
	}
	vlans, err2 := ether.ParseVLANs(ask.VLAN)
	if err == nil {
		err = err2
	}
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.contents; c == nil || c.Settings == nil || c.Self == nil {
		return nil, errors.New("no controller has told this node anything yet, so it knows of no policy: `etherloom status` says why")
	}
	q := &question{
		d: d, ask: ask, now: time.Now(), frame: ask.Frame, tuple: flow, vlans: vlans,
		out: &Explained{Schema: Schema, Steps: []Judgement{}, Fixes: []Fix{}, Notes: []string{}},
	}
	found, err := q.place()
	if err == nil && found {
		err = q.answer()
	} else if err == nil {
		q.nowhere()
	}
	if err != nil {
		return nil, err
	}
	if len(q.frame) > 0 {
		q.out.Frame, q.out.Hex = words(q.frame), hex.EncodeToString(q.frame)
	}
	return q.out, nil
}

// check refuses what is no question.
func (r *ExplainRequest) check() error {
	switch {
	case len(r.Frame) > bridge.MaxFrame:
		return fmt.Errorf("the frame has %d bytes, more than any host sends (%d)", len(r.Frame), bridge.MaxFrame)
	case len(r.Frame) > 0 && (r.To != "" || r.Kind != "" || r.VLAN != ""):
		return errors.New("a frame that is given says itself where it goes and what it is: leave --to, --vlan and the kind out")
	case len(r.Frame) > 0:
		return nil
	case r.To == "":
		return errors.New("say to whom with --to NAME or --to ADDRESS, or give a frame with --hex")
	case r.Grant != 0:
		return errors.New("--grant says what a frame names that came over a link: give the frame with --hex, and the peer with --from")
	case r.Kind != "icmp" && r.Kind != "tcp" && r.Kind != "udp" && r.Kind != "arp":
		return fmt.Errorf("the kind of the frame is icmp, tcp, udp or arp, found %q", r.Kind)
	case (r.Kind == "tcp" || r.Kind == "udp") == (r.Port == 0):
		return fmt.Errorf("a port, 1 to 65535, goes with tcp and udp and with nothing else, found %d with %s", r.Port, r.Kind)
	}
	return nil
}

// nowhere answers where this node is on no segment that the question could be about: without a grant nothing of one is here,
// so an empty policy answers, as it does on a segment whose grant has just gone.
func (q *question) nowhere() {
	q.on.name, q.on.view = q.ask.Segment, policy.Compile(policy.Rules{})
	q.from, q.to = q.member(q.d.self()), party{}
	q.byPolicy()
	if q.ask.Segment == "" {
		q.note("this node is on no segment: nothing of one is here, neither TAP nor peers nor names")
		return
	}
	q.note("this node is not on segment %s and is told nothing of it: `etherloom segment list` shows an administrator which there are", q.ask.Segment)
}

// byPolicy answers without a frame, where none can be made: the policy knows nobody by whom it is to be sent or received.
func (q *question) byPolicy() policy.Verdict {
	v := q.on.view.Between(q.from.id, q.to.id, q.now)
	if v != policy.Pass {
		e := vswitch.Explanation{Drop: vswitch.Drop(v)}
		by := q.carrier(q.from)
		q.judged(by, nil, true, e, 0)
		if by == 0 {
			q.out.Steps[0].Node = q.from.name
		}
		q.decide(q.out.Steps[0], e.Drop, 0, q.to)
	}
	return v
}

// answer judges the frame where it is sent, and where it is received.
func (q *question) answer() error {
	if err := q.own(); err != nil {
		return err
	}
	if len(q.frame) == 0 {
		q.from, q.to = q.stranded(q.from), q.stranded(q.to)
		for _, p := range []party{q.from, q.to} {
			if p.guessed {
				q.note("nobody is known to have %s, so it is taken to be of %s, which may have it", p.addr, p.name)
			}
		}
		if done, err := q.sample(); done || err != nil {
			return err
		}
	} else if q.carrier(q.from) != q.d.self() {
		return q.arrived()
	}
	if q.tuple != nil {
		return q.goesOn()
	}
	by := q.carrier(q.from)
	sw, in, err := q.switchOf(by)
	if err != nil {
		return err
	}
	e := sw.Explain(in, q.frame, vswitch.Tag{}, q.now)
	q.judged(by, in, true, e, 0)
	if !e.Flooded && len(e.Receivers) == 0 {
		q.decide(q.out.Steps[0], e.Drop, 0, q.to)
		return nil
	}
	return q.received(e)
}

// received judges the frame again at those who receive it: at the one who is meant, or at everybody.
func (q *question) received(e vswitch.Explanation) error {
	best := ruling{q.out.Steps[0], e.Drop, 0, q.to}
	if best.drop == vswitch.Forwarded {
		best.drop = vswitch.DropNoReceiver
	}
	// Who is no member has no port here, so no port's judgement says why the frame does not get there.
	if v := q.on.view.Between(q.from.id, q.to.id, q.now); q.to.station != nil && v != policy.Pass {
		best.drop = vswitch.Drop(v)
	}
	left, seen := 0, map[copyTo]bool{}
	for _, r := range e.Receivers {
		receiver := q.member(r.Who)
		if q.to.station != nil && receiver.id != q.to.id && receiver.id != 0 {
			continue
		}
		if end, ends := q.endOf(r, receiver); ends {
			best.improve(end)
			continue
		}
		if one := (copyTo{r.Port, r.Tag}); seen[one] {
			continue
		} else if seen[one] = true; len(q.out.Steps) > maxReceivers {
			left++
			continue
		}
		sw, in, err := q.switchOf(r.Port.Identity)
		if err != nil {
			return err
		}
		there := sw.Explain(in, q.frame, r.Tag, q.now)
		q.judged(r.Port.Identity, in, false, there, r.Tag.Grant)
		best.improve(ruling{q.out.Steps[len(q.out.Steps)-1], there.Drop, r.Tag.Grant, receiver})
	}
	if left > 0 {
		q.note("%d more would receive it by the same grant", left)
	}
	q.decide(best.by, best.drop, best.grant, best.who)
	q.notes()
	return nil
}

// endOf says what becomes of a frame that goes over no link from the node of its sender; false if another node judges it.
func (q *question) endOf(r vswitch.Receiver, receiver party) (ruling, bool) {
	end := ruling{q.out.Steps[0], r.Drop, 0, receiver}
	switch {
	case r.Drop != vswitch.Forwarded:
	case r.Port.Kind != vswitch.Link: // the way ends here, so the frame names no grant
		end.grant = q.honest(receiver.id)
	case r.Tag.Grant == 0:
		q.note("%s carries the same VLAN and remembers such flows, so it is handed over there to be judged: ask there", r.Port.Name)
	default:
		return end, false
	}
	return end, true
}

// ruling is what one judgement makes the answer.
type ruling struct {
	by    Judgement
	drop  vswitch.Drop
	grant policy.GrantID
	who   party // would have the frame
}

// improve takes another ruling, unless the frame passes by this one.
func (r *ruling) improve(next ruling) {
	if r.drop != vswitch.Forwarded {
		*r = next
	}
}

// copyTo is a copy of a frame: those behind one port have one for each grant.
type copyTo struct {
	port *vswitch.Port
	tag  vswitch.Tag
}

// maxReceivers is at how many receivers a frame is judged again; the others are judged alike.
const maxReceivers = 8

// honest is the grant that a sender which obeys would name for the frame to a receiver; 0 if it would not send it.
func (q *question) honest(receiver policy.Identity) policy.GrantID {
	parse := ether.Parse
	if q.on.seg.GetTransparent() {
		parse = ether.ParseInside
	}
	f, err := parse(q.frame)
	if err != nil {
		return 0
	}
	p := policy.Passage{Frame: f, Source: q.from.id, Flows: policy.NewFlows(), Now: q.now, Dry: true}
	id, _ := q.on.view.Egress(&p, receiver)
	return id
}

// arrived judges a frame as one that has come over a peer's link.
func (q *question) arrived() error {
	self := q.d.self()
	if !q.on.view.MaySpeak(self, q.to.id) {
		q.to = q.mostLikely()
	}
	grant := policy.GrantID(q.ask.Grant)
	if grant == 0 {
		var v policy.Verdict
		if v = q.on.view.Between(q.from.id, q.to.id, q.now); v != policy.Pass {
			q.byPolicy()
			return nil
		}
		grant = q.honest(q.to.id)
	}
	sw, in, err := q.switchOf(self)
	if err != nil {
		return err
	}
	e := sw.Explain(in, q.frame, vswitch.Tag{Source: q.from.id, Grant: grant}, q.now)
	q.judged(self, in, false, e, grant)
	q.decide(q.out.Steps[0], e.Drop, grant, q.to)
	return nil
}

// mostLikely is who here is to have a frame that is for nobody's address: this host, or a machine behind it that may have something of
// the sender's.
func (q *question) mostLikely() party {
	own := q.on.view.Own(q.d.self())
	for _, id := range own {
		if q.on.view.Between(q.from.id, id, q.now) == policy.Pass {
			return q.member(id)
		}
	}
	return q.member(own[0])
}
