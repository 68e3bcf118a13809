package bridge

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/ether"
)

// What stands in front of every frame between the kernel and a TAP's queue is struct virtio_net_hdr (virtio 1.3 section
// 5.1.6), in the byte order of the machine:
//
//	 0       1          2            4          6            8             10
//	+-------+----------+------------+----------+------------+-------------+
//	| flags | gso_type |  hdr_len   | gso_size | csum_start | csum_offset |
//	+-------+----------+------------+----------+------------+-------------+
const (
	vnetNeedsChecksum = 1

	gsoNone = 0
	gsoTCP4 = 1
	gsoTCP6 = 4
	gsoECN  = 0x80 // with one of the others
)

// parseVnet reads the header. A kind of super-frame that was not asked for cannot come; if it does it is no TCP, and is
// refused for that.
func parseVnet(h []byte) ether.Offload {
	o := ether.Offload{
		Checksum: h[0]&vnetNeedsChecksum != 0,
		Start:    binary.NativeEndian.Uint16(h[6:]), Field: binary.NativeEndian.Uint16(h[8:]),
	}
	if h[1]&^gsoECN != gsoNone {
		o.Size = binary.NativeEndian.Uint16(h[4:])
	}
	return o
}

func putVnet(h, frame []byte, o ether.Offload) {
	clear(h)
	if !o.Checksum {
		return
	}
	h[0] = vnetNeedsChecksum
	binary.NativeEndian.PutUint16(h[6:], o.Start)
	binary.NativeEndian.PutUint16(h[8:], o.Field)
	if o.Size == 0 {
		return
	}
	h[1] = gsoTCP4
	if f, err := ether.Parse(frame); err == nil && f.Type == ether.TypeIPv6 {
		h[1] = gsoTCP6
	}
	binary.NativeEndian.PutUint16(h[2:], o.Start+uint16(frame[o.Start+12]>>4)*4) // the kernel reads so much into its first page
	binary.NativeEndian.PutUint16(h[4:], o.Size)
}

// setOffload lets the host leave checksums undone and hand over TCP super-frames (TUNSETOFFLOAD, linux/if_tun.h).
func setOffload(fd int) error {
	const checksum, tcp4, tcp6, ecn = unix.TUN_F_CSUM, unix.TUN_F_TSO4, unix.TUN_F_TSO6, unix.TUN_F_TSO_ECN
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETOFFLOAD, checksum|tcp4|tcp6|ecn); errno != 0 {
		return fmt.Errorf("TUNSETOFFLOAD: %w", errno)
	}
	return nil
}
