package policy

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// This file is about machines behind several gateways that carry their VLAN at once (decision 0012). A flow's frames may pass by any of
// them, so each must know which flows have begun. Its first frames go by one gateway alone, which FlowHash chooses, alike for both
// directions and at every node; that one tells the others what it has let begin. From then on each judges the flow by itself.
//
// What another gateway tells is no permission: it is remembered only if a grant that is known here lets that flow begin, and cut as
// one's own is. And the other end of the flow judges by what it remembers itself.

// Fellow is a flow that one gateway of a VLAN tells the others of.
type Fellow struct {
	Opener, Other    Identity
	VLANs            ether.VLANs // on which it is, inside a transparent segment
	Tuple            Tuple       // as it began
	Grant            GrantID
	Dst              ether.MAC // of the other
	Answered, Ending bool
}

func fellowOf(opener Identity, k *flowKey, e *flow) Fellow {
	return Fellow{opener, k.other, k.vlans, k.tuple, e.grant, e.dst, e.answered, e.ending}
}

// fellows are the flows of which the other gateways are yet to be told.
type fellows struct {
	mu   sync.Mutex
	list []Fellow
	lost uint64
	poke func()
}

// maxFellows is how many flows wait to be told of at most. One that is lost is told of again with all others (Fellows).
const maxFellows = 8192

func (s *fellows) note(x Fellow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == maxFellows {
		s.lost++
		return
	}
	if s.list = append(s.list, x); len(s.list) == 1 && s.poke != nil {
		s.poke()
	}
}

// SetPoke has poke called when there is something for News to return; it must neither block nor call anything here. It must be called
// before anything else.
func (f *Flows) SetPoke(poke func()) { f.fellows.poke = poke }

// News returns the flows that have begun, or been answered for the first time, since it was called last. lost counts those for which
// there was no room, from the beginning on.
func (f *Flows) News() (list []Fellow, lost uint64) {
	s := &f.fellows
	s.mu.Lock()
	defer s.mu.Unlock()
	list, s.list = s.list, nil
	return list, s.lost
}

// Fellows lists the flows to or from some, of which something was seen since a time.
func (f *Flows) Fellows(of func(Identity) bool, since time.Time) (out []Fellow) {
	f.each(func(opener Identity, k *flowKey, e *flow) {
		if e.seen.After(since) && (of(opener) || of(k.other)) {
			out = append(out, fellowOf(opener, k, e))
		}
	})
	return out
}

// Adopt remembers a flow that another gateway tells of, and reports whether it has: if a grant lets it begin. It forgets none of
// one's own for it.
func (f *Flows) Adopt(v *View, x *Fellow, now time.Time) bool {
	g := v.grants[x.Grant]
	c := Class{Kind: Packet, Type: typeOf(&x.Tuple), Dst: x.Dst, Tuple: x.Tuple}
	if v.void(now) || !g.alive(now) || g.observe || !v.allows(g, x.Opener, x.Other, &c, now) {
		return false
	}
	k := flowKey{x.Other, x.VLANs, x.Tuple}
	s := &f.setOf(x.Opener)[k.shard()]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.m[k]
	switch {
	case e != nil && !e.dead(k.tuple.Protocol, now):
		if e.grant != g.id {
			return false
		}
	case e == nil && len(s.m) >= maxShardFlows:
		return false
	default:
		if s.m == nil {
			s.m = map[flowKey]*flow{}
		}
		if e != nil {
			f.endLocked(s, x.Opener, k, e, Idle)
		}
		e = &flow{grant: g.id, generation: v.generation, dst: x.Dst, tally: tally{began: now, told: now}}
		s.m[k] = e
	}
	e.seen, e.answered, e.ending = now, e.answered || x.Answered, e.ending || x.Ending
	return true
}

// ByItself reports whether a frame can be judged towards a receiver without knowing more than is known here: everything may pass
// between the two, it is of no flow, or its flow is remembered.
func (v *View) ByItself(p *Passage, receiver Identity) bool {
	if v.void(p.Now) || v.free(v.enforced.open[p.Source], p, receiver) {
		return true
	}
	if c := p.Class(); c.Kind != Packet && c.Kind != ICMPError {
		return true
	}
	dry := p.Dry
	p.Dry = true
	known := v.flowOf(p, receiver, 0) != 0
	p.Dry = dry
	return known
}

// FlowHash is the same number for all frames of a flow, in both directions, at every node: by addresses, protocol and ports; by MAC
// addresses if it is none of IP's.
func (p *Passage) FlowHash() uint64 {
	switch c := p.Class(); c.Kind {
	case Packet:
		return c.Tuple.hash()
	case ICMPError:
		return c.About.hash()
	default:
		return Mix(number(p.Frame.Src[:])) + Mix(number(p.Frame.Dst[:]))
	}
}

func (t *Tuple) hash() uint64 {
	return Mix(hashEnd(&t.Src, t.SrcPort)+hashEnd(&t.Dst, t.DstPort)) + uint64(t.Protocol)
}

func hashEnd(a *[16]byte, port uint16) uint64 {
	return Mix(Mix(binary.BigEndian.Uint64(a[:8])+uint64(port)) + binary.BigEndian.Uint64(a[8:]))
}

func number(mac []byte) uint64 {
	return uint64(binary.BigEndian.Uint16(mac))<<32 | uint64(binary.BigEndian.Uint32(mac[2:]))
}

// Mix spreads a number over 64 bits: the finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
func Mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Fellows reports whether a node is heard that tells another one, self, of a flow: both are gateways of its opener, or both are of its
// other end. Who speaks for the opener sees its flows begin. So it hears of them only from those who do, too: otherwise a gateway of the
// other end could have its machine answer what nobody has asked.
func (v *View) Fellows(node, self Identity, x *Fellow) bool {
	if v.areGateways(x.Opener, node, self) {
		return true
	}
	return v.areGateways(x.Other, node, self) && !v.MaySpeak(self, x.Opener)
}

func (v *View) areGateways(machine, a, b Identity) bool {
	gateways := v.Gateways(machine)
	return slices.Contains(gateways, a) && slices.Contains(gateways, b)
}
