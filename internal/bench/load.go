package bench

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// settle is how long the last datagrams may be under way.
const settle = 200 * time.Millisecond

// received is what a receiver has counted.
type received struct {
	count int
	took  time.Duration
	err   error
}

// failed says why the count means nothing; nil if it does mean something.
func (r received) failed(ctx context.Context) error {
	if r.err == nil && r.count == 0 {
		return errors.New("nothing arrived")
	}
	return errors.Join(ctx.Err(), r.err)
}

// stream sends over conn for a while, closes it, and returns the Mbit/s with which l has received it.
func stream(ctx context.Context, l net.Listener, conn net.Conn, each time.Duration) (float64, error) {
	defer closing(ctx, l, conn)()
	got := make(chan received, 1)
	go func() { got <- receiveStream(l) }()
	block := make([]byte, 1<<17)
	for end := time.Now().Add(each); time.Now().Before(end); {
		if _, err := conn.Write(block); err != nil {
			return 0, err
		}
	}
	if err := conn.Close(); err != nil {
		return 0, err
	}
	r := <-got
	if err := r.failed(ctx); err != nil {
		return 0, err
	}
	return per(float64(r.count)*8/1e6, r.took), nil
}

// receiveStream counts the bytes of one connection.
func receiveStream(l net.Listener) (r received) {
	conn, err := l.Accept()
	if err != nil {
		return received{err: err}
	}
	defer func() { _ = conn.Close() }()
	begin, buf := time.Now(), make([]byte, 1<<17)
	for r.err == nil {
		var n int
		n, r.err = conn.Read(buf)
		r.count += n
	}
	if r.err == io.EOF { //nolint:errorlint // Read returns it bare
		r.err = nil
	}
	r.took = time.Since(begin)
	return r
}

// datagrams sends as many datagrams of 64 bytes as it can for a while, and returns how many of them arrived each second.
func datagrams(ctx context.Context, in net.PacketConn, out net.Conn, each time.Duration) (float64, error) {
	defer closing(ctx, in, out)()
	if u, ok := in.(*net.UDPConn); ok {
		_ = u.SetReadBuffer(4 << 20) // what the system allows of it is enough
	}
	got := make(chan received, 1)
	go func() { got <- receiveDatagrams(in) }()
	payload := make([]byte, 64)
	begin := time.Now()
	for time.Since(begin) < each {
		if _, err := out.Write(payload); err != nil {
			return 0, err
		}
	}
	took := time.Since(begin)
	if err := in.SetReadDeadline(time.Now().Add(settle)); err != nil {
		return 0, err
	}
	r := <-got
	if err := r.failed(ctx); err != nil {
		return 0, err
	}
	return per(float64(r.count), took), nil
}

// receiveDatagrams counts datagrams until its time is over.
func receiveDatagrams(in net.PacketConn) (r received) {
	buf := make([]byte, 1<<16)
	for {
		if _, _, err := in.ReadFrom(buf); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				r.err = err
			}
			return r
		}
		r.count++
	}
}

// closing closes everything when ctx ends, so that nothing waits, and when what it returns is called.
func closing(ctx context.Context, list ...io.Closer) (closeNow func()) {
	end := func() {
		for _, c := range list {
			_ = c.Close()
		}
	}
	stop := context.AfterFunc(ctx, end)
	return func() {
		stop()
		end()
	}
}
