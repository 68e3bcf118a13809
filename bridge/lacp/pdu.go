package lacp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/etherloom/etherloom/ether"
)

// EtherType is that of the slow protocols (IEEE 802.3 annex 57A.4).
const EtherType ether.Type = 0x8809

// Group is where slow protocols' frames go, no further than the next bridge (IEEE 802.3 annex 57A.3).
func Group() ether.MAC { return ether.MAC{0x01, 0x80, 0xc2, 0x00, 0x00, 0x02} }

// Is reports whether a frame as it is on the wire is one of a slow protocol. A tagged one is not (IEEE 802.1AX-2014 section 6.2.10).
func Is(frame []byte) bool {
	return len(frame) > ether.HeaderLen && ether.MAC(frame[:6]) == Group() && binary.BigEndian.Uint16(frame[12:]) == uint16(EtherType)
}

// State is what one end says of its port (section 6.4.2.3).
type State uint8

// The bits of a State.
const (
	Activity     State = 1 << iota // it speaks without being asked
	ShortTimeout                   // it wants to hear every second
	Aggregation                    // its port may be one of several
	Sync                           // its port is in the right aggregation
	Collecting                     // it takes frames
	Distributing                   // it sends frames
	Defaulted                      // it has heard nobody
	Expired                        // it has heard nobody lately
)

// String names the bits that are set.
func (s State) String() string {
	var set []string
	for i, name := range []string{"activity", "short-timeout", "aggregation", "sync", "collecting", "distributing", "defaulted", "expired"} {
		if s>>i&1 != 0 {
			set = append(set, name)
		}
	}
	return strings.Join(set, " ")
}

// System is a device that aggregates ports (section 6.3.2).
type System struct {
	Priority uint16
	MAC      ether.MAC
}

func (s System) String() string { return fmt.Sprintf("%d,%v", s.Priority, s.MAC) }

// End is what a LACPDU says of one end of the cable.
type End struct {
	System             System
	Key                uint16
	PortPriority, Port uint16
	State              State
}

// same reports whether two are one port in one aggregation, with the same will to aggregate (section 6.4.9, update_Selected).
func (e End) same(o End) bool { return e.under(Aggregation) == o.under(Aggregation) }

// under is the end with these bits of its state alone.
func (e End) under(mask State) End {
	e.State &= mask
	return e
}

// PDU is a LACPDU.
type PDU struct{ Actor, Partner End }

// What is written before lengths and values.
const (
	subtypeLACP, subtypeMarker = 1, 2
	version                    = 1
	typeActor, typePartner     = 1, 2
	typeCollector              = 3
	lenEnd, lenCollector       = 20, 16
	pduLen                     = 110 // of a LACPDU, or a marker's, without the header
)

// Errors of Hear.
var (
	ErrForm    = errors.New("lacp: frame is not formed as a LACPDU or a marker request")
	ErrSubtype = errors.New("lacp: frame is one of another slow protocol")
	ErrMany    = errors.New("lacp: more marker requests than are answered")
)

// ParsePDU reads a LACPDU, without its header. That of a later version is read as one of version 1 (section 6.4.2.4); what is
// reserved, and what follows the partner, is passed over.
func ParsePDU(b []byte) (PDU, error) {
	if len(b) < pduLen || b[0] != subtypeLACP || b[1] < version ||
		b[2] != typeActor || b[3] != lenEnd || b[2+lenEnd] != typePartner || b[3+lenEnd] != lenEnd {
		return PDU{}, ErrForm
	}
	p := PDU{parseEnd(b[4:]), parseEnd(b[4+lenEnd:])}
	if !p.Actor.System.MAC.IsStation() {
		return PDU{}, ErrForm // a system has the address of a station (section 6.3.2)
	}
	return p, nil
}

func parseEnd(b []byte) End {
	return End{
		System: System{binary.BigEndian.Uint16(b), ether.MAC(b[2:8])}, Key: binary.BigEndian.Uint16(b[8:]),
		PortPriority: binary.BigEndian.Uint16(b[10:]), Port: binary.BigEndian.Uint16(b[12:]), State: State(b[14]),
	}
}

// AppendFrame appends the frame of a LACPDU from src to b.
func (p *PDU) AppendFrame(b []byte, src ether.MAC) []byte {
	b = appendHeader(b, src)
	from := len(b)
	b = append(b, subtypeLACP, version, typeActor, lenEnd)
	b = append(p.Actor.append(b), typePartner, lenEnd)
	b = append(p.Partner.append(b), typeCollector, lenCollector) // the collector delays nothing
	return append(b, make([]byte, pduLen-(len(b)-from))...)
}

func (e *End) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, e.System.Priority)
	b = append(b, e.System.MAC[:]...)
	b = binary.BigEndian.AppendUint16(b, e.Key)
	b = binary.BigEndian.AppendUint16(b, e.PortPriority)
	b = binary.BigEndian.AppendUint16(b, e.Port)
	return append(b, byte(e.State), 0, 0, 0)
}

func appendHeader(b []byte, src ether.MAC) []byte {
	dst := Group()
	b = append(append(b, dst[:]...), src[:]...)
	return binary.BigEndian.AppendUint16(b, uint16(EtherType))
}

// What a marker's is written of (section 6.5.3.3).
const (
	typeMarker, typeResponse = 1, 2
	lenMarker                = 16
)

// answer is the frame that answers a marker request, given without its header: the same, as a response.
func answer(b []byte, src ether.MAC) ([]byte, error) {
	if len(b) < pduLen || b[1] < version || b[2] != typeMarker || b[3] != lenMarker {
		return nil, ErrForm
	}
	out := append(appendHeader(make([]byte, 0, ether.HeaderLen+pduLen), src), b[:2+lenMarker]...)
	out[ether.HeaderLen+2] = typeResponse
	return append(out, make([]byte, pduLen-2-lenMarker)...), nil
}
