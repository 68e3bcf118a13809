package bridge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/internal/lab"
)

// seen is a frame that came out somewhere, and what was left undone on it.
type seen struct {
	frame  []byte
	undone ether.Offload
}

// far is the other end of a NIC's cable: a packet socket that sends and receives frames as they are, super-frames too.
type far struct {
	fd    int
	index int
}

func newFar(t *testing.T, link *lab.Link) *far {
	t.Helper()
	return newFarOn(t, link.Host(), link.Name(), 1)
}

// newFarOn is a packet socket on a device, which sees what that sends, too, unless it ignores that.
func newFarOn(t *testing.T, h *lab.Host, name string, ignore int) *far {
	t.Helper()
	f := &far{}
	on(t, h, func() (err error) {
		if f.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(f.fd, unix.SIOCGIFINDEX, req); err != nil {
			return err
		}
		f.index = int(req.Uint32())
		return errors.Join(
			unix.SetsockoptInt(f.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
			unix.SetsockoptInt(f.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
			unix.SetsockoptInt(f.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, ignore),
			unix.SetsockoptTimeval(f.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200000}),
			unix.SetsockoptPacketMreq(f.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(f.index), Type: unix.PACKET_MR_PROMISC}),
			unix.Bind(f.fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: f.index}))
	})
	t.Cleanup(func() { _ = unix.Close(f.fd) })
	return f
}

func (f *far) send(t *testing.T, frame []byte, undone ether.Offload) {
	t.Helper()
	var head [vnetHeader]byte
	putVnet(head[:], untaggedFor(frame), shifted(undone, -tagsOf(frame)))
	moveVnet(head[:], tagsOf(frame))
	to := &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(frame[12:]), Ifindex: f.index, Halen: 6}
	if err := unix.Sendto(f.fd, append(head[:], frame...), 0, to); err != nil {
		t.Fatalf("send %d bytes: %v", len(frame), err)
	}
}

// tagsOf is how many bytes of tags a frame has.
func tagsOf(frame []byte) int {
	n := 0
	for len(frame) >= 16+n && ether.Type(binary.BigEndian.Uint16(frame[12+n:])).IsTag() {
		n += 4
	}
	return n
}

func untaggedFor(frame []byte) []byte {
	return slices.Concat(frame[:12], frame[12+tagsOf(frame):])
}

func shifted(o ether.Offload, by int) ether.Offload {
	if o.Checksum {
		o.Start = uint16(int(o.Start) + by)
	}
	return o
}

// receive returns the next frame; false if none comes.
func (f *far) receive(t *testing.T) (seen, bool) {
	t.Helper()
	buf, oob := make([]byte, MaxFrame), make([]byte, 256)
	n, on, _, _, err := unix.Recvmsg(f.fd, buf, oob, 0)
	if errors.Is(err, unix.EAGAIN) {
		return seen{}, false
	}
	if err != nil || n < vnetHeader+14 {
		t.Fatalf("receive: %d bytes, %v", n, err)
	}
	got := seen{buf[vnetHeader:n], parseVnet(buf)}
	messages, err := unix.ParseSocketControlMessage(oob[:on])
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		// struct tpacket_auxdata (linux/if_packet.h): status at 0, vlan_tci at 16, vlan_tpid at 18.
		if m.Header.Type != unix.PACKET_AUXDATA || binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		tag := ether.MakeTag(ether.Type(binary.NativeEndian.Uint16(m.Data[18:])), binary.NativeEndian.Uint16(m.Data[16:]))
		got.frame = slices.Concat(got.frame[:12], tag[:], got.frame[12:])
		got.undone = shifted(got.undone, 4)
	}
	return got, true
}

// patience is how long a test waits for a frame when no other comes.
const patience = 2 * time.Second

// sees waits for a frame.
func (f *far) sees(t *testing.T, want seen) error {
	t.Helper()
	var other []string
	for last := time.Now(); time.Since(last) < patience && len(other) < 1000; {
		got, ok := f.receive(t)
		if ok && bytes.Equal(got.frame, want.frame) && got.undone == want.undone {
			return nil
		}
		if ok {
			other, last = append(other, describe(got)), time.Now()
		}
	}
	return fmt.Errorf("not %s, but %q", describe(want), other)
}

func describe(s seen) string {
	return fmt.Sprintf("%d bytes %x %+v", len(s.frame), s.frame[:min(len(s.frame), 40)], s.undone)
}

// reader takes all frames that come out of a wire's queues.
type reader chan seen

func read(w *Wire) reader {
	r := make(reader, 1000)
	for _, q := range w.Queues() {
		go func() {
			buf := make([]byte, MaxFrame)
			for {
				frame, undone, err := q.Read(buf)
				if err != nil {
					return
				}
				r <- seen{bytes.Clone(frame), undone}
			}
		}()
	}
	return r
}

func (r reader) sees(want seen) error {
	var other []string
	for {
		select {
		case got := <-r:
			if bytes.Equal(got.frame, want.frame) && got.undone == want.undone {
				return nil
			}
			other = append(other, describe(got))
		case <-time.After(patience):
			return fmt.Errorf("not %s, but %q", describe(want), other)
		}
	}
}
