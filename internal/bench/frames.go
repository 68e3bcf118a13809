package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/node"
	"github.com/etherloom/etherloom/transport"
)

// Frames is how many frames of a length one core takes from the host's port to the wire, and from the wire to the host's port.
type Frames struct {
	Bytes int     `json:"frame_bytes"` // without the FCS
	Out   float64 `json:"out_per_s"`   // one core that only sends
	In    float64 `json:"in_per_s"`    // one core that only receives
	Both  float64 `json:"both_per_s"`  // one core that is both ends
}

// Stream is what one core carries of one TCP stream, in Mbit/s of its payload.
type Stream struct {
	Out      float64 `json:"out_mbit_per_s"`      // one core that only sends
	In       float64 `json:"in_mbit_per_s"`       // one core that only receives
	Both     float64 `json:"both_mbit_per_s"`     // one core that is both ends
	Estimate float64 `json:"estimate_mbit_per_s"` // a core at each end: the slower of the two
}

// Lengths of frames, in bytes without the FCS.
const (
	smallFrame = 64
	fullFrame  = ether.HeaderLen + 1500
)

// The two ends (RFC 5737).
var (
	near = node.TrialEnd{MAC: ether.MAC{2, 0, 0, 0, 0, 1}, Addr: netip.AddrFrom4([4]byte{192, 0, 2, 1})} //nolint:gochecknoglobals // constants
	far  = node.TrialEnd{MAC: ether.MAC{2, 0, 0, 0, 0, 2}, Addr: netip.AddrFrom4([4]byte{192, 0, 2, 2})} //nolint:gochecknoglobals // constants
)

// frames measures frames that come in bursts, as from a host that is busy.
func (m meter) frames(s transport.Suite, size int) (Frames, error) {
	burst := make([][]byte, node.TrialBurst)
	for i := range burst {
		burst[i] = packet(ether.ProtoUDP, size)
	}
	t, err := m.carry(s, burst, ether.Offload{})
	if err != nil {
		return Frames{}, err
	}
	return Frames{
		Bytes: size, Out: per(t.frames, t.out), In: per(t.frames, t.in), Both: per(t.frames, t.out+t.in),
	}, nil
}

// stream measures a TCP stream as a host with segmentation offload gives it: in super-frames.
func (m meter) stream(s transport.Suite) (Stream, error) {
	const mss, head = 1448, ether.HeaderLen + 20 + 32 // with timestamps, RFC 7323
	undone := ether.Offload{Checksum: true, Start: ether.HeaderLen + 20, Field: 16, Size: mss}
	t, err := m.carry(s, [][]byte{packet(ether.ProtoTCP, node.TrialSuperFrame)}, undone)
	if err != nil {
		return Stream{}, err
	}
	mbits := (t.octets - t.frames*head) * 8 / 1e6
	r := Stream{Out: per(mbits, t.out), In: per(mbits, t.in), Both: per(mbits, t.out+t.in)}
	r.Estimate = min(r.Out, r.In)
	return r, nil
}

// carried is what has arrived, and how long its two halves took.
type carried struct {
	frames, octets float64
	out, in        time.Duration
}

// carry sends a burst from one node to another, again and again.
func (m meter) carry(s transport.Suite, burst [][]byte, undone ether.Offload) (c carried, err error) {
	t, err := node.NewTrial(s, near, far)
	if err != nil {
		return carried{}, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	send := func() error {
		t.Send(burst, undone)
		return nil
	}
	rounds, out, in, err := m.alternate(send, t.Receive)
	if err != nil {
		return carried{}, err
	}
	frames, octets := t.Arrived()
	if want := rounds * len(burst) * len(burst[0]); octets != uint64(want) {
		lost := fmt.Errorf("measure frames of %d bytes: %d bytes of %d arrived", len(burst[0]), octets, want)
		return carried{}, errors.Join(lost, t.Refused())
	}
	return carried{float64(frames), float64(octets), out, in}, nil
}

// packet is a frame of size bytes with an IPv4 packet from near to far.
func packet(protocol ether.Protocol, size int) []byte {
	f := make([]byte, ether.HeaderLen, size)
	copy(f, far.MAC[:])
	copy(f[6:], near.MAC[:])
	binary.BigEndian.PutUint16(f[12:], uint16(ether.TypeIPv4))
	ip := f[ether.HeaderLen:size]
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	ip[0], ip[8], ip[9] = 0x45, 64, byte(protocol) // version and header length, TTL
	copy(ip[12:], near.Addr.AsSlice())
	copy(ip[16:], far.Addr.AsSlice())
	l4 := ip[20:]
	binary.BigEndian.PutUint16(l4[4:], uint16(len(l4))) // UDP: length; TCP: part of the sequence number
	if protocol == ether.ProtoTCP {
		l4[12], l4[13] = 8<<4, 0x10 // header of eight words; ACK
	}
	return f[:size]
}
