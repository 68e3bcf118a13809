package memnet

import (
	"net/netip"
	"sync"
	"time"
)

// Kind says how a NAT behaves (RFC 4787).
type Kind uint8

// The kinds of NAT. All of them filter by address and port: only who has been sent something may answer.
const (
	Preserving Kind = iota // endpoint-independent mapping that keeps the port when it is free (sections 4.1, 4.2.2)
	Symmetric              // address- and port-dependent mapping
	Blocking               // no UDP passes at all
)

// mappingLife is how long a mapping lasts without traffic (RFC 4787 section 4.3: at least two minutes).
const mappingLife = 2 * time.Minute

// NAT is a site's router with one public address.
type NAT struct {
	net  *Internet
	addr netip.Addr
	kind Kind

	mu    sync.Mutex
	hosts map[netip.Addr]*Host
	maps  map[flow]*mapping
	ports map[uint16]*mapping
	next  uint16
}

// flow finds a mapping: by the inside socket, and for a symmetric NAT by the destination too.
type flow struct {
	inside netip.AddrPort
	remote netip.AddrPort // zero unless symmetric
}

type mapping struct {
	flow flow
	port uint16
	open map[netip.AddrPort]time.Time // who has been sent something, and when
	used time.Time
}

// NAT adds a router with a public address.
func (n *Internet) NAT(addr string, kind Kind) *NAT {
	nat := &NAT{
		net: n, addr: netip.MustParseAddr(addr), kind: kind, hosts: make(map[netip.Addr]*Host),
		maps: make(map[flow]*mapping), ports: make(map[uint16]*mapping), next: 20000,
	}
	n.set(func() { n.hosts[nat.addr] = nat })
	return nat
}

// Host adds a machine behind the router.
func (n *NAT) Host(addr string) *Host {
	h := newHost(netip.MustParseAddr(addr), n.outbound)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[h.addr] = h
	return h
}

// Forget drops every mapping, as a router that restarts.
func (n *NAT) Forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.maps)
	clear(n.ports)
}

func (n *NAT) outbound(from, to netip.AddrPort, data []byte) {
	n.mu.Lock()
	if inside := n.hosts[to.Addr()]; inside != nil {
		n.mu.Unlock()
		data = append([]byte(nil), data...)
		time.AfterFunc(time.Millisecond/10, func() { inside.receive(from, to, data) })
		return
	}
	if n.kind == Blocking {
		n.mu.Unlock()
		return
	}
	m := n.mapLocked(from, to)
	port := m.port
	n.mu.Unlock()
	n.net.send(netip.AddrPortFrom(n.addr, port), to, data)
}

func (n *NAT) mapLocked(from, to netip.AddrPort) *mapping {
	f := flow{inside: from}
	if n.kind == Symmetric {
		f.remote = to
	}
	now := time.Now()
	m := n.maps[f]
	if m != nil && now.Sub(m.used) > mappingLife {
		delete(n.ports, m.port)
		m = nil
	}
	if m == nil {
		m = &mapping{flow: f, port: n.portLocked(from.Port()), open: make(map[netip.AddrPort]time.Time)}
		n.maps[f], n.ports[m.port] = m, m
	}
	m.used, m.open[to] = now, now
	return m
}

func (n *NAT) portLocked(want uint16) uint16 {
	if n.kind == Preserving && n.ports[want] == nil {
		return want
	}
	for {
		n.next += 7
		if n.ports[n.next] == nil {
			return n.next
		}
	}
}

func (n *NAT) receive(from, to netip.AddrPort, data []byte) {
	n.mu.Lock()
	m := n.ports[to.Port()]
	now := time.Now()
	if m == nil || now.Sub(m.used) > mappingLife || m.open[from].IsZero() || now.Sub(m.open[from]) > mappingLife {
		n.mu.Unlock()
		return
	}
	m.used, m.open[from] = now, now
	inside := n.hosts[m.flow.inside.Addr()]
	dst := m.flow.inside
	n.mu.Unlock()
	inside.receive(from, dst, data)
}
