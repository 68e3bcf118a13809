package vswitch

import (
	"net/netip"
	"sync"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// maxDenials is how many kinds of refused frames are told apart between two looks. A host that scans makes up more; it learns
// nothing by it, and costs no more memory.
const maxDenials = 1024

// Denial is what was refused alike: the frames of a scan from many source ports are one.
type Denial struct {
	Drop     Drop
	Source   policy.Identity // who is behind the port that the frame came from
	Receiver policy.Identity // for whom it was; 0: a group, or nobody
	Type     ether.Type
	Protocol ether.Protocol // 0 unless the frame is IP
	Src, Dst netip.Addr     // of IP and ARP; invalid otherwise
	DstPort  uint16         // of TCP and UDP
	VLANs    ether.VLANs    // inside a transparent segment
	Observed policy.GrantID // in mode observe, that would have let it begin; 0: none
	Group    bool           // it was for a group

	SrcMAC, DstMAC ether.MAC // of the first one
	Count          uint64    // frames
	First, Last    time.Time
}

// denialKey is by what denials are told apart.
type denialKey struct {
	drop             Drop
	protocol         ether.Protocol
	typ              ether.Type
	port             uint16
	source, receiver policy.Identity
	observed         policy.GrantID
	vlans            ether.VLANs
	src, dst         [16]byte
}

// denied counts refused frames. Only they pay for its lock.
type denied struct {
	mu     sync.Mutex
	of     map[denialKey]*Denial
	others uint64
}

// note counts a frame.
func (d *denied) note(l *layout, c *carriage, drop Drop) {
	k := keyOf(l, c, drop)
	d.mu.Lock()
	defer d.mu.Unlock()
	if one := d.of[k]; one != nil {
		one.Count++
		one.Last = c.Now
		return
	}
	if len(d.of) >= maxDenials {
		d.others++
		return
	}
	if d.of == nil {
		d.of = map[denialKey]*Denial{}
	}
	d.of[k] = &Denial{
		Drop: drop, Source: k.source, Receiver: k.receiver, Type: k.typ, Protocol: k.protocol, Src: addressOf(k.src), Dst: addressOf(k.dst),
		DstPort: k.port, VLANs: k.vlans, Observed: k.observed, Group: c.Frame.Dst.IsGroup(), SrcMAC: c.Frame.Src, DstMAC: c.Frame.Dst,
		Count: 1, First: c.Now, Last: c.Now,
	}
}

// take returns what was counted, and begins anew.
func (d *denied) take() (list []Denial, others uint64) {
	d.mu.Lock()
	of, others := d.of, d.others
	d.of, d.others = nil, 0
	d.mu.Unlock()
	for _, one := range of {
		list = append(list, *one)
	}
	return list, others
}

func keyOf(l *layout, c *carriage, drop Drop) denialKey {
	class := c.Class()
	k := denialKey{drop: drop, typ: c.Frame.Type, source: c.Source, receiver: l.receiver(c), observed: c.Observed, vlans: c.Frame.Inner}
	switch c.Frame.Type {
	case ether.TypeARP:
		if a, ok := ether.ParseARP(c.Frame.Payload); ok {
			k.src, k.dst = ether.Mapped(a.SenderIP), ether.Mapped(a.TargetIP)
		}
	case ether.TypeIPv4, ether.TypeIPv6:
		t := &class.Tuple
		k.src, k.dst, k.protocol = t.Src, t.Dst, t.Protocol
		if t.Protocol != ether.ProtoICMP { // whose identifier is no port
			k.port = t.DstPort
		}
	default: // has no addresses
	}
	return k
}

// receiver is for whom a frame is; 0 for a group, or if that is nobody.
func (l *layout) receiver(c *carriage) policy.Identity {
	switch {
	case c.behind != 0:
		return c.behind
	case c.in.Kind == Link && len(l.own) == 1:
		return l.self
	case c.Frame.Dst.IsGroup():
		return 0
	}
	return l.policy.Owner(c.Frame.Dst)
}

// addressOf is an address of a Tuple; invalid if there is none.
func addressOf(a [16]byte) netip.Addr {
	if a == [16]byte{} {
		return netip.Addr{}
	}
	return netip.AddrFrom16(a).Unmap()
}
