package lab

import (
	"fmt"
	"strconv"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Guard is a kind of site router, as hole punching sees it.
type Guard int

// The kinds of router. All of them let the inside speak first and drop what comes in from outside and answers
// nothing. The NATs translate IPv4 only; IPv6 passes through the same firewall untranslated.
const (
	// Firewall translates nothing.
	Firewall Guard = iota
	// PortPreserving is a NAT that keeps the source port wherever it is free: one mapping for all destinations.
	PortPreserving
	// Symmetric is a NAT that draws a new source port for every destination.
	Symmetric
	// AcceptingInput is PortPreserving, except that the router takes what is sent to its own outside address. So an
	// unsolicited packet makes a conntrack entry, which occupies the port that the mapping would have kept: an
	// inside host that sends after the other side's first packet arrived gets another port than it announced.
	AcceptingInput
)

const (
	siteTable      = "site"
	refusedCounter = "refused"
)

// Protect makes the router guard what is behind it against what is in front of its outside link. Called again, it
// replaces the kind; the mappings that exist stay until FlushConntrack.
func (h *Host) Protect(outside *Link, kind Guard) error {
	if outside.host != h {
		return fmt.Errorf("%s is no link of %s", outside, h.name)
	}
	return h.thread.call(func() error {
		var nft nftables.Conn
		table := &nftables.Table{Name: siteTable, Family: nftables.TableFamilyINet}
		nft.AddTable(table) // so that there is one to delete
		nft.DelTable(table)
		nft.AddTable(table)
		nft.AddObj(&nftables.CounterObj{Table: table, Name: refusedCounter})
		input, forward := filterChain(&nft, table, "input", nftables.ChainHookInput),
			filterChain(&nft, table, "forward", nftables.ChainHookForward)
		from := interfaceIs(expr.MetaKeyIIFNAME, outside.name)
		nft.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: join(from, isReply(), accept())})
		nft.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: join(from, counted(refusedCounter), drop())})
		if kind != AcceptingInput {
			nft.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: join(from, isReply(), accept())})
			nft.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: join(from, isNeighbourDiscovery(), accept())})
			nft.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: join(from, counted(refusedCounter), drop())})
		}
		if kind != Firewall {
			nat := nft.AddChain(&nftables.Chain{
				Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
				Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
			})
			nft.AddRule(&nftables.Rule{Table: table, Chain: nat, Exprs: join(
				interfaceIs(expr.MetaKeyOIFNAME, outside.name), isFamily(unix.NFPROTO_IPV4),
				[]expr.Any{&expr.Masq{FullyRandom: kind == Symmetric}},
			)})
		}
		if err := nft.Flush(); err != nil {
			return fmt.Errorf("%s: load rules: %w", h.name, err)
		}
		return nil
	})
}

// Refused returns how many packets from outside Protect has dropped since it was last called.
func (h *Host) Refused() (uint64, error) {
	return h.packets(&nftables.Table{Name: siteTable, Family: nftables.TableFamilyINet}, refusedCounter)
}

// SetUDPTimeout sets how long the router keeps a mapping, or the memory of a flow, without traffic: single for flows
// answered never or just begun, stream for flows that went both ways for two seconds (the kernel's defaults are 30 and
// 120 s). Whole seconds, at least one. Call it after Protect.
func (h *Host) SetUDPTimeout(single, stream time.Duration) error {
	const name = "net.netfilter.nf_conntrack_udp_timeout"
	return h.thread.call(func() error {
		for suffix, d := range map[string]time.Duration{"": single, "_stream": stream} {
			if d < time.Second || d%time.Second != 0 {
				return fmt.Errorf("UDP timeout %s is not whole seconds", d)
			}
			if err := writeSysctl(name+suffix, strconv.Itoa(int(d/time.Second))); err != nil {
				return err
			}
		}
		return nil
	})
}

// FlushConntrack makes the router forget all flows and mappings, as a restart would.
func (h *Host) FlushConntrack() error {
	return h.thread.call(func() error {
		if err := netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
			return fmt.Errorf("%s: flush conntrack: %w", h.name, err)
		}
		return nil
	})
}

func filterChain(nft *nftables.Conn, table *nftables.Table, name string, hook *nftables.ChainHook) *nftables.Chain {
	return nft.AddChain(&nftables.Chain{
		Name: name, Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityFilter,
	})
}

// packets reads a named counter of the host.
func (h *Host) packets(table *nftables.Table, name string) (packets uint64, err error) {
	err = h.thread.call(func() error {
		var nft nftables.Conn
		object, err := nft.GetObject(&nftables.CounterObj{Table: table, Name: name})
		if err != nil {
			return fmt.Errorf("%s: read counter: %w", h.name, err)
		}
		counter, ok := object.(*nftables.CounterObj)
		if !ok {
			return fmt.Errorf("%s: counter is a %T", h.name, object)
		}
		packets = counter.Packets
		return nil
	})
	return packets, err
}
