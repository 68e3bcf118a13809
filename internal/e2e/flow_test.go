package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
)

const (
	flowBlock = 64 << 10         // bytes that are sent, and compared, at a time
	flowGrace = 15 * time.Second // for what is under way when the sender stops
)

// flow is a TCP connection that carries bytes which the receiver knows beforehand, so that one that is lost, doubled or
// changed is found.
type flow struct {
	name string
	seed [32]byte
	from *net.TCPConn
	to   *net.TCPConn
	sent int64 // bytes; once the sender has ended
	got  atomic.Int64
	ends chan error // of sender and receiver
}

// flow opens a connection from one host to an address of another, which sends at a rate, in bits a second, until ctx
// ends or it has sent so many bytes; 0 is without bound.
func (r *rig) flow(ctx context.Context, from, to *lab.Host, addr string, rate float64, total int64) *flow {
	r.Helper()
	ln, err := to.Listen(ctx, "tcp", net.JoinHostPort(addr, "0"))
	r.ok(err)
	defer ln.Close()
	dial, cancel := context.WithTimeout(ctx, flowGrace)
	defer cancel()
	sender, err := from.Dial(dial, "tcp", ln.Addr().String())
	r.ok(err)
	receiver, err := ln.Accept()
	r.ok(err)
	f := &flow{
		name: from.Name() + " to " + to.Name(), from: sender.(*net.TCPConn), to: receiver.(*net.TCPConn),
		ends: make(chan error, 2),
	}
	for i := range f.seed {
		f.seed[i] = byte(rand.Uint32())
	}
	context.AfterFunc(ctx, func() {
		_ = f.from.SetDeadline(time.Now().Add(flowGrace))
		_ = f.to.SetDeadline(time.Now().Add(flowGrace))
	})
	go func() { f.end(f.from, f.send(ctx, rate, total)) }()
	go func() { f.end(f.to, f.receive()) }()
	return f
}

// end reports how one side has ended. If that was an error the other side ends, too.
func (f *flow) end(side *net.TCPConn, err error) {
	if err != nil {
		_ = side.Close()
	}
	f.ends <- err
}

func (f *flow) send(ctx context.Context, rate float64, total int64) error {
	source, block := rand.NewChaCha8(f.seed), make([]byte, flowBlock)
	for start := time.Now(); ctx.Err() == nil && (total == 0 || f.sent < total); {
		if rate > 0 {
			due := start.Add(time.Duration(float64(f.sent*8) / rate * float64(time.Second)))
			time.Sleep(time.Until(due))
		}
		_, _ = source.Read(block)
		n, err := f.from.Write(block)
		f.sent += int64(n)
		if err != nil {
			return fmt.Errorf("%s, sender, after %d bytes: %w", f.name, f.sent, err)
		}
	}
	return f.from.CloseWrite()
}

func (f *flow) receive() error {
	source, block, want := rand.NewChaCha8(f.seed), make([]byte, flowBlock), make([]byte, flowBlock)
	for {
		n, err := f.to.Read(block)
		_, _ = source.Read(want[:n])
		if !bytes.Equal(block[:n], want[:n]) {
			return fmt.Errorf("%s: the %d bytes after %d are not what was sent", f.name, n, f.got.Load())
		}
		f.got.Add(int64(n))
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%s, receiver, after %d bytes: %w", f.name, f.got.Load(), err)
		}
	}
}

// wait waits for the end of the flow. All that was sent must have arrived.
func (f *flow) wait() error {
	defer f.from.Close()
	defer f.to.Close()
	if err := errors.Join(<-f.ends, <-f.ends); err != nil {
		return err
	}
	if f.got.Load() != f.sent {
		return fmt.Errorf("%s: %d bytes arrived of %d", f.name, f.got.Load(), f.sent)
	}
	return nil
}

// arrived adds up what several flows have received.
func arrived(flows []*flow) (sum int64) {
	for _, f := range flows {
		sum += f.got.Load()
	}
	return sum
}
