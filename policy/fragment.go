package policy

import (
	"slices"
	"sync"
	"time"

	"github.com/etherloom/etherloom/ether"
)

const (
	maxDatagrams = 64          // of one identity, in parts, at a time
	maxGaps      = 8           // in one datagram
	assembly     = time.Minute // how long its parts may take: as long as a host may wait (RFC 8200 section 4.5)
)

// datagrams holds, for each identity, what has come of the datagrams that it sends in fragments.
type datagrams struct {
	mu sync.Mutex
	of map[Identity]*[maxDatagrams]datagram
}

// datagram is one datagram of which some fragments have come.
type datagram struct {
	key   datagramKey
	since time.Time // zero: the place is free
	class Class     // of its first fragment; Unclear before that has come
	bad   bool      // overlaps: nothing more of it passes
	lacks bool      // somebody has not got a part that has come
	end   int       // its length, in bytes; 0 before the last fragment has come
	parts []part    // that have come, merged and sorted
}

type datagramKey struct {
	src, dst [16]byte
	id       uint32
	vlans    ether.VLANs    // inside a transparent segment: what belongs together is on the same
	protocol ether.Protocol // 0 for IPv6
}

// keyOf is what a host puts a fragment together by. With IPv6 the protocol is no part of it: what the first fragment names
// counts, whatever the others name (RFC 8200 section 4.5).
func keyOf(f *ether.Fragment, vlans ether.VLANs) datagramKey {
	k := datagramKey{f.Src, f.Dst, f.ID, vlans, f.Protocol}
	if !addrOf(f.Src).Is4() {
		k.protocol = 0
	}
	return k
}

type part struct{ from, to int }

// maxPacket is the greatest length of an IP packet, in bytes.
const maxPacket = 1<<16 - 1

// sound holds a fragment against what any honest host sends (RFC 791, RFC 8200 section 4.5): none but the last is cut off a
// multiple of eight bytes, none reaches beyond the longest packet. The first holds the whole transport header, so that no
// later one can be needed to tell what it is, and none begins inside that header (RFC 1858, RFC 3128, RFC 7112).
func sound(f *ether.Fragment, c *Class) bool {
	n := len(f.Payload)
	switch {
	case n == 0, f.More && n%8 != 0, f.Offset+n > maxPacket:
		return false
	case f.Offset == 0:
		return c.Kind != Unclear
	}
	return f.Offset >= transportHeader(f.Protocol)
}

// settle judges one fragment, and returns the class by which the frame is to be judged: that of its first fragment.
func (d *datagrams) settle(source Identity, key datagramKey, f *ether.Fragment, own Class, now time.Time, dry bool) (Class, bool) {
	if !sound(f, &own) {
		return own, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	at := d.findLocked(source, key, now)
	if dry {
		return at.trial(f, own)
	}
	if at == nil {
		at = d.placeLocked(source)
		*at = datagram{key: key, since: now, class: Class{Kind: Unclear}, parts: at.parts[:0]}
	}
	return at.take(f, own)
}

// take judges a fragment and notes that it has come. A datagram of which everything has come is forgotten, as the host that puts it
// together forgets it: the next with the same identification is another. A host that has not got all of it waits for the rest, which
// the next would be for it: so nothing more passes.
func (d *datagram) take(f *ether.Fragment, own Class) (Class, bool) {
	if d.bad || !d.add(f) {
		d.bad = true
		return own, false
	}
	if f.Offset == 0 {
		d.class = own
	} else {
		own.follow(&d.class)
	}
	if d.end != 0 && d.parts[0] == (part{0, d.end}) && !d.lacks {
		d.since = time.Time{}
	}
	return own, true
}

// refuse notes that a fragment which settle let pass was refused for another reason, such as one that has come before its first.
// Others may still have it: what follows passes until the datagram is whole.
func (d *datagrams) refuse(source Identity, key datagramKey, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := d.findLocked(source, key, now)
	if at == nil { // it was the last part
		at = d.placeLocked(source)
		*at = datagram{key: key, since: now, bad: true, parts: at.parts[:0]}
	}
	at.lacks = true
}

// trial says what take would, and notes nothing. d is nil if nothing of the datagram has come.
func (d *datagram) trial(f *ether.Fragment, own Class) (Class, bool) {
	if d == nil {
		d = &datagram{class: Class{Kind: Unclear}}
	}
	t := *d
	t.parts = slices.Clone(d.parts)
	return t.take(f, own)
}

// follow makes c say of the packet what the first fragment says.
func (c *Class) follow(first *Class) {
	typ, dst := c.Type, c.Dst
	*c = *first
	c.Type, c.Dst = typ, dst
}

func (d *datagrams) findLocked(source Identity, key datagramKey, now time.Time) *datagram {
	all := d.of[source]
	if all == nil {
		return nil
	}
	for i := range all {
		if at := &all[i]; at.key == key && now.Sub(at.since) <= assembly {
			return at
		}
	}
	return nil
}

// placeLocked returns a free place, or that of the oldest datagram.
func (d *datagrams) placeLocked(source Identity) *datagram {
	all := d.of[source]
	if all == nil {
		all = new([maxDatagrams]datagram)
		d.of[source] = all
	}
	oldest := &all[0]
	for i := range all {
		if at := &all[i]; at.since.Before(oldest.since) {
			oldest = at
		}
	}
	return oldest
}

// add notes that a fragment has come. It reports false for one that overlaps another or contradicts the datagram's end: hosts
// differ in which of two they believe, and an honest one sends none (RFC 5722 section 4).
func (d *datagram) add(f *ether.Fragment) bool {
	p := part{f.Offset, f.Offset + len(f.Payload)}
	last := 0
	if len(d.parts) > 0 {
		last = d.parts[len(d.parts)-1].to
	}
	if d.end != 0 && p.to > d.end || !f.More && last > p.to {
		return false
	}
	if !f.More {
		d.end = p.to
	}
	return d.insert(p)
}

// insert merges a part into those that have come; false if it overlaps one of them, or leaves too many gaps.
func (d *datagram) insert(p part) bool {
	i, _ := slices.BinarySearchFunc(d.parts, p.from, func(q part, from int) int { return q.from - from })
	if i > 0 && d.parts[i-1].to > p.from || i < len(d.parts) && d.parts[i].from < p.to {
		return false
	}
	before, behind := i > 0 && d.parts[i-1].to == p.from, i < len(d.parts) && d.parts[i].from == p.to
	switch {
	case before && behind:
		d.parts[i-1].to = d.parts[i].to
		d.parts = slices.Delete(d.parts, i, i+1)
	case before:
		d.parts[i-1].to = p.to
	case behind:
		d.parts[i].from = p.from
	case len(d.parts) == maxGaps:
		return false
	default:
		d.parts = slices.Insert(d.parts, i, p)
	}
	return true
}

func (d *datagrams) age(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, all := range d.of {
		live := slices.ContainsFunc(all[:], func(at datagram) bool { return now.Sub(at.since) <= assembly })
		if !live {
			delete(d.of, id)
		}
	}
}

func (d *datagrams) retain(ids []Identity) {
	d.mu.Lock()
	defer d.mu.Unlock()
	keep := setOf(ids)
	for id := range d.of {
		if _, ok := keep[id]; !ok {
			delete(d.of, id)
		}
	}
}
