package e2e

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// trick makes fragments of a segment, with the help of one for a port that is granted; both are equally long.
type trick struct {
	name  string
	sound int // it is sound if a transport header is not longer; 0: never
	cut   func(secret, decoy []byte) []fragment
}

// tricks are those of both versions of IP.
func tricks() []trick {
	const head = 24 // of a TCP segment, so that its ports and flags are in the first fragment
	part := func(b []byte, from, to int) fragment { return fragment{from, to < len(b), b[from:to]} }
	rest := func(b []byte) fragment { return part(b, head, len(b)) }
	list := []trick{}
	add := func(name string, sound int, cut func(s, d []byte) []fragment) {
		list = append(list, trick{name, sound, cut})
	}
	for at := 8; at < evasionSize; at += 8 {
		add(fmt.Sprintf("cut behind %d", at), at, func(s, _ []byte) []fragment { return []fragment{part(s, 0, at), part(s, at, len(s))} })
		add(fmt.Sprintf("cut behind %d, the later first", at), 0, func(s, _ []byte) []fragment { return []fragment{part(s, at, len(s)), part(s, 0, at)} })
	}
	for _, size := range []int{8, 16, 24, 32} {
		add(fmt.Sprintf("pieces of %d", size), size, func(s, _ []byte) []fragment { return pieces(s, size) })
		add(fmt.Sprintf("pieces of %d, backwards", size), 0, func(s, _ []byte) []fragment { p := pieces(s, size); slices.Reverse(p); return p })
	}
	add("a decoy, then all of it", 0, func(s, d []byte) []fragment { return []fragment{part(d, 0, head), part(s, 0, len(s))} })
	add("a decoy, then the first again", 0, func(s, d []byte) []fragment { return []fragment{part(d, 0, head), part(s, 0, head), rest(s)} })
	add("the first, then a decoy", 0, func(s, d []byte) []fragment { return []fragment{part(s, 0, head), part(d, 0, head), rest(s)} })
	add("a decoy, its ports written over", 0, func(s, d []byte) []fragment { return []fragment{part(d, 0, head), part(s, 0, 8), rest(d)} })
	add("a decoy that is longer", 0, func(s, d []byte) []fragment { return []fragment{part(d, 0, 48), part(s, 0, head), rest(s)} })
	add("a decoy that is an octet too long", 0, func(s, d []byte) []fragment {
		return []fragment{{0, true, d[:head+1]}, part(s, 0, head), rest(s)}
	})
	add("a decoy of eight octets", 0, func(s, d []byte) []fragment { return []fragment{part(d, 0, 8), part(s, 0, head), rest(s)} })
	add("the end, a decoy, then the first", 0, func(s, d []byte) []fragment {
		return []fragment{rest(s), part(d, 0, head), part(s, 0, head), rest(s)}
	})
	add("the number of one that is whole", 0, func(s, d []byte) []fragment {
		return []fragment{part(d, 0, head), rest(d), part(s, 0, head), rest(s)}
	})
	add("the number of one that is whole, the later first", 0, func(s, d []byte) []fragment {
		return []fragment{part(d, 0, head), rest(d), rest(s), part(s, 0, head)}
	})
	add("an overlap of one octet", 0, func(s, _ []byte) []fragment { return []fragment{{0, true, s[:head+1]}, rest(s)} })
	add("an overlap of eight", 0, func(s, _ []byte) []fragment { return []fragment{part(s, 0, head), part(s, 16, len(s))} })
	add("a gap that is filled from both sides", 0, func(s, _ []byte) []fragment {
		return []fragment{part(s, 0, head), part(s, 40, len(s)), part(s, 16, 48)}
	})
	add("two ends", 0, func(s, _ []byte) []fragment {
		return []fragment{part(s, 0, head), {64, false, s[64:68]}, rest(s)}
	})
	add("nothing at the end", 0, func(s, _ []byte) []fragment { return []fragment{{0, true, s}, {len(s), false, nil}} })
	return list
}

// whole are packets that are not cut.
func (w *workshop) whole(protocol byte) {
	w.add("whole", true, protocol, false, func(s, _ []byte) [][]byte { return [][]byte{w.packet4(protocol, nil, 0, s)} })
	w.add("whole", true, protocol, true, func(s, _ []byte) [][]byte { return [][]byte{w.packet6(protocol, nil, s)} })
	w.add("atomic fragment", true, protocol, true, func(s, _ []byte) [][]byte {
		return [][]byte{w.packet6(protocol, []header{w.fragmentHeader(0, false)}, s)}
	})
	w.add("with octets behind its end", false, protocol, false, func(s, d []byte) [][]byte {
		return [][]byte{append(w.packet4(protocol, nil, 0, s), d...)}
	})
	w.add("with octets behind its end", false, protocol, true, func(s, d []byte) [][]byte {
		return [][]byte{append(w.packet6(protocol, nil, s), d...)}
	})
}

// options are those of IPv4, whole and in pieces (RFC 791 section 3.1).
func (w *workshop) options() {
	address := w.from.v4.AsSlice()
	for _, o := range []struct {
		name    string
		options []byte
	}{
		{"nothing ten times", bytes.Repeat([]byte{1}, 40)},
		{"the end of options", make([]byte, 4)},
		{"record route", append([]byte{7, 7, 4}, make([]byte, 5)...)},
		{"timestamp", append([]byte{68, 12, 5, 0}, make([]byte, 8)...)},
		{"router alert", []byte{148, 4, 0, 0}},
		{"loose source route, used up", append(append([]byte{131, 7, 8}, address...), 0)},
		{"strict source route, used up", append(append([]byte{137, 7, 8}, address...), 0)},
		{"loose source route behind nothing", append(append([]byte{1, 131, 7, 8}, address...), make([]byte, 4)...)},
	} {
		sound := o.options[0] != 131 && o.options[0] != 137 && (o.options[0] != 1 || o.options[1] == 1)
		const tcp = unix.IPPROTO_TCP
		w.add(o.name, sound, tcp, false, func(s, _ []byte) [][]byte { return [][]byte{w.packet4(tcp, o.options, 0, s)} })
		w.add(o.name+", pieces of 24", sound, tcp, false, func(s, _ []byte) [][]byte { return w.cut4(tcp, o.options, pieces(s, 24)) })
		w.add(o.name+", pieces of 8", false, tcp, false, func(s, _ []byte) [][]byte { return w.cut4(tcp, o.options, pieces(s, 8)) })
	}
	w.add("don't fragment, in fragments", true, unix.IPPROTO_TCP, false, func(s, _ []byte) [][]byte {
		return [][]byte{w.packet4(6, nil, 0x6000, s[:48]), w.packet4(6, nil, 0x4006, s[48:])}
	})
	w.add("the reserved bit", false, unix.IPPROTO_TCP, false, func(s, _ []byte) [][]byte {
		return [][]byte{w.packet4(6, nil, 0xa000, s[:48]), w.packet4(6, nil, 0x8006, s[48:])}
	})
	w.add("a decoy of another protocol", false, unix.IPPROTO_TCP, false, func(s, _ []byte) [][]byte {
		return append(w.cut4(unix.IPPROTO_UDP, nil, pieces(s, 24)[:1]), w.cut4(unix.IPPROTO_TCP, nil, pieces(s, 24))...)
	})
}

// greatestChain is how many headers a node walks along (ether's maxExtensions).
const greatestChain = 8

// chains are extension headers before and behind the fragment header, and without one.
func (w *workshop) chains() {
	const tcp = unix.IPPROTO_TCP
	counts := []int{130}
	for n := 1; n <= 20; n++ {
		counts = append(counts, n)
	}
	for _, n := range counts {
		chain := padding(optionsHeader, n)
		w.add(fmt.Sprintf("%d headers", n), n < greatestChain, tcp, true, func(s, _ []byte) [][]byte { return [][]byte{w.packet6(tcp, chain, s)} })
		w.add(fmt.Sprintf("%d headers, in fragments", n), n+1 < greatestChain, tcp, true, func(s, _ []byte) [][]byte {
			return w.cut6(tcp, chain, nil, pieces(s, 48))
		})
		w.add(fmt.Sprintf("%d headers behind that of fragments", n), false, tcp, true, func(s, _ []byte) [][]byte {
			return w.cut6(tcp, nil, chain, pieces(s, 48))
		})
		w.add(fmt.Sprintf("%d headers in the first fragment, the segment in the second", n), false, tcp, true, func(s, _ []byte) [][]byte {
			first := w.packet6(tcp, append([]header{w.fragmentHeader(0, true)}, chain...), nil)
			return [][]byte{first, w.packet6(optionsHeader, []header{w.fragmentHeader(8*n, false)}, s)}
		})
	}
}

// headers are extension headers of other kinds.
func (w *workshop) headers() {
	const tcp = unix.IPPROTO_TCP
	route := func(typ, left byte) header {
		return header{routingHeader, append([]byte{2, typ, left, 0, 0, 0, 0}, w.to.v6.AsSlice()...)}
	}
	atomic := header{fragmentHeader, []byte{0, 0, 0, 0, 0, 0, 1}}
	for _, c := range []struct {
		name  string
		sound bool
		chain []header
	}{
		{"hop by hop", true, padding(hopByHopHeader, 1)},
		{"hop by hop, longer", true, []header{{hopByHopHeader, append([]byte{1, 1, 12}, make([]byte, 12)...)}}},
		{"hop by hop, router alert", true, []header{{hopByHopHeader, []byte{0, 5, 2, 0, 0, 1, 0}}}},
		{"hop by hop twice", false, padding(hopByHopHeader, 2)},
		{"hop by hop behind options", false, append(padding(optionsHeader, 1), padding(hopByHopHeader, 1)...)},
		{"routing header, used up", true, []header{route(0, 0)}},
		{"routing header of an experiment, used up", true, []header{route(253, 0)}},
		{"routing header, one left", false, []header{route(0, 1)}},
		{"segment routing, one left", false, []header{route(4, 1)}},
		{"a fragment in a fragment", false, []header{atomic, atomic}},
		{"a fragment in a fragment, 20 times", false, slices.Repeat([]header{atomic}, 20)},
		{"options behind an atomic fragment", false, append([]header{atomic}, padding(optionsHeader, 1)...)},
	} {
		w.add(c.name, c.sound, tcp, true, func(s, _ []byte) [][]byte { return [][]byte{w.packet6(tcp, c.chain, s)} })
		w.add(c.name+", in fragments", false, tcp, true, func(s, _ []byte) [][]byte { return w.cut6(tcp, c.chain, nil, pieces(s, 48)) })
	}
	w.add("fragments that name UDP, but the first", true, tcp, true, func(s, _ []byte) [][]byte {
		return append(w.cut6(tcp, nil, nil, pieces(s, 48)[:1]), w.cut6(unix.IPPROTO_UDP, nil, nil, pieces(s, 48)[1:])...)
	})
	w.add("a decoy that names UDP", false, tcp, true, func(s, _ []byte) [][]byte {
		return append(w.cut6(unix.IPPROTO_UDP, nil, nil, pieces(s, 24)[:1]), w.cut6(tcp, nil, nil, pieces(s, 24))...)
	})
}
