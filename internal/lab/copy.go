package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"time"
)

// CopyFile copies a file of random bytes from one host to another, which has the address, with socat on both, and
// compares what came with what was sent by SHA-256. It returns how long the copying took.
func CopyFile(ctx context.Context, from, to *Host, addr string, size int64) (time.Duration, error) {
	source, err := from.newFile("source", "copy")
	if err != nil {
		return 0, err
	}
	defer func() { _ = source.Close() }()
	sent := sha256.New()
	random := rand.NewChaCha8([32]byte{1})
	if _, err := io.CopyN(io.MultiWriter(source, sent), random, size); err != nil {
		return 0, err
	}
	target, err := to.newFile("target", "copy")
	if err != nil {
		return 0, err
	}
	defer func() { _ = target.Close() }()

	port := strconv.Itoa(20000 + to.next())
	server, err := to.Start(ctx, "socat", "-d", "-d", "-u", "TCP-LISTEN:"+port+",reuseaddr,pf=ip"+family(addr), "OPEN:"+target.Name())
	if err != nil {
		return 0, err
	}
	defer func() { _ = server.Stop(time.Second) }() // it has ended if all went well
	if err := server.WaitLog(ctx, "listening on"); err != nil {
		return 0, err
	}
	start := time.Now()
	if _, err := from.Run(ctx, "socat", "-u", "OPEN:"+source.Name(), "TCP:"+net.JoinHostPort(addr, port)); err != nil {
		return 0, err
	}
	select {
	case <-server.Done():
	case <-ctx.Done():
		return 0, fmt.Errorf("copy from %s to %s: the end does not arrive: %w", from.name, to.name, ctx.Err())
	}
	took := time.Since(start)
	if err := server.Err(); err != nil {
		return took, err
	}
	if err := wantSum(target, size, sent.Sum(nil)); err != nil {
		return took, fmt.Errorf("copy from %s to %s: %w", from.name, to.name, err)
	}
	return took, nil
}

// wantSum returns an error unless a file has this size and this SHA-256.
func wantSum(file io.Reader, size int64, sum []byte) error {
	came := sha256.New()
	n, err := io.Copy(came, file)
	if err == nil && (n != size || !bytes.Equal(came.Sum(nil), sum)) {
		err = fmt.Errorf("%d bytes of SHA-256 %x came, want %d of %x", n, came.Sum(nil), size, sum)
	}
	return err
}

// family is 4 or 6.
func family(addr string) string {
	if ip := net.ParseIP(addr); ip != nil && ip.To4() == nil {
		return "6"
	}
	return "4"
}
