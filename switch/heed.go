package vswitch

import (
	"bytes"
	"sync"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
)

// This file heeds what a site's switches say to their neighbours. Such frames go no further (IEEE 802.1Q section 8.6.3), but a
// topology change on the VLAN moves machines, a BPDU on a port where there should be no bridge is a fault, and a neighbour's name
// tells people where a NIC is plugged in.

// Addresses and headers of the protocols that are heeded, as constants.
const (
	bridgeGroup   = "\x01\x80\xc2\x00\x00\x00"                 // IEEE 802.1Q table 8-1
	providerGroup = "\x01\x80\xc2\x00\x00\x08"                 // the same: of bridges between S-VLANs
	pvstGroup     = "\x01\x00\x0c\xcc\xcc\xcd"                 // Cisco's spanning tree for each VLAN
	stpHeader     = "\x42\x42\x03\x00\x00"                     // LLC, protocol 0 (IEEE 802.1D section 9.3.1)
	pvstHeader    = "\xaa\xaa\x03\x00\x00\x0c\x01\x0b\x00\x00" // SNAP, Cisco, 0x010b; protocol 0
)

const typeLLDP ether.Type = 0x88cc

const (
	// heedEvery is how often a port's addresses are flushed, and what its neighbour says is kept, at most. A change of topology is told
	// again and again for longer than this (tcWhile of IEEE 802.1D section 17.17.8; a notification until it is acknowledged), so none is
	// missed; and who floods with such frames makes neither work nor others' frames go everywhere all the time.
	heedEvery = time.Second
	// maxLLDP is how many bytes of it are kept: one Ethernet frame's (IEEE 802.1AB section 8.2).
	maxLLDP = 1500
)

// Neighbour is what a device on the wire has last said about itself.
type Neighbour struct {
	LLDP []byte // the LLDPDU (IEEE 802.1AB section 8)
	At   time.Time
}

// heard is what was heard on a port.
type heard struct {
	mu        sync.Mutex
	neighbour Neighbour
	flushed   time.Time
	bpdus     uint64
	changes   uint64 // of the topology
}

// Heard tells what neighbours have said on the port: the last LLDP, and how many BPDUs and topology changes.
func (p *Port) Heard() (n Neighbour, bpdus, changes uint64) {
	p.heard.mu.Lock()
	defer p.heard.mu.Unlock()
	return p.heard.neighbour, p.heard.bpdus, p.heard.changes
}

// heed looks at a frame that a neighbour says to this bridge alone. What a peer sends over a link says nothing of a wire here.
func (s *Segment) heed(c *carriage) {
	if c.in.Kind == Link || !c.Frame.Dst.IsReserved() {
		return
	}
	h := &c.in.heard
	if bpdu, is := bpduOf(&c.Frame); is {
		if h.bridge(c, changed(bpdu)) {
			s.Forget(c.in, c.Now)
		}
		return
	}
	if c.Frame.Type == typeLLDP && len(c.Frame.Payload) <= maxLLDP {
		h.mu.Lock()
		defer h.mu.Unlock()
		if due(h.neighbour.At, c.Now) {
			h.neighbour = Neighbour{bytes.Clone(c.Frame.Payload), c.Now}
		}
	}
}

// bridge counts what a bridge says, and reports whether what was learned on the port is to be forgotten. Every one is counted and held
// against guard, however many there are: a limit here would let who sends many hide one.
func (h *heard) bridge(c *carriage, change bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bpdus++
	if change {
		h.changes++
	}
	if c.in.attributes.Load().Guard {
		c.in.Disable("a BPDU came from "+c.Frame.Src.String()+": there is a bridge where guard=on says that there is none", c.Now)
		return true
	}
	if !change || !due(h.flushed, c.Now) {
		return false
	}
	h.flushed = c.Now
	return true
}

// due reports whether something may be done that was done last then. Batches may be a little out of order.
func due(last, now time.Time) bool {
	return now.Sub(last).Abs() >= heedEvery
}

// Forget forgets what was learned on a port: machines have moved, or cannot be reached there. What an administrator has pinned stays,
// and so does what is frozen: who feigns changes of topology must not free an address that he claims.
func (s *Segment) Forget(p *Port, now time.Time) int {
	return s.fdb.Flush(func(e fdb.Entry[Place]) bool { return e.Port.Port == p && e.Kind == fdb.Dynamic && !e.Frozen }, now)
}

// bpduOf is what a bridge says, from the version on; false if the frame is of none.
//
//	+---------+------+-------+- - -
//	| version | type | flags | ...     flags: 0x01 topology change
//	+---------+------+-------+- - -
func bpduOf(f *ether.Frame) ([]byte, bool) {
	header := stpHeader
	switch string(f.Dst[:]) {
	case bridgeGroup, providerGroup:
	case pvstGroup:
		header = pvstHeader
	default:
		return nil, false
	}
	p := f.Payload
	// With 802.1Q tag or without, what is not LLC is none.
	if f.Type != 0 || len(p) < len(header)+2 || string(p[:len(header)]) != header {
		return nil, false
	}
	return p[len(header):], true
}

// changed reports whether a BPDU tells of a change of the topology (IEEE 802.1D sections 9.3.2 and 9.3.3).
func changed(bpdu []byte) bool {
	const configuration, notification, rapid, topologyChange = 0x00, 0x80, 0x02, 0x01
	switch bpdu[1] {
	case notification:
		return true
	case configuration, rapid:
		return len(bpdu) > 2 && bpdu[2]&topologyChange != 0
	default:
		return false
	}
}
