package lab

import (
	"bytes"
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Shape is what a cable does to frames, in each direction alike. Delays are kept to about a millisecond.
type Shape struct {
	Delay     time.Duration
	Jitter    time.Duration // up to this much more, evenly drawn per frame: so frames overtake each other
	Loss      float64       // chance that a frame is lost
	Duplicate float64       // chance that a frame arrives twice
	Reorder   float64       // chance that a frame is not delayed at all
}

// delayQueue is how many frames wait in one direction; more are lost.
const delayQueue = 16384

// delayLine carries frames between two TAPs, one goroutine per direction.
//
//	host A   TAP ── read ── queue by due time ── write ── TAP   host B
//	             ── write ─ queue by due time ── read ──
//
// A TAP, and not a veth with a raw socket at its end, because the kernel gives a TAP's reader whole frames: cut to
// the MTU, with checksums, with their VLAN tags. A Hold has one direction of it.
type delayLine struct {
	ends  [2]*os.File
	hosts [2]*Host
	shape atomic.Pointer[Shape]
	once  sync.Once
	wg    sync.WaitGroup
}

// ShapedCable connects two hosts by a cable that delays, loses, reorders and duplicates. Every frame passes through
// this process: use it for function, not for throughput.
func (l *Lab) ShapedCable(a, b Plug, shape Shape) (*Cable, error) {
	c := newCable(&a, &b)
	hw, err := hardware(a, b)
	if err != nil {
		return nil, err
	}
	d := &delayLine{hosts: [2]*Host{a.On, b.On}}
	d.shape.Store(&shape)
	c.delay = d
	for i, p := range []Plug{a, b} {
		err := p.On.thread.call(func() (err error) {
			if d.ends[i], err = openTAP(p.Name); err != nil {
				return err
			}
			link, err := netlink.LinkByName(p.Name)
			if err != nil {
				return err
			}
			if hw[i] != nil {
				if err := netlink.LinkSetHardwareAddr(link, hw[i]); err != nil {
					return err
				}
			}
			return netlink.LinkSetMTU(link, p.MTU)
		})
		if err == nil {
			err = p.On.keep(d)
		}
		if err != nil {
			d.stop()
			return nil, fmt.Errorf("lay a cable from %s to %s: %w", c.A, c.B, err)
		}
	}
	d.wg.Go(func() { d.carry(d.ends[0], d.ends[1]) })
	d.wg.Go(func() { d.carry(d.ends[1], d.ends[0]) })
	return c.finish(a, b)
}

// SetShape changes what a shaped cable does, for the frames that enter it from now on.
func (c *Cable) SetShape(shape Shape) error {
	if c.delay == nil {
		return fmt.Errorf("the cable from %s to %s is not a shaped one", c.A, c.B)
	}
	c.delay.shape.Store(&shape)
	return nil
}

// openTAP makes a TAP in the calling thread's network. It goes when the file is closed.
func openTAP(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make TAP %q: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// stop ends the goroutines and removes both TAPs.
func (d *delayLine) stop() {
	d.once.Do(func() {
		for i, f := range d.ends {
			if f != nil {
				_ = f.Close()
			}
			d.hosts[i].release(d)
		}
	})
	d.wg.Wait()
}

// carry runs until an end is closed.
func (d *delayLine) carry(from, to *os.File) {
	var queue frameHeap
	buf := make([]byte, 1<<16)
	for serial := 0; ; serial++ {
		var wake time.Time // zero: no deadline
		if len(queue) > 0 {
			wake = queue[0].due
		}
		if err := from.SetReadDeadline(wake); err != nil {
			return
		}
		n, err := from.Read(buf)
		now := time.Now()
		switch {
		case err == nil:
			queue.admit(bytes.Clone(buf[:n]), now, serial, d.shape.Load())
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return
		}
		for len(queue) > 0 && !queue[0].due.After(now) {
			f, _ := heap.Pop(&queue).(frame)
			_, _ = to.Write(f.data) // EIO: the interface is down, as a cable's end may be
		}
	}
}

// frame is on its way. The serial keeps those in order that are due at once.
type frame struct {
	due    time.Time
	serial int
	data   []byte
}

// frameHeap is a heap of frames, that due first on top.
type frameHeap []frame

// admit draws the frame's fate.
func (q *frameHeap) admit(data []byte, now time.Time, serial int, s *Shape) {
	copies := 1
	if rand.Float64() < s.Loss {
		copies = 0
	} else if rand.Float64() < s.Duplicate {
		copies = 2
	}
	for range copies {
		due := now
		if rand.Float64() >= s.Reorder {
			due = now.Add(s.Delay)
			if s.Jitter > 0 {
				due = due.Add(rand.N(s.Jitter))
			}
		}
		if len(*q) < delayQueue {
			heap.Push(q, frame{due, serial, data})
		}
	}
}

func (q *frameHeap) Len() int { return len(*q) }
func (q *frameHeap) Less(i, j int) bool {
	a, b := (*q)[i], (*q)[j]
	if a.due.Equal(b.due) {
		return a.serial < b.serial
	}
	return a.due.Before(b.due)
}
func (q *frameHeap) Swap(i, j int) { (*q)[i], (*q)[j] = (*q)[j], (*q)[i] }
func (q *frameHeap) Push(x any) {
	f, _ := x.(frame)
	*q = append(*q, f)
}

func (q *frameHeap) Pop() any {
	last := len(*q) - 1
	f := (*q)[last]
	(*q)[last] = frame{}
	*q = (*q)[:last]
	return f
}
