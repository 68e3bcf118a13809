package probe

import (
	"crypto/hmac"
	"encoding/binary"
	"errors"

	"github.com/etherloom/etherloom/ether"
)

// EtherType is that of probes: local experimental 1 (IEEE 802 section 9.2.4).
const EtherType ether.Type = 0x88b5

// Group is where probes go.
func Group() ether.MAC { return ether.MAC{0x03, 0x6c, 0x6f, 0x6f, 0x6d, 0x00} }

// Is reports whether a frame is a probe, or looks like one. Such a frame goes to Guard.Hear and nowhere else, whoever has
// sent it.
func Is(f *ether.Frame) bool { return f.Type == EtherType && f.Dst == Group() }

const (
	magic     = 0x6c6f6f6d // "loom"
	version   = 1
	headerLen = 36
	tagLen    = 16
	label     = "etherloom probe v1"

	flagBlocked = 1 << 0
)

// KeyLen is the length of a key, in bytes.
const KeyLen = 32

// MaxHello is how long a hello in a probe may be, in bytes.
const MaxHello = 1024

// Errors of Hear.
var (
	ErrForm   = errors.New("probe: frame is not formed as a probe")
	ErrKey    = errors.New("probe: of a segment whose key this gateway does not have")
	ErrTag    = errors.New("probe: not authentic")
	ErrOld    = errors.New("probe: older than one that was heard, or of a run that is not the present one")
	ErrNoPort = errors.New("probe: this gateway has no such port")
)

// message is what a probe says.
type message struct {
	vni, attachment, node uint32
	boot, sequence        uint64
	blocked               bool
	hello                 []byte
}

// appendFrame appends the frame of a probe from src to b.
func (m *message) appendFrame(b []byte, src ether.MAC, s *seal) []byte {
	from := len(b)
	dst := Group()
	b = append(append(b, dst[:]...), src[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(EtherType))
	b = binary.BigEndian.AppendUint32(b, magic)
	var flags byte
	if m.blocked {
		flags = flagBlocked
	}
	b = append(b, version, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.hello)))
	b = binary.BigEndian.AppendUint32(b, m.vni)
	b = binary.BigEndian.AppendUint32(b, m.attachment)
	b = binary.BigEndian.AppendUint32(b, m.node)
	b = binary.BigEndian.AppendUint64(b, m.boot)
	b = binary.BigEndian.AppendUint64(b, m.sequence)
	b = append(b, m.hello...)
	return append(b, s.tag(dst, src, b[from+ether.HeaderLen:])...)
}

// parse reads a probe and splits its tag off, which it does not verify. covered is what the tag is over.
func parse(b []byte) (m message, covered, tag []byte, err error) {
	if len(b) < headerLen+tagLen || binary.BigEndian.Uint32(b) != magic || b[4] != version || b[5]&^flagBlocked != 0 || b[8] != 0 {
		return message{}, nil, nil, ErrForm
	}
	n := int(binary.BigEndian.Uint16(b[6:]))
	if n > MaxHello || len(b) < headerLen+n+tagLen {
		return message{}, nil, nil, ErrForm
	}
	m = message{
		vni: binary.BigEndian.Uint32(b[8:]), attachment: binary.BigEndian.Uint32(b[12:]), node: binary.BigEndian.Uint32(b[16:]),
		boot: binary.BigEndian.Uint64(b[20:]), sequence: binary.BigEndian.Uint64(b[28:]),
		blocked: b[5]&flagBlocked != 0, hello: b[headerLen : headerLen+n],
	}
	covered = b[:headerLen+n]
	return m, covered, b[len(covered) : len(covered)+tagLen], nil
}

// tag computes what authenticates a probe. It is valid until the next call.
func (s *seal) tag(dst, src ether.MAC, covered []byte) []byte {
	s.mac.Reset()
	s.head = append(append(append(s.head[:0], label...), dst[:]...), src[:]...)
	s.mac.Write(s.head)
	s.mac.Write(covered)
	s.sum = s.mac.Sum(s.sum[:0])
	return s.sum[:tagLen]
}

// verifies reports whether a tag is that of the probe, in constant time.
func (s *seal) verifies(dst, src ether.MAC, covered, tag []byte) bool {
	return hmac.Equal(s.tag(dst, src, covered), tag)
}
