package node

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/etherloom/etherloom/bridge"
	"github.com/etherloom/etherloom/ether"
	vswitch "github.com/etherloom/etherloom/switch"
)

// This file copies the frames of ports to where somebody looks at them, as a switch's SPAN does. It shows root on this machine what this
// node carries in clear anyway. Copies go to a device of this machine, and never back into a segment (bridge.Sink).

// mirror is one that there is. Specs and states are guarded by Daemon.mu; the counters are the frame path's.
type mirror struct {
	spec   MirrorSpec
	key    string // of the port, as portKey makes it
	sink   *sink
	here   bool // the port
	copied atomic.Uint64
	lost   atomic.Uint64
}

// sink is a device to which copies go: one for all mirrors that name it.
type sink struct {
	name    string
	made    bool
	dev     *bridge.Sink             // nil: it could not be opened
	err     error                    // why no copies go to it
	writers [maxLanes]*bridge.Writer // each belongs to the goroutine of its lane
}

func (s *sink) writer(n vswitch.Lane) *bridge.Writer {
	if s.writers[n] == nil {
		s.writers[n] = s.dev.NewWriter()
	}
	return s.writers[n]
}

func (m *mirror) count(err error) {
	if err != nil {
		m.lost.Add(1)
		return
	}
	m.copied.Add(1)
}

// copies is where copies of a port's frames go: nowhere, almost always.
type copies struct{ to atomic.Pointer[copied] }

type copied struct{ in, out []*mirror }

// enter copies a frame as it has come in by the port.
func (c *copies) enter(frame []byte, undone ether.Offload, n vswitch.Lane) {
	if to := c.to.Load(); to != nil {
		for _, m := range to.in {
			m.count(m.sink.writer(n).Write(frame, undone))
		}
	}
}

// leave copies a frame as it goes out by the port.
func (c *copies) leave(frame []byte, undone ether.Offload, n vswitch.Lane) {
	if to := c.to.Load(); to != nil {
		for _, m := range to.out {
			m.count(m.sink.writer(n).Write(frame, undone))
		}
	}
}

// leaveTagged copies a frame as it goes out with a tag.
func (c *copies) leaveTagged(frame []byte, tag ether.Tag, undone ether.Offload, n vswitch.Lane) {
	if to := c.to.Load(); to != nil {
		for _, m := range to.out {
			m.count(m.sink.writer(n).WriteTagged(frame, tag, undone))
		}
	}
}

// copiesOf is where a port's copies are told to go.
func copiesOf(p *vswitch.Port) *copies {
	switch out := p.Egress().(type) {
	case *segment:
		return &out.copies
	case *link:
		return &out.copies
	case *attachment:
		return &out.copies
	}
	return nil
}

// applyMirrorsLocked has every port copy to the mirrors that there are for it: ports come and go.
func (d *Daemon) applyMirrorsLocked() {
	for _, m := range d.mirrors {
		m.here = false
	}
	for _, s := range d.segments {
		for _, p := range s.sw.Ports() {
			if c := copiesOf(p); c != nil {
				c.to.Store(d.copiedLocked(portKey(s, p)))
			}
		}
	}
	for _, t := range d.trunks {
		copied := false
		for _, a := range t.list {
			copied = copied || a.copies.to.Load() != nil
		}
		t.copied.Store(copied)
	}
}

// copiedLocked is where the copies of one port go; nil if there is no mirror for it.
func (d *Daemon) copiedLocked(key string) *copied {
	var to *copied
	for _, m := range d.mirrors {
		if m.key != key {
			continue
		}
		m.here = true
		if m.sink.dev == nil {
			continue
		}
		if to == nil {
			to = &copied{}
		}
		if m.spec.Direction != "out" {
			to.in = append(to.in, m)
		}
		if m.spec.Direction != "in" {
			to.out = append(to.out, m)
		}
	}
	return to
}

// openSinkLocked makes a device for copies, or takes a NIC.
func (d *Daemon) openSinkLocked(s *sink) error {
	for to := range d.trunks {
		if to.nic == s.name || to.bridge == s.name {
			s.err = fmt.Errorf("%s leads to VLANs of this gateway, onto which copies would get: give another device", to)
			return s.err
		}
	}
	s.dev, s.err = bridge.NewSink(bridge.SinkConfig{Name: s.name, Make: s.made, MTU: mirrorMTU})
	return s.err
}

// mirrorMTU is that of a device for copies: no segment's is greater, and there is a tag before some.
const mirrorMTU = 9216 + 8

func (s *sink) close() {
	if s.dev != nil {
		s.dev.Close()
	}
}

// openMirrors opens the devices of the mirrors that were there before.
func (d *Daemon) openMirrors() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, s := range d.sinks {
		d.problemLocked("mirror "+name, d.openSinkLocked(s))
	}
}

// followMirrorsLocked looks what has become of the devices.
func (d *Daemon) followMirrorsLocked() {
	opened := false
	for name, s := range d.sinks {
		if s.dev != nil {
			_, s.err = s.dev.Follow()
		} else if d.openSinkLocked(s) == nil {
			opened = true
		}
		d.problemLocked("mirror "+name, s.err)
	}
	if opened {
		d.applyMirrorsLocked()
	}
}

// closeSinksLocked closes those to which no mirror goes.
func (d *Daemon) closeSinksLocked() {
	for name, s := range d.sinks {
		if !slices.ContainsFunc(d.mirrors, func(m *mirror) bool { return m.sink == s }) {
			s.close()
			delete(d.sinks, name)
			d.problemLocked("mirror "+name, nil)
		}
	}
}
