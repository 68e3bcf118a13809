package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A message is what the kernel tells of an address, a route or a neighbour, in its own words:
//
//	struct ifaddrmsg: family, prefix length, flags, scope, index (4)                 linux/if_addr.h
//	struct rtmsg: family, lengths (2), TOS, table, protocol, scope, type, flags (4)  linux/rtnetlink.h
//	struct ndmsg: family, 3 bytes of nothing, index (4), state (2), flags, type      linux/neighbour.h
//	then attributes: length (2), type (2), value, padded to 4 bytes
//
// It is kept whole, so that what this program does not know of is put back with the rest.
type message []byte

const (
	addressHead = unix.SizeofIfAddrmsg
	routeHead   = unix.SizeofRtMsg
	ndHead      = unix.SizeofNdMsg
)

// rawSocket speaks of addresses and routes with the kernel of the namespace in which it was opened, from any thread.
type rawSocket struct{ handles map[int]*nl.SocketHandle }

func openRaw() (*rawSocket, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &rawSocket{map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}}, nil
}

func (r *rawSocket) close() { r.handles[unix.NETLINK_ROUTE].Close() }

func (r *rawSocket) request(kind, flags int, m message) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	req.Sockets = r.handles
	req.AddRawData(m)
	return req
}

// do asks for a change: RTM_NEWADDR and its kin, with NLM_F_CREATE and its kin.
func (r *rawSocket) do(kind, flags int, m message) error {
	_, err := r.request(kind, unix.NLM_F_ACK|flags, m).Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// addresses lists what a device has, in the kernel's order.
func (r *rawSocket) addresses(index int) ([]message, error) {
	list, err := r.request(unix.RTM_GETADDR, unix.NLM_F_DUMP, make(message, addressHead)).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []message
	for _, b := range list {
		if m := message(b); len(m) >= addressHead && int(binary.NativeEndian.Uint32(m[4:])) == index {
			out = append(out, m)
		}
	}
	return out, nil
}

// routes lists those by a device that do not come and go with its addresses, of all tables.
func (r *rawSocket) routes(index int) ([]message, error) {
	var out []message
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		ask := make(message, routeHead)
		ask[0] = family
		list, err := r.request(unix.RTM_GETROUTE, unix.NLM_F_DUMP, ask).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, b := range list {
			if m := message(b); len(m) >= routeHead && m.leads(index) {
				out = append(out, m)
			}
		}
	}
	return out, nil
}

// neighbours lists those at a device whose MAC somebody has written down. Others are asked for anew.
func (r *rawSocket) neighbours(index int) ([]message, error) {
	list, err := r.request(unix.RTM_GETNEIGH, unix.NLM_F_DUMP, make(message, ndHead)).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	var out []message
	for _, b := range list {
		m := message(b)
		if len(m) >= ndHead && int(binary.NativeEndian.Uint32(m[4:])) == index && binary.NativeEndian.Uint16(m[8:]) == unix.NUD_PERMANENT {
			out = append(out, m)
		}
	}
	return out, nil
}

// beside is the message about a neighbour as it is put onto another device, without what the kernel has counted.
func (m message) beside(to int) message {
	out := m.edited(ndHead, func(kind uint16, value []byte) []byte {
		if kind == unix.NDA_CACHEINFO || kind == unix.NDA_PROBES {
			return nil
		}
		return value
	})
	binary.NativeEndian.PutUint32(out[4:], uint32(to)) //nolint:gosec // an index is positive
	return out
}

// kindOf is an attribute's type without the flags that say how its value is made (NLA_TYPE_MASK, linux/netlink.h).
func kindOf(kind uint16) uint16 { return kind & 0x3fff }

// attributes lists what follows the head, each with its type and flags; of a message that is cut short, what is whole.
func (m message) attributes(head int, f func(kind uint16, value []byte)) {
	for rest := m[head:]; len(rest) >= 4; {
		n := int(binary.NativeEndian.Uint16(rest))
		if n < 4 || n > len(rest) {
			return
		}
		f(binary.NativeEndian.Uint16(rest[2:]), rest[4:n])
		rest = rest[min((n+3)&^3, len(rest)):]
	}
}

// attribute returns the value of one, nil if there is none.
func (m message) attribute(head int, kind uint16) (value []byte) {
	m.attributes(head, func(k uint16, v []byte) {
		if kindOf(k) == kind {
			value = v
		}
	})
	return value
}

// edited is the message with other values: f is given each attribute, and returns its value or another, or nil to leave it out.
func (m message) edited(head int, f func(kind uint16, value []byte) []byte) message {
	out := append(message{}, m[:head]...)
	m.attributes(head, func(kind uint16, value []byte) {
		if value = f(kindOf(kind), value); value != nil {
			out = out.with(kind, value)
		}
	})
	return out
}

// with is the message with a further attribute.
func (m message) with(kind uint16, value []byte) message {
	m = binary.NativeEndian.AppendUint16(m, uint16(4+len(value))) //nolint:gosec // the kernel's, or a few bytes of ours
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = append(m, value...)
	return append(m, make([]byte, -len(value)&3)...)
}

// address is what a message about an address is about. With a peer, that is the other one (IFA_LOCAL is ours).
func (m message) address() netip.Prefix {
	value := m.attribute(addressHead, unix.IFA_LOCAL)
	if value == nil {
		value = m.attribute(addressHead, unix.IFA_ADDRESS)
	}
	a, _ := netip.AddrFromSlice(value)
	return netip.PrefixFrom(a, int(m[1]))
}

// linkLocal reports whether an address is one that every device has of its own, in IPv6.
func (m message) linkLocal() bool { return m[0] == unix.AF_INET6 && m[3] == unix.RT_SCOPE_LINK }

// keptFlags are those of an address that are somebody's wish. The others say how it is now (linux/if_addr.h).
const keptFlags = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN

// at is the message about an address as it is put onto another device, after some time. The label that the kernel chooses by itself
// is the device's name. False if its life is over.
func (m message) at(from, to netlink.Link, after time.Duration, more uint32) (message, bool) {
	flags := uint32(m[2])
	if v := m.attribute(addressHead, unix.IFA_FLAGS); len(v) == 4 {
		flags = binary.NativeEndian.Uint32(v)
	}
	flags = flags&keptFlags | more
	alive := true
	out := m.edited(addressHead, func(kind uint16, value []byte) []byte {
		switch kind {
		case unix.IFA_FLAGS:
			return nil
		case unix.IFA_LABEL:
			if label := strings.TrimRight(string(value), "\x00"); label == from.Attrs().Name {
				return nil
			}
		case unix.IFA_CACHEINFO:
			value = append([]byte{}, value...)
			alive = age(value, after)
		}
		return value
	})
	out[2] = byte(flags)
	binary.NativeEndian.PutUint32(out[4:], uint32(to.Attrs().Index)) //nolint:gosec // an index is positive
	return out.with(unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, flags)), alive
}

// age takes time off the lifetimes of struct ifa_cacheinfo, preferred and valid, in seconds; all ones is for ever.
func age(value []byte, after time.Duration) (alive bool) {
	const forever = 1<<32 - 1
	past := uint32(max(after, 0) / time.Second) //nolint:gosec // since this boot
	for i := 0; i+4 <= len(value) && i < 8; i += 4 {
		left := binary.NativeEndian.Uint32(value[i:])
		if left != forever {
			left -= min(left, past)
		}
		binary.NativeEndian.PutUint32(value[i:], left)
	}
	return len(value) < 8 || binary.NativeEndian.Uint32(value[4:]) > 0
}

// leads reports whether a message about a route names the device, and is none that the kernel makes by itself with an address or a device.
func (m message) leads(index int) bool {
	table := uint32(m[4])
	if v := m.attribute(routeHead, unix.RTA_TABLE); len(v) == 4 {
		table = binary.NativeEndian.Uint32(v)
	}
	dst, _ := netip.AddrFromSlice(m.attribute(routeHead, unix.RTA_DST))
	if table == unix.RT_TABLE_LOCAL || binary.NativeEndian.Uint32(m[8:])&unix.RTM_F_CLONED != 0 || dst.Is6() && (dst.IsLinkLocalUnicast() || dst.IsMulticast()) {
		return false
	}
	found := false
	is := func(device []byte) { found = found || int(binary.NativeEndian.Uint32(device)) == index }
	if v := m.attribute(routeHead, unix.RTA_OIF); len(v) == 4 {
		is(v)
	}
	hops(m.attribute(routeHead, unix.RTA_MULTIPATH), is)
	return found
}

// hops shows the device of each struct rtnexthop: length (2), flags, hops, index (4), attributes.
func hops(value []byte, f func(device []byte)) {
	for len(value) >= unix.SizeofRtNexthop {
		f(value[4:8])
		n := int(binary.NativeEndian.Uint16(value))
		if n < unix.SizeofRtNexthop {
			return
		}
		value = value[min((n+3)&^3, len(value)):]
	}
}

// by is the message about a route as it is put onto another device.
func (m message) by(from, to int) message {
	// What is said of the present, such as RTNH_F_LINKDOWN, cannot be asked for.
	const keptFlags = unix.RTNH_F_ONLINK | unix.RTNH_F_PERVASIVE
	swap := func(device []byte) {
		if int(binary.NativeEndian.Uint32(device)) == from {
			binary.NativeEndian.PutUint32(device, uint32(to)) //nolint:gosec // an index is positive
		}
	}
	var expires uint32
	out := m.edited(routeHead, func(kind uint16, value []byte) []byte {
		value = append([]byte{}, value...)
		switch kind {
		case unix.RTA_OIF:
			swap(value)
		case unix.RTA_MULTIPATH:
			hops(value, swap)
		case unix.RTA_CACHEINFO: // struct rta_cacheinfo: the third is when it ends, in hundredths of a second
			if len(value) >= 12 {
				expires = binary.NativeEndian.Uint32(value[8:]) / 100
			}
			return nil
		}
		return value
	})
	binary.NativeEndian.PutUint32(out[8:], binary.NativeEndian.Uint32(m[8:])&keptFlags)
	if m[0] == unix.AF_INET6 && expires > 0 {
		out = out.with(unix.RTA_EXPIRES, binary.NativeEndian.AppendUint32(nil, expires))
	}
	return out
}

// nexthopID is RTA_NH_ID (linux/rtnetlink.h).
const nexthopID = 30

// indirect reports whether a route names a nexthop object, `ip nexthop`, which has its own device.
func (m message) indirect() bool { return m.attribute(routeHead, nexthopID) != nil }

// destination is where a route leads to, in words.
func (m message) destination() string {
	a, ok := netip.AddrFromSlice(m.attribute(routeHead, unix.RTA_DST))
	if !ok || m[1] == 0 {
		return "default"
	}
	return netip.PrefixFrom(a, int(m[1])).String()
}

// there reports whether an error says that all is as it was asked for.
func there(err error) bool { return errors.Is(err, unix.EEXIST) }

// gone reports whether it says that what shall go is not there.
func gone(err error) bool { return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EADDRNOTAVAIL) }
