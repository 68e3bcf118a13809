package policy

import (
	"bytes"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// quick is how long a packet of 130 extension headers may be looked at. It is judged undetermined after eight.
const quick = 10 * time.Microsecond

// Nobody keeps a node busy with long chains of headers: to judge one takes no longer than to judge another frame.
func TestLongChainsAreQuick(t *testing.T) {
	if raced {
		t.Skip("the race detector makes everything slow")
	}
	options := bytes.Repeat([]byte{byte(ether.ProtoDestOpts), 0, 1, 4, 0, 0, 0, 0}, 130)
	fragment := []byte{byte(ether.ProtoTCP), 0, 0, 1, 0, 0, 0, 9}
	options[len(options)-8] = byte(ether.ProtoTCP)
	behind := append(append([]byte{byte(ether.ProtoDestOpts), 0, 0, 1, 0, 0, 0, 9}, options...), tcp(9, 80, flagSYN, 4)...)
	before := append(bytes.Clone(options), tcp(9, 80, flagSYN, 4)...)
	cut := append(append(bytes.Clone(options), fragment...), tcp(9, 80, flagSYN, 4)...)
	cut[129*8] = byte(ether.ProtoFragment)
	for _, c := range []struct {
		name string
		next ether.Protocol
		body []byte
	}{
		{"130 headers", ether.ProtoDestOpts, before},
		{"130 headers, and a fragment", ether.ProtoDestOpts, cut},
		{"a fragment, and 130 headers", ether.ProtoFragment, behind},
		{"130 fragment headers", ether.ProtoFragment, bytes.Repeat([]byte{byte(ether.ProtoFragment), 0, 0, 0, 0, 0, 0, 9}, 130)},
	} {
		n := newNetwork(t, toNode(t, 1, "tcp:80"))
		station := n.stations[1]
		f := frameOf(ether.TypeIPv6, 1, 2, packetV6(addressV6(1), addressV6(2), c.next, c.body))
		if _, got := station.Check(&f, false); got != Undetermined {
			t.Errorf("%s: %q, want %q", c.name, got, Undetermined)
		}
		const rounds = 1000
		best := time.Hour
		for range 20 { // the best of some: others use this machine, too
			start := time.Now()
			for range rounds {
				p := Passage{Frame: f, Source: 1, Flows: n.flows[1], Now: n.now}
				station.Check(&p.Frame, false)
				p.Settle()
				n.views[1].Egress(&p, 2)
			}
			best = min(best, time.Since(start)/rounds)
		}
		t.Logf("%s: %v", c.name, best)
		if best > quick {
			t.Errorf("%s: judged in %v, which is more than %v", c.name, best, quick)
		}
	}
}
