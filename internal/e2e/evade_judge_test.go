package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/lab"
)

// segment is the beginning of a TCP segment or UDP datagram: from whose port to which.
type segment struct {
	protocol byte
	six      bool
	from, to uint16
}

// segmentOf reads a transport header, of which eight bytes tell enough.
func segmentOf(protocol byte, six bool, b []byte) (segment, bool) {
	if protocol != unix.IPPROTO_TCP && protocol != unix.IPPROTO_UDP || len(b) < 4 {
		return segment{}, false
	}
	return segment{protocol, six, binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])}, true
}

// tally counts segments.
type tally struct {
	mu sync.Mutex
	n  map[segment]int
}

func (t *tally) add(s segment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n[s]++
}

// to returns what was counted for a port.
func (t *tally) to(port uint16) map[segment]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := maps.Clone(t.n)
	maps.DeleteFunc(out, func(s segment, _ int) bool { return s.to != port })
	return out
}

// listens counts what the kernel of a host takes for TCP and UDP, after it has put fragments together and walked along all
// headers, whether anybody serves the port or not.
func (r *rig) listens(h *lab.Host) *tally {
	r.Helper()
	t := &tally{n: map[segment]int{}}
	for network, protocol := range map[string]byte{"ip4:6": 6, "ip6:6": 6, "ip4:17": 17, "ip6:17": 17} {
		six := network[2] == '6'
		address := "0.0.0.0"
		if six {
			address = "::"
		}
		conn, err := h.ListenPacket(r.ctx, network, address)
		r.ok(err)
		r.ok(conn.(*net.IPConn).SetReadBuffer(4 << 20))
		r.Cleanup(func() { _ = conn.Close() })
		go func() {
			for b := make([]byte, 1<<16); ; {
				n, _, err := conn.ReadFrom(b)
				if err != nil {
					return
				}
				if s, ok := segmentOf(protocol, six, b[:n]); ok {
					t.add(s)
				}
			}
		}()
	}
	return t
}

// puzzle puts together what a capture has, as the most careless hosts do: it walks along any number of headers, follows no
// rule of what may overlap, and believes the first of two that do, and the last.
type puzzle struct {
	open     map[string]*assembly
	whole    map[segment]int // of first fragments, too, if a part counts
	overlaps int
	parts    bool
}

type assembly struct {
	first, last []byte
	have        []bool
	ends        []int
	next        byte // that the first fragment names
}

// assembled reads a capture's frames from a station. parts says whether a first fragment without the others counts.
func (r *rig) assembled(tap *lab.Capture, from net.HardwareAddr, parts bool) *puzzle {
	r.Helper()
	p := &puzzle{open: map[string]*assembly{}, whole: map[segment]int{}, parts: parts}
	r.ok(tap.Each(func(frame []byte) bool {
		if len(frame) > 14 && bytes.Equal(frame[6:12], from) {
			p.take(frame)
		}
		return true
	}))
	return p
}

func (p *puzzle) take(frame []byte) {
	at := 12
	for at+2 < len(frame) && (frame[at] == 0x81 || frame[at] == 0x88 && frame[at+1] == 0xa8) {
		at += 4
	}
	packet := frame[min(at+2, len(frame)):]
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		head, total := int(packet[0]&15)*4, int(binary.BigEndian.Uint16(packet[2:]))
		if head < 20 || total < head || total > len(packet) {
			return
		}
		field, body := binary.BigEndian.Uint16(packet[6:]), packet[head:total]
		if field&0x3fff == 0 {
			p.upper(false, "", packet[9], body)
			return
		}
		key := fmt.Sprintf("%x", [][]byte{packet[12:20], packet[4:6], {packet[9]}})
		p.fragment(false, key, packet[9], int(field&0x1fff)*8, field&0x2000 != 0, body)
	case len(packet) >= 40 && packet[0]>>4 == 6:
		n := int(binary.BigEndian.Uint16(packet[4:]))
		p.upper(true, string(packet[8:40]), packet[6], packet[40:min(40+n, len(packet))])
	}
}

// upper walks along the headers of an IPv6 packet, and counts what is behind them.
func (p *puzzle) upper(six bool, ends string, next byte, b []byte) {
	for six && len(b) >= 8 {
		switch next {
		case 0, 43, 60, 135, 139, 140:
			size := 8 + int(b[1])*8
			next, b = b[0], b[min(size, len(b)):]
			continue
		case 51: // authentication header (RFC 4302 section 2.2)
			next, b = b[0], b[min(8+int(b[1])*4, len(b)):]
			continue
		case 44:
			field := binary.BigEndian.Uint16(b[2:])
			if field&0xfff9 != 0 {
				p.fragment(true, ends+string(b[4:8]), b[0], int(field&0xfff8), field&1 != 0, b[8:])
				return
			}
			next, b = b[0], b[8:]
			continue
		}
		break
	}
	if s, ok := segmentOf(next, six, b); ok {
		p.whole[s]++
	}
}

func (p *puzzle) fragment(six bool, key string, next byte, offset int, more bool, body []byte) {
	if offset == 0 && p.parts {
		p.upper(six, key, next, body)
	}
	d := p.open[key]
	if d == nil {
		d = &assembly{next: next}
		p.open[key] = d
	}
	if d.put(offset, more, body) {
		p.overlaps++
	}
	if offset == 0 {
		d.next = next
	}
	for _, end := range d.ends {
		if end > len(d.have) || bytes.Contains(octets(d.have[:end]), []byte{0}) {
			continue
		}
		delete(p.open, key)
		for _, b := range [][]byte{d.first[:end], d.last[:end]} {
			p.upper(six, key, d.next, b)
		}
		return
	}
}

// put lays a fragment where it belongs, and says whether anything was there.
func (d *assembly) put(offset int, more bool, body []byte) (overlaps bool) {
	if grow := offset + len(body) - len(d.have); grow > 0 {
		d.first, d.last, d.have = append(d.first, make([]byte, grow)...), append(d.last, make([]byte, grow)...), append(d.have, make([]bool, grow)...)
	}
	for i, b := range body {
		at := offset + i
		overlaps = overlaps || d.have[at]
		if !d.have[at] {
			d.first[at], d.have[at] = b, true
		}
		d.last[at] = b
	}
	if !more {
		d.ends = append(d.ends, offset+len(body))
	}
	return overlaps
}

func octets(have []bool) []byte {
	b := make([]byte, len(have))
	for i, h := range have {
		if h {
			b[i] = 1
		}
	}
	return b
}
