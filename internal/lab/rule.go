package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Direction is relative to a link's host.
type Direction int

// The directions of a Match.
const (
	Both Direction = iota // arriving and leaving
	In                    // arriving
	Out                   // leaving
)

// Match chooses packets on a link. All that is set must hold; the zero Match is every frame.
type Match struct {
	Direction  Direction
	EtherType  uint16  // for example unix.ETH_P_ARP
	Protocol   uint8   // of IPv4 and IPv6, for example unix.IPPROTO_UDP
	From, To   string  // address or prefix
	FromPort   uint16  // with Protocol
	ToPort     uint16  // with Protocol
	LongerThan int     // bytes of IP packet
	Chance     float64 // of each packet, above 0 and below 1; 0 is always
}

// Address matches what an address sends or is sent: dropped, it is a partition.
func Address(addr string) []Match { return []Match{{From: addr}, {To: addr}} }

// Rule is a Drop, Count or Hold in force.
type Rule struct {
	sides []side
}

// side is the part of a rule that one end of the cable holds: a base chain of its own, so that it can be removed
// alone, on the ingress hook, which every frame passes that comes off the cable, be it for a bridge or for IP.
type side struct {
	host  *Host
	table *nftables.Table
	chain *nftables.Chain
	count *nftables.CounterObj
	line  *delayLine // of a Hold
}

// Drop drops what one of the matches chooses, after it has left one end of the cable and before the other has it: a
// capture at the end that it reaches still sees it. From then on the cable carries real packets, ChecksumOffload if
// not NoOffload, so that a chance or a length is that of a packet on a wire.
func (l *Link) Drop(matches ...Match) (*Rule, error) {
	if err := l.carryRealPackets(); err != nil {
		return nil, err
	}
	return l.addRule(matches, func(at *Link, match [][]expr.Any) (side, error) {
		return at.addSide(match, drop(), nftables.ChainPriorityFilter)
	})
}

// Count counts what one of the matches chooses.
func (l *Link) Count(matches ...Match) (*Rule, error) {
	return l.addRule(matches, func(at *Link, match [][]expr.Any) (side, error) {
		return at.addSide(match, accept(), nftables.ChainPriorityFilter)
	})
}

// carryRealPackets ends full offload at both ends of the cable.
func (l *Link) carryRealPackets() error {
	for _, end := range []*Link{l, l.peer} {
		if Offload(end.level.Load()) != FullOffload {
			continue
		}
		if err := end.SetOffload(ChecksumOffload); err != nil {
			return err
		}
	}
	return nil
}

// addRule adds a side to each end of the cable that a match can find packets at.
func (l *Link) addRule(matches []Match, add func(at *Link, match [][]expr.Any) (side, error)) (*Rule, error) {
	r := &Rule{}
	for _, at := range []struct {
		link *Link
		not  Direction
	}{{l, Out}, {l.peer, In}} {
		var rules [][]expr.Any
		for _, m := range matches {
			if m.Direction == at.not {
				continue
			}
			match, err := m.exprs()
			if err != nil {
				return nil, errors.Join(err, r.Remove())
			}
			rules = append(rules, match)
		}
		if len(rules) == 0 {
			continue
		}
		s, err := add(at.link, rules)
		if err != nil {
			return nil, errors.Join(err, r.Remove())
		}
		r.sides = append(r.sides, s)
	}
	return r, nil
}

func (l *Link) addSide(rules [][]expr.Any, verdict []expr.Any, priority *nftables.ChainPriority) (side, error) {
	table := &nftables.Table{Name: "wire", Family: nftables.TableFamilyNetdev}
	name := fmt.Sprintf("rule%d", l.host.next())
	s := side{
		host: l.host, table: table,
		chain: &nftables.Chain{
			Name: name, Table: table, Type: nftables.ChainTypeFilter, Device: l.name,
			Hooknum: nftables.ChainHookIngress, Priority: priority,
		},
		count: &nftables.CounterObj{Table: table, Name: name},
	}
	err := l.host.thread.call(func() error {
		var nft nftables.Conn
		nft.AddTable(table)
		nft.AddChain(s.chain)
		nft.AddObj(s.count)
		for _, match := range rules {
			nft.AddRule(&nftables.Rule{Table: table, Chain: s.chain, Exprs: join(match, counted(name), verdict)})
		}
		return nft.Flush()
	})
	if err != nil {
		return side{}, fmt.Errorf("%s: add rule: %w", l, err)
	}
	return s, nil
}

// Packets returns how many packets the rule has chosen. On a cable with full offload, one of them may stand for many.
func (r *Rule) Packets() (uint64, error) {
	var sum uint64
	for _, s := range r.sides {
		packets, err := s.host.packets(s.table, s.count.Name)
		if err != nil {
			return 0, err
		}
		sum += packets
	}
	return sum, nil
}

// Remove ends the rule. It may be called again, and after the cable has gone.
func (r *Rule) Remove() error {
	var errs []error
	for _, s := range r.sides {
		err := s.host.thread.call(func() error {
			var nft nftables.Conn
			nft.DelChain(s.chain)
			nft.DeleteObject(s.count)
			return nft.Flush()
		})
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, ErrClosed) {
			errs = append(errs, fmt.Errorf("%s: remove rule: %w", s.host.name, err))
		}
		if s.line != nil {
			s.line.stop()
		}
	}
	r.sides = nil
	return errors.Join(errs...)
}

// exprs compiles the match.
func (m Match) exprs() ([]expr.Any, error) {
	var out []expr.Any
	if m.EtherType != 0 {
		out = join(out, isEtherType(m.EtherType))
	}
	for _, a := range []struct {
		text   string
		source bool
	}{{m.From, true}, {m.To, false}} {
		if a.text == "" {
			continue
		}
		prefix, err := parsePrefix(a.text)
		if err != nil {
			return nil, err
		}
		out = join(out, addressIn(prefix, a.source))
	}
	if m.Protocol != 0 {
		out = join(out, isProtocol(m.Protocol))
	} else if m.FromPort != 0 || m.ToPort != 0 {
		return nil, errors.New("match has a port but no protocol")
	}
	if m.FromPort != 0 {
		out = join(out, portIs(m.FromPort, true))
	}
	if m.ToPort != 0 {
		out = join(out, portIs(m.ToPort, false))
	}
	if m.LongerThan != 0 {
		out = join(out, longerThan(uint32(m.LongerThan)))
	}
	if m.Chance < 0 || m.Chance >= 1 {
		return nil, fmt.Errorf("match has a chance of %g", m.Chance)
	}
	if m.Chance != 0 {
		out = join(out, chance(m.Chance))
	}
	return out, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}
