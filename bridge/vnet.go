package bridge

import (
	"encoding/binary"

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
	gsoUDP  = 5    // UDP_L4: datagrams, and not the fragments of one
	gsoECN  = 0x80 // with one of TCP's
)

// parseVnet reads the header. A kind of super-frame that was not asked for cannot come; if it does it is described as what
// ether.Settle refuses: a size, and no checksum.
func parseVnet(h []byte) ether.Offload {
	o := ether.Offload{
		Checksum: h[0]&vnetNeedsChecksum != 0,
		Start:    binary.NativeEndian.Uint16(h[6:]), Field: binary.NativeEndian.Uint16(h[8:]),
	}
	switch kind := h[1] &^ gsoECN; {
	case kind == gsoNone:
		return o
	case kind == gsoUDP && o.UDP(), (kind == gsoTCP4 || kind == gsoTCP6) && o.Checksum && !o.UDP():
		if o.Size = binary.NativeEndian.Uint16(h[4:]); o.Size > 0 {
			return o
		}
	}
	return ether.Offload{Size: 1}
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
	kind, head := byte(gsoUDP), uint16(8)
	if !o.UDP() {
		kind, head = gsoTCP4, uint16(frame[o.Start+12]>>4)*4
		if f, err := ether.ParseInside(frame); err == nil && f.Type == ether.TypeIPv6 {
			kind = gsoTCP6
		}
	}
	h[1] = kind
	binary.NativeEndian.PutUint16(h[2:], o.Start+head) // the kernel reads so much into its first page
	binary.NativeEndian.PutUint16(h[4:], o.Size)
}

// moveVnet makes the header that of a frame in which something in front of all that it speaks of has become longer by so many bytes.
func moveVnet(h []byte, by int) {
	if h[0]&vnetNeedsChecksum == 0 {
		return
	}
	for _, field := range []int{2, 6} { // hdr_len and csum_start
		if v := binary.NativeEndian.Uint16(h[field:]); v != 0 {
			binary.NativeEndian.PutUint16(h[field:], uint16(int(v)+by))
		}
	}
}

// setOffload lets the host leave checksums undone and hand over super-frames (TUNSETOFFLOAD, linux/if_tun.h), and returns
// what the kernel has granted.
func setOffload(fd int) ether.Offloads {
	return grant(func(flags uintptr) bool {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETOFFLOAD, flags)
		return errno == 0
	})
}

// grant asks for everything, then for less and less. The kernel refuses a request with a flag that it does not know as a
// whole: those of UDP came with Linux 6.2, and it takes them for both IP versions or none.
func grant(ask func(flags uintptr) bool) ether.Offloads {
	const (
		checksum = unix.TUN_F_CSUM
		tso      = unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
		uso      = unix.TUN_F_USO4 | unix.TUN_F_USO6
	)
	switch {
	case ask(checksum | tso | uso):
		return ether.Offloads{Checksum: true, TSO: true, USO: true}
	case ask(checksum | tso):
		return ether.Offloads{Checksum: true, TSO: true}
	case ask(checksum):
		return ether.Offloads{Checksum: true}
	default:
		return ether.Offloads{}
	}
}
