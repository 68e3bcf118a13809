package node

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// This file asks about a flow that is there: what becomes of its next packet, by what this node remembers of it.

// tuple is a flow in the direction that is asked about.
type tuple struct {
	protocol ether.Protocol
	src, dst netip.AddrPort // of ICMP, the port is the identifier
}

// flow reads Flow into what the request asks otherwise; nil if it asks about no flow.
func (r *ExplainRequest) flow() (*tuple, error) {
	if r.Flow == "" {
		return nil, nil //nolint:nilnil // no flow is no error
	}
	if r.From != "" || r.To != "" || r.Kind != "" || len(r.Frame) > 0 {
		return nil, fmt.Errorf("--flow says itself from where to where it goes and what it is, found %q beside others: leave the others out", r.Flow)
	}
	bad := fmt.Errorf("expected a flow such as \"tcp 192.0.2.1:4242 192.0.2.2:22\", as `etherloom flows` shows them, found %q", r.Flow)
	words := strings.Fields(r.Flow)
	if len(words) != 3 {
		return nil, bad
	}
	src, err := netip.ParseAddrPort(words[1])
	dst, err2 := netip.ParseAddrPort(words[2])
	protocol := protocolNamed(words[0])
	if err != nil || err2 != nil || protocol == 0 || src.Addr().Is4() != dst.Addr().Is4() {
		return nil, bad
	}
	r.From, r.To, r.Kind = src.Addr().String(), dst.Addr().String(), words[0]
	if protocol != ether.ProtoICMP {
		if r.Port = dst.Port(); r.Port == 0 {
			return nil, bad
		}
	}
	return &tuple{protocol, src, dst}, nil
}

// protocolNamed is the protocol of a kind of frame, or of a flow; 0 if it is none.
func protocolNamed(kind string) ether.Protocol {
	return map[string]ether.Protocol{"icmp": ether.ProtoICMP, "tcp": ether.ProtoTCP, "udp": ether.ProtoUDP}[kind]
}

// echo is the identifier of an ICMP echo, and whether it answers: it asks, unless a flow is asked about in the direction of its answers.
func (q *question) echo() (id uint16, reply bool) {
	if q.tuple == nil {
		return 1, false
	}
	f, opener := q.remembered()
	return q.tuple.src.Port(), f != nil && !opener
}

// partiesOfFlow takes the two ends from the flow, if this node remembers it: it may have no other way to know who has an address.
func (q *question) partiesOfFlow() bool {
	f, opener := q.recorded(func(*policy.Record, bool) bool { return true })
	if f == nil {
		return false
	}
	from, to := f.Opener, f.Other
	if !opener {
		from, to = to, from
	}
	q.from, q.to = q.endOfFlow(from, q.tuple.src.Addr()), q.endOfFlow(to, q.tuple.dst.Addr())
	return true
}

func (q *question) endOfFlow(id policy.Identity, addr netip.Addr) party {
	p := q.locate(q.member(id))
	if heard, ok := q.heard(addr); ok && heard.id == id {
		p = heard
	}
	p.addr = addr
	return p
}

// remembered is the flow as this node remembers it, and whether it is asked about in the direction in which it began; nil if
// nothing is remembered of it.
func (q *question) remembered() (f *policy.Record, opener bool) {
	return q.recorded(func(r *policy.Record, opener bool) bool {
		if !opener {
			return r.Opener == q.to.id && r.Other == q.from.id
		}
		return r.Opener == q.from.id && r.Other == q.to.id
	})
}

// recorded is the first flow with the addresses and ports that are asked about which is between the right ones.
func (q *question) recorded(right func(r *policy.Record, opener bool) bool) (f *policy.Record, opener bool) {
	if q.on.here == nil {
		return nil, false
	}
	t := policy.Tuple{
		Src: q.tuple.src.Addr().As16(), Dst: q.tuple.dst.Addr().As16(), SrcPort: q.tuple.src.Port(), DstPort: q.tuple.dst.Port(), Protocol: q.tuple.protocol,
	}
	for _, r := range q.on.here.sw.Flows().Live() {
		if r.VLANs != q.vlans {
			continue
		}
		if r.Tuple == t && right(&r, true) {
			return &r, true
		}
		if r.Tuple == t.Reverse() && right(&r, false) {
			return &r, false
		}
	}
	return nil, false
}

// own refuses a question about a flow of others: of these, this node remembers nothing. It remembers those of machines for which it
// is a gateway.
func (q *question) own() error {
	if self := q.d.self(); q.tuple != nil && !q.on.view.MaySpeak(self, q.from.id) && !q.on.view.MaySpeak(self, q.to.id) {
		return fmt.Errorf("this node is at neither end of the flow, and remembers only its own: ask on %s or on %s", q.member(q.carrier(q.from)).name, q.member(q.carrier(q.to)).name)
	}
	return nil
}

// goesOn judges the next packet of a flow at this node.
func (q *question) goesOn() error {
	self := q.d.self()
	f, _ := q.remembered()
	if f == nil {
		q.note("this node remembers no such flow, so its next packet is judged as one that begins: `etherloom flows` shows those that it remembers")
	} else {
		q.note("the flow stands by grant %d since %s; its last packet came at %s", f.Grant, f.Began.Format(time.RFC3339), f.Last.Format(time.RFC3339))
	}
	grant := policy.GrantID(0)
	sends := q.carrier(q.from) == self
	if !sends {
		if f != nil {
			grant = f.Grant
		} else {
			grant = q.honest(q.to.id)
		}
	}
	sw, in, err := q.switchOf(self)
	if err != nil {
		return err
	}
	e := sw.Explain(in, q.frame, vswitch.Tag{Source: q.from.id, Grant: grant}, q.now)
	q.judged(self, in, sends, e, grant)
	if sends {
		for _, r := range e.Receivers {
			if r.Who == q.to.id {
				grant = r.Tag.Grant
			}
		}
		if grant == 0 && f != nil {
			grant = f.Grant // it stays at this gateway, so it names none
		}
	}
	q.decide(q.out.Steps[0], e.Drop, grant, q.to)
	return nil
}
