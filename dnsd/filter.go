package dnsd

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// admitLoopback makes a socket see only packets that arrive on the interface lo of its network namespace, which is
// where all that a host sends to itself arrives, whatever address it uses.
//
// It stops a neighbour on the LAN or a member of the overlay from asking this server by sending to the TAP's address.
// On a TCP listener the filter runs before a SYN is looked at (tcp_filter in tcp_v4_rcv), and accepted sockets
// inherit it.
//
// SO_BINDTODEVICE with lo would not do: tried on Linux 6.18, the socket gets nothing at all, as the kernel takes a
// packet from the host to the TAP's address for one of the TAP; and everybody else gets RST or an ICMP error, which
// is an answer.
func admitLoopback(fd int) error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return fmt.Errorf("interface lo: %w", err)
	}
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtInterfaceIndex},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(lo.Index), SkipFalse: 1},
		bpf.RetConstant{Val: 1<<32 - 1}, // the whole packet
		bpf.RetConstant{Val: 0},         // none of it
	})
	if err != nil {
		return fmt.Errorf("assemble the socket filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(program))
	for i, ins := range program {
		filter[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	return os.NewSyscallError("attach the socket filter", err)
}

// bindEarly lets a socket bind an address that is not there yet: an IPv6 address is tentative for a second or two,
// until duplicate address detection is through (RFC 4862 section 5.4).
func bindEarly(fd int, ipv6 bool) error {
	level, option := unix.SOL_IP, unix.IP_FREEBIND
	if ipv6 {
		level, option = unix.SOL_IPV6, unix.IPV6_FREEBIND
	}
	return os.NewSyscallError("set freebind", unix.SetsockoptInt(fd, level, option, 1))
}
