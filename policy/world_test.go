package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/etherloom/etherloom/ether"
)

// This file says who there is in the model: nodes, gateways, and machines behind them.

// goldenParty is one of a world.
type goldenParty struct {
	mac      ether.MAC // none: every one that is nobody's
	addrs    []netip.Addr
	machine  bool
	gateways []Identity
	behind   []Identity
	world    goldenWorld
}

type goldenWorld map[Identity]*goldenParty

// String lists them.
func (w goldenWorld) String() string {
	s := ""
	for id := Identity(1); id <= everybody; id++ {
		s += fmt.Sprintf("%d: %v %v by %v behind %v; ", id, w[id].mac, w[id].addrs, w[id].gateways, w[id].behind)
	}
	return s
}

// uses: who has a MAC uses that; the others, what nobody has and one host can have.
func (p *goldenParty) uses(mac ether.MAC) bool {
	if p == nil || p.mac != (ether.MAC{}) {
		return p != nil && p.mac == mac
	}
	for _, o := range p.world {
		if o.mac == mac {
			return false
		}
	}
	return mac[0]&1 == 0 && mac != ether.MAC{}
}

func (p *goldenParty) unlisted() bool { return p.machine && len(p.addrs) == 0 }

// noHosts are the addresses that no host has as its own.
var (
	noHosts = []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/3"),
		netip.MustParsePrefix("::/128"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("ff00::/8"),
	}
	linkLocal = netip.MustParsePrefix("fe80::/10")
)

// has: who has addresses has those, and a machine, too, link-local ones of IPv6 that nobody has; one without may have all that
// nobody has.
func (p *goldenParty) has(mapped [16]byte) bool {
	a := netip.AddrFrom16(mapped).Unmap()
	local := p.machine && p.mac != (ether.MAC{}) && a == p.mac.LinkLocal()
	if slices.Contains(p.addrs, a) || local {
		return true
	}
	if !p.machine || len(p.addrs) > 0 && !linkLocal.Contains(a) {
		return false
	}
	if slices.ContainsFunc(noHosts, func(none netip.Prefix) bool { return none.Contains(a) }) {
		return false
	}
	for _, o := range p.world {
		if slices.Contains(o.addrs, a) || o.machine && o.mac != (ether.MAC{}) && a == o.mac.LinkLocal() {
			return false
		}
	}
	return true
}

// randomWorld has nodes 1 to 4. 5 and 6 are hosts with addresses or without, 7 and 8 attachments with one gateway or two, 9 is an
// attachment that has no hosts.
func randomWorld(r *rand.Rand) goldenWorld {
	w := goldenWorld{}
	for id := Identity(1); id <= everybody; id++ {
		p := &goldenParty{mac: ether.MAC{2, 5: byte(id)}, machine: id > people, world: w}
		if id <= people || id <= 6 && r.IntN(2) == 0 {
			p.addrs = []netip.Addr{netip.AddrFrom16(addressOf(id)).Unmap()}
		}
		if id > 6 {
			p.mac, p.behind = ether.MAC{}, []Identity{id}
			p.gateways = []Identity{Identity(1 + r.IntN(people))}
			if r.IntN(2) == 0 {
				p.gateways = append(p.gateways, 1+p.gateways[0]%people)
			}
		}
		w[id] = p
	}
	for id := Identity(5); id <= 6; id++ {
		p := w[id]
		p.behind = []Identity{7 + Identity(r.IntN(2))}
		if r.IntN(3) == 0 {
			p.behind = []Identity{7, 8}
		}
		for _, at := range p.behind {
			p.gateways = append(p.gateways, w[at].gateways...)
		}
		slices.Sort(p.gateways)
		p.gateways = slices.Compact(p.gateways)
	}
	return w
}

// stations is the world as policy is told of it.
func (w goldenWorld) stations() map[Identity]*Station {
	out := map[Identity]*Station{}
	for id, p := range w {
		if p.machine {
			out[id] = machine(p.mac, p.gateways, p.behind, p.addrs...)
		} else {
			out[id] = NewStation(p.mac, p.addrs, false)
		}
	}
	return out
}

// speaker is a node that speaks for one.
func (w goldenWorld) speaker(r *rand.Rand, id Identity) Identity {
	if g := w[id].gateways; len(g) > 0 {
		return g[r.IntN(len(g))]
	}
	return id
}

// goldenMAC is a MAC of one, or one that nobody has.
func goldenMAC(r *rand.Rand, id Identity) ether.MAC {
	if id > 6 {
		return ether.MAC{2, 4: 1, 5: byte(r.IntN(3))}
	}
	return ether.MAC{2, 5: byte(id)}
}
