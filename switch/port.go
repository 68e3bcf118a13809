package vswitch

import (
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// Lane numbers the goroutine that carries a frame, from 0. What an Egress keeps for each lane needs no lock.
type Lane int

// Tag is what travels with a frame between nodes beside its segment.
type Tag struct {
	Source policy.Identity // who sent it
	Grant  policy.GrantID  // the grant that lets the receiver have it
}

// Egress is the way out of a port.
type Egress interface {
	// Send takes one frame on the lane that carries it. The frame is borrowed until Send returns. A local port
	// ignores the tag.
	Send(frame []byte, undone ether.Offload, tag Tag, lane Lane)
}

// Kind says what is behind a port.
type Kind uint8

// The kinds of port.
const (
	Local    Kind = iota // the machine this daemon runs on
	Link                 // another node, with the machines for which it speaks
	Attached             // machines on a VLAN, for which this node speaks
	numKinds
)

func (k Kind) String() string { return [numKinds]string{"local", "link", "attached"}[k] }

// Port is where frames enter or leave a segment.
type Port struct {
	Name     string
	Kind     Kind
	Identity policy.Identity // who is behind it: this node, the peer, or those on the VLAN whom nobody named
	out      Egress
	counters portCounters

	attributes atomic.Pointer[Attributes]
	fault      atomic.Pointer[Fault]
	gate       atomic.Pointer[func(time.Time) bool]
	lead       atomic.Pointer[func(time.Time) bool]
	together   atomic.Bool // of an attached port: other gateways carry its VLAN at the same time
	group      *Group      // of a bundle
	storm      policy.Meter
	entering   bucket
	leaving    bucket
	lost       atomic.Bool // its carrier
	heard      heard
}

// NewPort returns a port that is not yet part of a segment.
func NewPort(name string, kind Kind, id policy.Identity, out Egress) *Port {
	p := &Port{Name: name, Kind: kind, Identity: id, out: out}
	p.SetAttributes(DefaultAttributes())
	return p
}

// Egress returns the port's way out.
func (p *Port) Egress() Egress { return p.out }

// Place is where an address was seen: behind which port, and whose it is there.
type Place struct {
	Port *Port
	Who  policy.Identity
}

type portCounters struct {
	rxFrames, rxOctets, txFrames, txOctets, dropped, answered, rxRate, txRate atomic.Uint64
}

// PortStats counts frames from the port's point of view: rx entered the switch through it, tx left through it.
type PortStats struct {
	RxFrames  uint64 `json:"rx_frames"`
	RxOctets  uint64 `json:"rx_octets"`
	TxFrames  uint64 `json:"tx_frames"`
	TxOctets  uint64 `json:"tx_octets"`
	RxDropped uint64 `json:"rx_dropped"`   // of those that entered
	Answered  uint64 `json:"rx_answered"`  // of those that entered: asked for an address, and were answered here
	RxRate    uint64 `json:"rx_over_rate"` // of those dropped: more than the port's rate
	TxRate    uint64 `json:"tx_over_rate"` // would have left, and were dropped for the same reason
}

// Stats returns the port's counters.
func (p *Port) Stats() PortStats {
	c := &p.counters
	return PortStats{
		RxFrames: c.rxFrames.Load(), RxOctets: c.rxOctets.Load(),
		TxFrames: c.txFrames.Load(), TxOctets: c.txOctets.Load(), RxDropped: c.dropped.Load(), Answered: c.answered.Load(),
		RxRate: c.rxRate.Load(), TxRate: c.txRate.Load(),
	}
}

func (p *Port) send(frame []byte, undone ether.Offload, tag Tag, lane Lane) {
	p.counters.txFrames.Add(1)
	p.counters.txOctets.Add(uint64(len(frame)))
	p.out.Send(frame, undone, tag, lane)
}
