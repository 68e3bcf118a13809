package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"
)

// trainLabel is what a frame of a train has after its head: the train's mark, 8 bytes, and the frame's number, 4.
const trainLabel = 12

// Train is a series of numbered frames: sent with Host.SendTrain at one place, and looked for with Capture.Train at others.
//
//	head (Ethernet, tags) | mark, 8 | number, 4 | filling, which depends on the number, up to Size
type Train struct {
	Head  []byte        // up to the last EtherType; Ethernet makes one
	Size  int           // of a frame with its head; 0: 60, as short as a frame may be without its FCS
	Count int           // frames
	Gap   time.Duration // between two frames; 0: as fast as it goes
	mark  uint64
}

// NewTrain returns a train of minimal frames of its own mark.
func NewTrain(head []byte, count int, gap time.Duration) Train {
	return Train{Head: head, Count: count, Gap: gap, mark: rand.Uint64()}
}

// Frame returns a frame by its number, from 0 to Count-1.
func (t *Train) Frame(n int) []byte {
	size := max(t.Size, len(t.Head)+trainLabel)
	if t.Size == 0 {
		size = max(size, 60)
	}
	b := append(make([]byte, 0, size), t.Head...)
	b = binary.BigEndian.AppendUint64(b, t.mark)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	for x := uint32(n)*2654435761 + 1; len(b) < size; x = x*1664525 + 1013904223 {
		b = append(b, byte(x>>24))
	}
	return b
}

// SendTrain sends a train out of an interface of the host and returns how many frames of it were sent. Those that are
// late are sent at once, so that the mean rate is kept.
func (h *Host) SendTrain(ctx context.Context, name string, t Train) (sent int, err error) {
	err = h.withSender(name, func(fd int) error {
		for start := time.Now(); sent < t.Count; sent++ {
			if wait := time.Until(start.Add(time.Duration(sent) * t.Gap)); wait > 0 {
				time.Sleep(wait)
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := sendFrame(fd, t.Frame(sent)); err != nil {
				return fmt.Errorf("send frame %d of a train: %w", sent, err)
			}
		}
		return nil
	})
	return sent, err
}

// Arrivals is what came of a train.
type Arrivals struct {
	Whole     int // different frames that came, with exactly the bytes that were expected
	Extra     int // further copies of a frame
	Changed   int // with other bytes than expected before or after the label
	Reordered int // that came after one with a higher number
	First     time.Time
	Last      time.Time
	Gap       time.Duration // the longest time between two that came one after the other
	Example   []byte        // the first changed one
}

// Train returns what a capture has of a train. The head is what frames of it shall have where the capture was made: with
// another tag, or without. It is ErrIncomplete if the capture lost frames.
func (c *Capture) Train(t Train, head []byte) (a Arrivals, err error) {
	if t.Size != 0 {
		t.Size += len(head) - len(t.Head)
	} else {
		t.Size = max(60, len(t.Head)+trainLabel) + len(head) - len(t.Head)
	}
	t.Head = head
	mark := binary.BigEndian.AppendUint64(nil, t.mark)
	seen, highest := make([]bool, t.Count), -1
	err = c.EachAt(func(frame []byte, at time.Time) bool {
		i := bytes.Index(frame, mark)
		if i < 0 {
			return true
		}
		if a.First.IsZero() {
			a.First = at
		} else {
			a.Gap = max(a.Gap, at.Sub(a.Last))
		}
		a.Last = at
		n := -1
		if len(frame) >= i+trainLabel {
			n = int(binary.BigEndian.Uint32(frame[i+8:]))
		}
		switch {
		case n < 0 || n >= t.Count || !bytes.Equal(frame, t.Frame(n)):
			if a.Changed == 0 {
				a.Example = bytes.Clone(frame)
			}
			a.Changed++
		case seen[n]:
			a.Extra++
		default:
			seen[n] = true
			a.Whole++
			if n < highest {
				a.Reordered++
			}
			highest = max(highest, n)
		}
		return true
	})
	return a, err
}

// Exactly returns an error unless exactly these many different frames came, once each, unchanged.
func (a Arrivals) Exactly(count int) error {
	if a.Whole == count && a.Extra == 0 && a.Changed == 0 {
		return nil
	}
	return fmt.Errorf("%d frames came, %d further copies and %d changed (%x), want exactly %d", a.Whole, a.Extra, a.Changed, a.Example[:min(64, len(a.Example))], count)
}

// AwaitTrain waits until no further frame of a train has come for a time, and returns what came: what comes too often
// comes after the last.
func (c *Capture) AwaitTrain(ctx context.Context, t Train, head []byte, quiet time.Duration) (Arrivals, error) {
	last, since := -1, time.Now()
	for {
		a, err := c.Train(t, head)
		if err != nil {
			return a, err
		}
		if n := a.Whole + a.Extra + a.Changed; n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) >= quiet {
			return a, nil
		}
		select {
		case <-ctx.Done():
			return a, ctx.Err()
		case <-time.After(quiet / 4):
		}
	}
}
