package policy

import (
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// vlans reads VLANs inside a transparent segment.
func vlans(t *testing.T, text string) ether.VLANs {
	t.Helper()
	v, err := ether.ParseVLANs(text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// On another VLAN inside a transparent segment the same addresses and ports are other machines': what answers a flow is on its own.
func TestFlowStaysOnItsVLAN(t *testing.T) {
	about := func() ether.Frame {
		return icmpError(3, 3, addressOf(2), addressOf(1), packetV4(addressOf(1), addressOf(2), ether.ProtoUDP, 1, 0, false, udp(9, 53, 0)))
	}
	for _, of := range []string{"", "10", "s20.10"} {
		for _, on := range []string{"", "10", "s10", "20", "20.10", "s20.10", "10.20"} {
			for name, answer := range map[string]ether.Frame{"an answer": answering(ether.ProtoUDP), "an error": about()} {
				n := newNetwork(t, toNode(t, 1, "udp:53"))
				f := opening(ether.ProtoUDP)
				f.Inner = vlans(t, of)
				if got := n.send(1, 2, f); got != Pass {
					t.Fatalf("on %q: %q", of, got)
				}
				want := NotAllowed
				if on == of {
					want = Pass
				}
				answer.Inner = vlans(t, on)
				if got := n.send(2, 1, answer); got != want {
					t.Errorf("on %q, %s to a flow on %q: %q, want %q", on, name, of, got, want)
				}
				if live := n.flows[1].Live(); len(live) != 1 || live[0].VLANs != f.Inner {
					t.Errorf("a flow on %q is remembered as %+v", of, live)
				}
				n.flows[1].Age(nil, n.now.Add(time.Hour))
				if ended, _ := n.flows[1].Collect(n.now, 0); len(ended) != 1 || ended[0].VLANs != f.Inner {
					t.Errorf("a flow on %q has the record %+v", of, ended)
				}
			}
		}
	}
}

// A later fragment is what its first one is on its own VLAN, and what is on another one neither says what it is nor overlaps it.
func TestFragmentsStayOnTheirVLAN(t *testing.T) {
	for _, six := range []bool{false, true} {
		n := newNetwork(t, toNode(t, 1, "tcp:80"))
		part := func(on string, offset int, more bool) Verdict {
			body := append(tcp(9, 80, flagSYN, 0), 0, 0, 0, 0)
			f := fragmentOf(six, ether.ProtoTCP, 5, offset, more, body)
			f.Inner = vlans(t, on)
			return n.send(1, 2, f)
		}
		for _, c := range []struct {
			name, on string
			offset   int
			more     bool
			want     Verdict
		}{
			{"first", "10", 0, true, Pass},
			{"later, on another", "20", 24, false, NotAllowed},
			{"first, on another", "s10", 0, true, Pass},
			{"first, on none", "", 0, true, Pass},
			{"first, deeper", "20.10", 0, true, Pass},
			{"later", "10", 24, true, Pass},
			{"later, on another with a first", "s10", 24, true, Pass},
			{"overlap", "10", 24, true, BadFragment},
			{"later, deeper", "20.10", 24, false, Pass},
		} {
			if got := part(c.on, c.offset, c.more); got != c.want {
				t.Errorf("IPv6 %v, %s on %q: %q, want %q", six, c.name, c.on, got, c.want)
			}
		}
	}
}
