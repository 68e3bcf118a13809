package node

import (
	"encoding/binary"
	"sync"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
	"github.com/etherloom/etherloom/transport"
)

// This file is the door between the two worlds. What crosses it, sealed, is a frame behind a tag of 12 bytes:
//
//	 0                   1                   2                   3
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|    format     |                segment (24)                   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                     source identity (32)                      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                          grant (32)                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  the frame, from its destination address on
//
// Format 0 is a frame as it is on a wire. In format 1 the checksum of its TCP or UDP header holds the sum of the
// pseudo-header alone: the seal covers the frame, and who gives it to anybody else completes it.
const (
	tagSize       = 12
	formatWhole   = 0
	formatPartial = 1
)

func putTag(b []byte, format byte, vni policy.VNI, tag vswitch.Tag) {
	binary.BigEndian.PutUint32(b, uint32(format)<<24|uint32(vni))
	binary.BigEndian.PutUint32(b[4:], uint32(tag.Source))
	binary.BigEndian.PutUint32(b[8:], uint32(tag.Grant))
}

// parseTag splits a message into tag and frame. Formats of tomorrow are not ours to understand.
func parseTag(b []byte) (format byte, vni policy.VNI, tag vswitch.Tag, frame []byte, ok bool) {
	if len(b) < tagSize || b[0] > formatPartial {
		return 0, 0, vswitch.Tag{}, nil, false
	}
	format, vni = b[0], policy.VNI(binary.BigEndian.Uint32(b)&0xffffff)
	tag.Source = policy.Identity(binary.BigEndian.Uint32(b[4:]))
	tag.Grant = policy.GrantID(binary.BigEndian.Uint32(b[8:]))
	return format, vni, tag, b[tagSize:], true
}

// maxLanes bounds the goroutines that carry frames at a time.
const maxLanes = 256

// lanes hands out numbers to goroutines that carry frames, and keeps what each of them needs to send.
type lanes struct {
	mu    sync.Mutex
	used  [maxLanes]bool
	state [maxLanes]lane // each element belongs to the goroutine that has its number
}

// lane is what one goroutine sends with.
type lane struct {
	queue  int               // of the TAPs, by which it gives frames to the host
	sender *transport.Sender // nil for a goroutine that only receives
	tag    [tagSize]byte     // scratch
	frame  []byte            // scratch: what was cut off a super-frame
}

// take returns the lowest free number, for a goroutine of a queue; false if there is none.
func (l *lanes) take(queue int) (vswitch.Lane, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.used {
		if !l.used[i] {
			l.used[i] = true
			l.state[i].queue = queue
			return vswitch.Lane(i), true
		}
	}
	return 0, false
}

func (l *lanes) release(n vswitch.Lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state[n] = lane{}
	l.used[n] = false
}

// link is the way out of a segment to a peer.
type link struct {
	vni   policy.VNI
	peer  *transport.Peer
	lanes *lanes

	copies copies
}

// Send seals a frame for the peer. It leaves with the lane's next flush. A super-frame is cut: each datagram holds a frame
// that stands alone, so that one that is lost is one frame lost.
func (l *link) Send(frame []byte, undone ether.Offload, tag vswitch.Tag, n vswitch.Lane) {
	s := &l.lanes.state[n]
	if s.sender == nil {
		return // split horizon: what came over a link goes to no other
	}
	l.copies.leave(frame, undone, n)
	if !undone.Checksum {
		putTag(s.tag[:], formatWhole, l.vni, tag)
		s.sender.Send(l.peer, s.tag[:], frame)
		return
	}
	putTag(s.tag[:], formatPartial, l.vni, tag)
	if undone.Size == 0 {
		s.sender.Send(l.peer, s.tag[:], frame)
		return
	}
	cut, ok := ether.Cut(frame, undone, l.peer.Largest()-tagSize)
	if !ok {
		return // segment.forward has refused and counted it
	}
	for n := cut.Len(); n > 0; n = cut.Len() {
		if room := s.sender.Room(l.peer, s.tag[:], n); room != nil {
			cut.Next(room[:0])
			continue
		}
		s.frame = cut.Next(s.frame[:0])
		s.sender.Send(l.peer, s.tag[:], s.frame)
	}
}
