package node

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/etherloom/etherloom/bridge"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/internal/quietfd"
	vswitch "github.com/etherloom/etherloom/switch"
	"github.com/etherloom/etherloom/transport"
)

// This file carries frames between the queues of devices and the switch.

// burst is how many frames are read before what is gathered must leave.
const burst = 32

// small is the length of a frame of which more than one may fit into a datagram, or be a reason to wait for more.
const small = 2048

// intake takes the frames that a queue gives, one after the other, on the lane that carries them.
type intake func(frame []byte, undone ether.Offload, n vswitch.Lane, now time.Time)

// errTooMany means that there is no lane, or no sender, for a further queue.
var errTooMany = errors.New("this node carries frames of too many devices and queues at once: lower tap.queues, or give it fewer segments and NICs, and start the daemon again")

// unread is what is wrong with a device of which a queue is read no more: somebody has removed it, or there are too many.
func unread(name, what string, err error) error {
	if errors.Is(err, errTooMany) {
		return fmt.Errorf("a queue of %s is not read, so that some of its frames are lost: %w", name, err)
	}
	return fmt.Errorf("somebody else has removed %s until the daemon is started again: %w", what, err)
}

// carry takes frames from one queue of a device, with a number, until the device is closed: then it returns what has closed it, or nil
// if that was us; or errTooMany.
func (d *Daemon) carry(q *bridge.Queue, queue int, take intake) error {
	n, ok := d.lanes.take(queue)
	if !ok {
		return errTooMany
	}
	defer d.lanes.release(n)
	sender, err := d.endpoint.NewSender(queue)
	if errors.Is(err, transport.ErrSenders) {
		return errTooMany
	}
	if err != nil {
		return err
	}
	defer sender.Close()
	d.lanes.state[n].sender = sender
	buf := make([]byte, bridge.MaxFrame)
	for {
		frame, undone, err := q.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		now := time.Now()
		take(frame, undone, n, now)
		// Small frames that are ready together leave together. A super-frame is a burst by itself.
		more := burst
		for ; more > 0 && len(frame) <= small; more-- {
			if frame, undone, ok = q.TryRead(buf); !ok {
				break
			}
			take(frame, undone, n, now)
		}
		sender.Flush()
		if more == 0 {
			// The host sends faster than this goroutine carries. Who is to receive it may run on the same processor, here or
			// at the other end of a cable: what cannot be taken there in time was carried in vain.
			quietfd.Yield()
		}
	}
}

// travelling brings a frame into a form that can travel; what cannot is counted.
func (d *Daemon) travelling(frame []byte, undone ether.Offload) (ether.Offload, bool) {
	undone, ok := ether.Settle(frame, undone)
	if ok && undone.Size > 0 {
		_, ok = ether.Cut(frame, undone, longestCut)
	}
	if !ok {
		d.malformed.Add(1)
	}
	return undone, ok
}

// writer is a way into a host, or onto a wire. That it does not want a frame, because its device is down, is nothing to us.
type writer interface {
	Write(frame []byte, undone ether.Offload) error
}

// give writes a frame, and does first what is left undone on it and the device cannot do. The frame is borrowed, so that is
// done in room, which give may grow and returns.
func give(w writer, have ether.Offloads, frame []byte, undone ether.Offload, room []byte) []byte {
	if have.Cover(undone) {
		_ = w.Write(frame, undone)
		return room
	}
	each := undone
	each.Size = 0
	cut, super := ether.Cut(frame, undone, len(frame))
	if super {
		room = cut.Next(room[:0])
	} else {
		room = append(room[:0], frame...)
	}
	for next := room; next != nil; next = cut.Next(room[:0]) {
		room = next
		if have.Cover(each) {
			_ = w.Write(room, each)
			continue
		}
		ether.Complete(room, each)
		_ = w.Write(room, ether.Offload{})
	}
	return room
}
