package policy

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/etherloom/etherloom/ether"
)

// piece is one fragment as somebody sends it.
type piece struct {
	protocol ether.Protocol
	offset   int
	more     bool
	body     []byte
}

// cutUp cuts a datagram into pieces of a size.
func cutUp(p ether.Protocol, datagram []byte, size int) []piece {
	var out []piece
	for at := 0; at < len(datagram); at += size {
		end := min(at+size, len(datagram))
		out = append(out, piece{p, at, end < len(datagram), datagram[at:end]})
	}
	return out
}

// lenient puts fragments together as no host should: of two that overlap it believes the first or the last, and so it does of what
// their headers name. It forgets a datagram when it is whole.
type lenient struct {
	six, last bool
	data      []byte
	have      []bool
	end       int
	protocol  ether.Protocol
	named     bool
}

// take returns a datagram that has become whole.
func (h *lenient) take(p piece) (ether.Protocol, []byte) {
	if need := p.offset + len(p.body); need > len(h.data) {
		h.data, h.have = append(h.data, make([]byte, need-len(h.data))...), append(h.have, make([]bool, need-len(h.have))...)
	}
	for i, b := range p.body {
		if at := p.offset + i; h.last || !h.have[at] {
			h.data[at], h.have[at] = b, true
		}
	}
	if p.offset == 0 && (h.last || !h.named) || !h.six {
		h.protocol, h.named = p.protocol, true
	}
	if !p.more && (h.last || h.end == 0) {
		h.end = p.offset + len(p.body)
	}
	if h.end == 0 || h.end > len(h.have) || slices.Contains(h.have[:h.end], false) {
		return 0, nil
	}
	protocol, whole := h.protocol, h.data[:h.end]
	*h = lenient{six: h.six, last: h.last}
	return protocol, whole
}

// smuggled reports whether what passes of some fragments can be put together to a segment for port 445.
func smuggled(n *network, six bool, id uint16, pieces []piece) (port445 bool, passed int) {
	hosts := map[ether.Protocol][]*lenient{}
	for _, p := range pieces {
		if n.send(1, 2, fragmentOf(six, p.protocol, id, p.offset, p.more, p.body)) != Pass {
			continue
		}
		passed++
		key := p.protocol
		if six {
			key = 0
		}
		if hosts[key] == nil {
			hosts[key] = []*lenient{{six: six}, {six: six, last: true}}
		}
		for _, h := range hosts[key] {
			protocol, whole := h.take(p)
			port445 = port445 || protocol == ether.ProtoTCP && len(whole) >= 4 && whole[2] == 445>>8 && whole[3] == 445&0xff
		}
	}
	return port445, passed
}

// Fragment evasion: however a segment for a port that is not granted is cut, nothing passes of which it could be put together.
func TestFragmentsSmuggleNothing(t *testing.T) {
	secret, decoy, udpDecoy := tcp(1024, 445, flagSYN, 76), tcp(1024, 80, flagSYN, 76), udp(1024, 445, 88)
	tricks := map[string]func(secret []piece) []piece{
		"plain":   func(s []piece) []piece { return s },
		"reverse": func(s []piece) []piece { slices.Reverse(s); return s },
		"a decoy before": func(s []piece) []piece {
			return append([]piece{{ether.ProtoTCP, 0, true, decoy[:24]}}, s...)
		},
		"a decoy behind": func(s []piece) []piece { return append(s, piece{ether.ProtoTCP, 0, true, decoy[:24]}) },
		"a decoy behind the first": func(s []piece) []piece {
			return slices.Insert(s, 1, piece{ether.ProtoTCP, 0, true, decoy[:24]})
		},
		"a long decoy before": func(s []piece) []piece {
			return append([]piece{{ether.ProtoTCP, 0, true, decoy[:96]}}, s...)
		},
		"a decoy of another protocol before": func(s []piece) []piece {
			return append([]piece{{ether.ProtoUDP, 0, true, udpDecoy[:8]}}, s...)
		},
		"the secret under another protocol": func(s []piece) []piece {
			for i := range s[:len(s)-1] {
				s[i].protocol = ether.ProtoUDP
			}
			return append([]piece{{ether.ProtoTCP, 0, true, decoy[:24]}}, s...)
		},
		"a decoy cut off the multiple": func(s []piece) []piece {
			return append([]piece{{ether.ProtoTCP, 0, true, decoy[:25]}}, s...)
		},
		"a tiny decoy": func(s []piece) []piece { return append([]piece{{ether.ProtoTCP, 0, true, decoy[:8]}}, s...) },
	}
	tried := 0
	for _, six := range []bool{false, true} {
		for name, trick := range tricks {
			for _, size := range []int{8, 16, 24, 32} {
				tried++
				n := newNetwork(t, toNode(t, 1, "tcp:80", "udp:53", "udp:445"))
				if got, _ := smuggled(n, six, 7, trick(cutUp(ether.ProtoTCP, bytes.Clone(secret), size))); got {
					t.Errorf("IPv6 %v, %s, pieces of %d: port 445 is reached", six, name, size)
				}
			}
		}
	}
	if tried < 30 {
		t.Errorf("%d fragmentations: too few", tried)
	}
}

// The same with what nobody has thought of.
func TestRandomFragmentsSmuggleNothing(t *testing.T) {
	rounds, passed := 30_000, 0
	if testing.Short() {
		rounds = 3000
	}
	for seed := range rounds {
		r := rand.New(rand.NewPCG(uint64(seed), 2)) //nolint:gosec // not for secrets
		n := newNetwork(t, toNode(t, 1, "tcp:80", "udp:53", "udp:445"))
		bodies := [][]byte{tcp(9, 445, flagSYN, 28), tcp(9, 80, flagACK, 28), udp(9, 53, 40), udp(9, 445, 40)}
		var pieces []piece
		for range 12 {
			body := bodies[r.IntN(len(bodies))]
			from, length := 8*r.IntN(6)*r.IntN(2), 8*(1+r.IntN(6))
			end := min(from+length, len(body))
			pieces = append(pieces, piece{[]ether.Protocol{ether.ProtoTCP, ether.ProtoUDP}[r.IntN(2)], from, end < len(body) && r.IntN(4) > 0, body[from:end]})
		}
		got, some := smuggled(n, seed%2 == 1, 7, pieces)
		if passed += some; got {
			t.Fatalf("seed %d: port 445 is reached by %+v", seed, pieces)
		}
	}
	if passed < rounds {
		t.Errorf("%d fragments of %d datagrams passed: the cases say too little", passed, rounds)
	}
}

// What an honest host sends passes whole, as often as it likes.
func TestHonestFragmentsPass(t *testing.T) {
	for _, six := range []bool{false, true} {
		n := newNetwork(t, toNode(t, 1, "udp:53", "icmp"))
		echo := byte(echoV4)
		protocol := ether.ProtoICMP
		if six {
			echo, protocol = 128, ether.ProtoICMPv6
		}
		for id := range uint16(300) {
			for name, pieces := range map[string][]piece{
				"UDP":  cutUp(ether.ProtoUDP, udp(9, 53, 8000), 1480),
				"echo": cutUp(protocol, icmp(echo, 3, make([]byte, 3000)...), 1480),
			} {
				number := id%100 + 1000*uint16(len(name))
				for i, p := range pieces {
					if got := n.send(1, 2, fragmentOf(six, p.protocol, number, p.offset, p.more, p.body)); got != Pass {
						t.Fatalf("IPv6 %v, %s, datagram %d, fragment %d: %q", six, name, id, i, got)
					}
				}
			}
		}
		if got := n.send(1, 2, fragmentOf(six, ether.ProtoUDP, 1, 0, true, udp(9, 54, 8))); got != NotAllowed {
			t.Errorf("IPv6 %v: a port that is not granted: %q", six, got)
		}
	}
}
