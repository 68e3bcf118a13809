package node

import (
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
	"github.com/etherloom/etherloom/transport"
)

// Format 4 of what crosses the door tells the other gateways of a VLAN which flows have begun. Behind format and segment, as in a tag,
// there are flows of 60 bytes:
//
//	 0                   1                   2                   3
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  identity that began it (32)                                  |
//	|  identity at the other end (32)                               |
//	|  grant (32)                                                   |
//	|  VLANs (32) on which it is, inside a transparent segment      |
//	|  source address (128), as it began; IPv4 is mapped            |
//	|  destination address (128)                                    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|       source port (16)        |     destination port (16)     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|   protocol    |     flags     |                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//	|  destination MAC (48)                                         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// Flag 1: it has been answered. Flag 2: TCP has begun to end it.
const (
	formatFlows = 4
	flowsHead   = 4
	flowLen     = 60
	mostFlows   = 19 // in one message, so that it fits a datagram on any path

	flagAnswered = 1
	flagEnding   = 2
)

func appendFellow(b []byte, x *policy.Fellow) []byte {
	for _, n := range [...]uint32{uint32(x.Opener), uint32(x.Other), uint32(x.Grant), uint32(x.VLANs)} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	b = append(append(b, x.Tuple.Src[:]...), x.Tuple.Dst[:]...)
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, x.Tuple.SrcPort), x.Tuple.DstPort)
	var flags byte
	if x.Answered {
		flags |= flagAnswered
	}
	if x.Ending {
		flags |= flagEnding
	}
	return append(append(b, byte(x.Tuple.Protocol), flags), x.Dst[:]...)
}

// parseFellows reads a message; false if it is cut.
func parseFellows(b []byte) (vni policy.VNI, list []policy.Fellow, ok bool) {
	if len(b) < flowsHead || b[0] != formatFlows || (len(b)-flowsHead)%flowLen != 0 || len(b) > flowsHead+mostFlows*flowLen {
		return 0, nil, false
	}
	vni = policy.VNI(binary.BigEndian.Uint32(b) & 0xffffff)
	for r := range slices.Chunk(b[flowsHead:], flowLen) {
		x := policy.Fellow{
			Opener: policy.Identity(binary.BigEndian.Uint32(r)), Other: policy.Identity(binary.BigEndian.Uint32(r[4:])),
			Grant: policy.GrantID(binary.BigEndian.Uint32(r[8:])), VLANs: ether.VLANs(binary.BigEndian.Uint32(r[12:])),
			Tuple: policy.Tuple{
				Src: [16]byte(r[16:]), Dst: [16]byte(r[32:]), SrcPort: binary.BigEndian.Uint16(r[48:]), DstPort: binary.BigEndian.Uint16(r[50:]),
				Protocol: ether.Protocol(r[52]),
			},
			Answered: r[53]&flagAnswered != 0, Ending: r[53]&flagEnding != 0, Dst: ether.MAC(r[54:]),
		}
		list = append(list, x)
	}
	return vni, list, true
}

// flowNews is what a segment has yet to tell other gateways of flows.
type flowNews struct {
	poke chan struct{}

	mu    sync.Mutex
	all   map[*vswitch.Port]bool      // who is to be told of all flows
	whole map[*vswitch.Port]time.Time // who was of late, and when

	// Of the goroutine that announces.
	told time.Time // when all of late were told of last
	lost uint64
}

const (
	// allEvery is how often flows are told of again that are still in use: so nobody forgets one of which it carries nothing.
	allEvery = 30 * time.Second
	// wholeEvery is how often a gateway is told of all flows at most, however often it says that it begins: less than joinAfter.
	wholeEvery = 500 * time.Millisecond
)

func newFlowNews() flowNews {
	return flowNews{poke: make(chan struct{}, 1), all: map[*vswitch.Port]bool{}, whole: map[*vswitch.Port]time.Time{}}
}

func (n *flowNews) wake() {
	select {
	case n.poke <- struct{}{}:
	default:
	}
}

// begin has a gateway that begins to share a VLAN told of all flows.
func (n *flowNews) begin(peer *vswitch.Port, _ policy.Identity) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all[peer] = true
	n.wake()
}

// begun returns who is to be told of all flows now. Who was just now stays for later.
func (n *flowNews) begun(now time.Time) map[*vswitch.Port]bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.whole, func(_ *vswitch.Port, at time.Time) bool { return now.Sub(at) >= wholeEvery })
	out := map[*vswitch.Port]bool{}
	for port := range n.all {
		if _, late := n.whole[port]; !late {
			out[port], n.whole[port] = true, now
			delete(n.all, port)
		}
	}
	return out
}

// tellFlows tells the other gateways of the VLANs that this one shares which flows there are.
func (s *segment) tellFlows(sender *transport.Sender, now time.Time) {
	if sender == nil {
		return // the next message makes one
	}
	news, lost := s.sw.Flows().News()
	all := s.news.begun(now)
	fellows := s.d.sentinel.fellows(s)
	if len(fellows) == 0 {
		return
	}
	again := now.Sub(s.news.told) >= allEvery || lost != s.news.lost
	since := s.news.told
	if again {
		s.news.told, s.news.lost = now, lost
	}
	view := s.sw.Policy()
	for attachment, ports := range fellows {
		here := func(id policy.Identity) bool { return view.IsBehind(id, attachment) }
		mine := slices.DeleteFunc(slices.Clone(news), func(x policy.Fellow) bool { return !here(x.Opener) && !here(x.Other) })
		if again {
			mine = s.sw.Flows().Fellows(here, since)
		}
		for _, port := range ports {
			list := mine
			if all[port] {
				list = s.sw.Flows().Fellows(here, time.Time{})
			}
			s.sendFlows(sender, port, list)
		}
	}
	sender.Flush()
}

func (s *segment) sendFlows(sender *transport.Sender, to *vswitch.Port, list []policy.Fellow) {
	head := binary.BigEndian.AppendUint32(nil, uint32(formatFlows)<<24|uint32(s.vni))
	for part := range slices.Chunk(list, mostFlows) {
		var body []byte
		for i := range part {
			body = appendFellow(body, &part[i])
		}
		sender.Send(to.Egress().(*link).peer, head, body) //nolint:forcetypeassert // the ports of links
	}
}

// flows takes what another gateway tells of flows: of machines for which both may speak, and as far as grants let them begin.
func (i *ingress) flows(from identity.ID, message []byte, now time.Time) {
	vni, list, ok := parseFellows(message)
	if !ok {
		i.d.malformed.Add(1)
		return
	}
	s := (*i.d.byVNI.Load())[vni]
	if s == nil {
		return
	}
	view := s.sw.Policy()
	for k := range list {
		if view.Fellows(policy.Identity(from), i.d.self(), &list[k]) {
			s.sw.Flows().Adopt(view, &list[k], now)
		}
	}
}
