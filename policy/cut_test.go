package policy

import (
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// What has no answer is not remembered.
func TestOnlyPacketsAreFlows(t *testing.T) {
	group := frameOf(ether.TypeIPv4, 1, 2, packetV4(addressOf(1), ether.Mapped([4]byte{239, 0, 0, 1}), ether.ProtoUDP, 1, 0, false, udp(9, 53, 0)))
	group.Dst = ether.MAC{1, 0, 0x5e, 0, 0, 1}
	n := newNetwork(t, toNode(t, 1, "any"), Grant{ID: 2, Segment: true, Sources: []Identity{1}}, Grant{ID: 3, Segment: true, Sources: []Identity{2}, Allow: terms(t, "tcp")})
	for name, f := range map[string]ether.Frame{
		"no IP": frameOf(0x88b5, 1, 2, nil), "ARP": frameOf(ether.TypeARP, 1, 2, nil), "what cannot be told": ip(1, 2, ether.ProtoTCP, nil),
		"an error": icmpError(3, 3, addressOf(1), addressOf(2), nil), "what goes to a group": group,
	} {
		if got := n.send(1, 2, f); got != Pass || n.flows[1].Len()+n.flows[2].Len() != 0 {
			t.Errorf("%s: %q, and is a flow", name, got)
		}
	}
}

// Who has no station is answered nothing, and reached by what is for all.
func TestNobodyHasAStation(t *testing.T) {
	all := frameOf(ether.TypeIPv4, 1, 2, packetV4(addressOf(1), addressOf(2), ether.ProtoUDP, 1, 0, false, udp(9, 53, 0)))
	all.Dst = ether.Broadcast
	for name, c := range map[string]struct {
		f    ether.Frame
		want Verdict
	}{
		"TCP":      {ip(1, 2, ether.ProtoTCP, tcp(9, 80, flagACK, 0)), NotAllowed},
		"to all":   {all, Pass},
		"an error": {icmpError(3, 3, addressOf(1), addressOf(2), nil), NotAllowed},
	} {
		p := Passage{Frame: c.f, Source: 1, Flows: NewFlows(), Now: t0}
		v := Compile(Rules{Self: 1, Grants: []Grant{{ID: 1, Segment: true, Sources: []Identity{1, 2}, Allow: terms(t, "broadcast", "tcp")}, toNode(t, 2, "any")}})
		if _, got := v.Egress(&p, 2); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if got := v.Ingress(&p, 2, 1); got != c.want {
			t.Errorf("%s: Ingress: %q, want %q", name, got, c.want)
		}
	}
}

// A new policy cuts the flows that it does not let pass, both ways, whatever they are.
func TestReplacedPolicyCuts(t *testing.T) {
	both := toNode(t, 1, "tcp:80", "udp:53", "icmp")
	both.Targets, both.Sources, both.Both = []Identity{1}, []Identity{2}, true
	segment := Grant{ID: 1, Segment: true, Sources: []Identity{1}, Allow: terms(t, "tcp", "udp", "icmp")}
	member := Grant{ID: 5, Segment: true, Sources: []Identity{2}, Allow: terms(t, "tcp:1")}
	observe := toNode(t, 1, "tcp", "udp", "icmp")
	observe.Observe = true
	lone := both
	lone.Both = false
	for _, c := range []struct {
		name          string
		before, after []Grant
		want          bool
	}{
		{"the same", []Grant{toNode(t, 1, "tcp", "udp", "icmp")}, []Grant{toNode(t, 1, "tcp", "udp", "icmp")}, true},
		{"wider", []Grant{toNode(t, 1, "tcp", "udp", "icmp")}, []Grant{toNode(t, 1, "ip")}, true},
		{"removed", []Grant{toNode(t, 1, "tcp", "udp", "icmp")}, nil, false},
		{"narrowed", []Grant{toNode(t, 1, "tcp", "udp", "icmp")}, []Grant{toNode(t, 1, "tcp:81", "udp:54", "proto:47")}, false},
		{"only observed", []Grant{toNode(t, 1, "tcp", "udp", "icmp")}, []Grant{observe}, false},
		{"no longer both ways", []Grant{both}, []Grant{lone}, false},
		{"a member no more", []Grant{segment, member}, []Grant{segment}, false},
		{"still members", []Grant{segment, member}, []Grant{segment, member}, true},
		{"the opener no longer holds it", []Grant{segment, member}, []Grant{{ID: 1, Segment: true, Sources: []Identity{3}, Allow: segment.Allow}, {ID: 5, Segment: true, Sources: []Identity{1, 2}, Allow: member.Allow}}, false},
	} {
		for _, p := range []ether.Protocol{ether.ProtoTCP, ether.ProtoUDP, ether.ProtoICMP} {
			n := newNetwork(t, c.before...)
			goOn := opening(p)
			if p == ether.ProtoTCP {
				goOn = ip(1, 2, p, tcp(9, 80, flagACK, 0))
			}
			for _, f := range []ether.Frame{opening(p), goOn} {
				if got := n.send(1, 2, f); got != Pass {
					t.Fatalf("%s, protocol %d: %q", c.name, p, got)
				}
			}
			if got := n.send(2, 1, answering(p)); got != Pass {
				t.Fatalf("%s, protocol %d: answer: %q", c.name, p, got)
			}
			n.replace(2, c.after...)
			for range 2 {
				if got := n.send(2, 1, answering(p)); (got == Pass) != c.want {
					t.Errorf("%s, protocol %d: answer: %q", c.name, p, got)
				}
				if got := n.deliver(2, 1, answering(p), 1); (got == Pass) != c.want {
					t.Errorf("%s, protocol %d: answer of one who is not honest: %q", c.name, p, got)
				}
				if got := n.send(1, 2, goOn); (got == Pass) != c.want {
					t.Errorf("%s, protocol %d: onward: %q", c.name, p, got)
				}
				if got := n.deliver(1, 2, goOn, 1); (got == Pass) != c.want {
					t.Errorf("%s, protocol %d: onward of one who is not honest: %q", c.name, p, got)
				}
			}
		}
	}
}

// A grant or a membership that ends cuts a flow without a new policy.
func TestExpiryCuts(t *testing.T) {
	end := t0.Add(30 * time.Second)
	limited := terms(t, "tcp", "udp", "icmp")
	grant := toNode(t, 1, "tcp", "udp", "icmp")
	grant.Expires = end
	for name, grants := range map[string][]Grant{
		"the grant ends":                {grant},
		"the receiver's membership":     {{ID: 1, Segment: true, Sources: []Identity{1}, Allow: limited}, {ID: 2, Segment: true, Sources: []Identity{2}, Allow: limited[:1], Expires: end}},
		"the opener's grant to members": {{ID: 1, Segment: true, Sources: []Identity{1}, Allow: limited, Expires: end}, {ID: 2, Segment: true, Sources: []Identity{1, 2}, Allow: terms(t, "ethertype:0x88b5")}},
	} {
		for _, p := range []ether.Protocol{ether.ProtoTCP, ether.ProtoUDP, ether.ProtoICMP} {
			n := newNetwork(t, grants...)
			for _, at := range []time.Time{t0, end.Add(-1), end} {
				n.now = at
				want := at.Before(end)
				if got := n.send(1, 2, opening(p)); (got == Pass) != want {
					t.Errorf("%s, protocol %d, after %v: onward: %q", name, p, at.Sub(t0), got)
				}
				if got := n.send(2, 1, answering(p)); (got == Pass) != want {
					t.Errorf("%s, protocol %d, after %v: answer: %q", name, p, at.Sub(t0), got)
				}
				if got := n.deliver(2, 1, answering(p), 1); (got == Pass) != want {
					t.Errorf("%s, protocol %d, after %v: answer of one who is not honest: %q", name, p, at.Sub(t0), got)
				}
			}
		}
	}
}

// A flow goes on by another grant when its own is gone, and its answers with it.
func TestFlowGoesOnByAnotherGrant(t *testing.T) {
	n := newNetwork(t, toNode(t, 1, "udp"), toNode(t, 2, "udp:53"))
	n.send(1, 2, opening(ether.ProtoUDP))
	n.replace(2, toNode(t, 2, "udp:53"))
	if got := n.send(1, 2, opening(ether.ProtoUDP)); got != Pass {
		t.Errorf("onward: %q", got)
	}
	if got := n.deliver(2, 1, answering(ether.ProtoUDP), 2); got != Pass {
		t.Errorf("answer: %q", got)
	}
	// A connection is as established as it was.
	n = newNetwork(t, toNode(t, 1, "tcp"))
	ack := ip(1, 2, ether.ProtoTCP, tcp(9, 80, flagACK, 0))
	n.send(1, 2, ack)
	n.send(2, 1, answering(ether.ProtoTCP))
	n.replace(2, toNode(t, 2, "tcp:80"))
	n.send(1, 2, ack)
	n.now = n.now.Add(tcpEstablished)
	if got := n.send(2, 1, answering(ether.ProtoTCP)); got != Pass {
		t.Errorf("answer of an established connection: %q", got)
	}
}

// Who only asks changes nothing.
func TestDryRemembersNothing(t *testing.T) {
	n := newNetwork(t, toNode(t, 1, "udp"))
	ask := func(source Identity, f ether.Frame) Verdict {
		p := Passage{Source: source, Flows: n.flows[1], Now: n.now, Frame: f, Dry: true}
		_, v := n.views[1].Egress(&p, 3-source)
		return v
	}
	if got := ask(1, opening(ether.ProtoUDP)); got != Pass {
		t.Fatal(got)
	}
	p := Passage{Source: 1, Flows: n.flows[2], Now: n.now, Frame: opening(ether.ProtoUDP), Dry: true}
	if got := n.views[2].Ingress(&p, 2, 1); got != Pass {
		t.Fatal(got)
	}
	if n.flows[1].Len()+n.flows[2].Len() != 0 {
		t.Error("somebody asks about a flow, and it begins")
	}
	if got := ask(2, answering(ether.ProtoUDP)); got != NotAllowed {
		t.Errorf("answer to nothing: %q", got)
	}
	n.send(1, 2, opening(ether.ProtoUDP))
	n.now = n.now.Add(udpIdle)
	if got := ask(2, answering(ether.ProtoUDP)); got != Pass {
		t.Errorf("answer: %q", got)
	}
	n.now = n.now.Add(1)
	if got := ask(2, answering(ether.ProtoUDP)); got != NotAllowed {
		t.Errorf("asking keeps a flow alive: %q", got)
	}
}
