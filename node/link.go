package node

import (
	"encoding/binary"
	"sync"

	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
	"github.com/etherloom/etherloom/transport"
)

// This file is the door between the two worlds. What crosses it, sealed, is a frame behind a tag of 12 bytes:
//
//	 0                   1                   2                   3
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  format, 0    |                segment (24)                   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                     source identity (32)                      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                          grant (32)                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  the frame, from its destination address on
const tagSize = 12

func putTag(b []byte, vni policy.VNI, tag vswitch.Tag) {
	binary.BigEndian.PutUint32(b, uint32(vni))
	binary.BigEndian.PutUint32(b[4:], uint32(tag.Source))
	binary.BigEndian.PutUint32(b[8:], uint32(tag.Grant))
}

// parseTag splits a message into tag and frame. A format that is not 0 is not ours to understand.
func parseTag(b []byte) (vni policy.VNI, tag vswitch.Tag, frame []byte, ok bool) {
	if len(b) < tagSize || b[0] != 0 {
		return 0, vswitch.Tag{}, nil, false
	}
	vni = policy.VNI(binary.BigEndian.Uint32(b))
	tag.Source = policy.Identity(binary.BigEndian.Uint32(b[4:]))
	tag.Grant = policy.GrantID(binary.BigEndian.Uint32(b[8:]))
	return vni, tag, b[tagSize:], true
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
	sender *transport.Sender // nil for a goroutine that only receives
	tag    [tagSize]byte     // scratch
}

// take returns the lowest free number; false if there is none.
func (l *lanes) take() (vswitch.Lane, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.used {
		if !l.used[i] {
			l.used[i] = true
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
}

// Send seals a frame for the peer. It leaves with the lane's next flush.
func (l *link) Send(frame []byte, tag vswitch.Tag, n vswitch.Lane) {
	s := &l.lanes.state[n]
	if s.sender == nil {
		return // split horizon: what came over a link goes to no other
	}
	putTag(s.tag[:], l.vni, tag)
	s.sender.Send(l.peer, s.tag[:], frame)
}
