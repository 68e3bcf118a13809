package policy

import (
	"maps"
	"slices"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// addressesOf says whose each address is. Of two who may both use one, it is the one with the lower number's.
func addressesOf(stations map[Identity]*Station) map[[16]byte]Identity {
	out := make(map[[16]byte]Identity, 2*len(stations))
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(stations))) {
		for _, a := range stations[id].v6 {
			out[a] = id
		}
		for _, a := range stations[id].v4 {
			out[ether.Mapped(a)] = id
		}
	}
	return out
}

// Seek says what becomes of a host's question who has an address; IPv4 is mapped. It is for whom the asker's own node answers; 0
// with Pass lets the question go on, to be judged for each receiver; otherwise it goes nowhere, and that is why.
func (v *View) Seek(asker Identity, target [16]byte, now time.Time) (Identity, Verdict) {
	if v.void(now) {
		return 0, PolicyExpired
	}
	owner := v.taken.addresses[target]
	if owner == asker {
		// It announces its own address, or asks whether somebody else has it (RFC 5227 section 2.1, RFC 4862 section 5.4): to
		// answer would take the address from its owner.
		return 0, Pass
	}
	if owner != 0 {
		switch v.Resolves(asker, owner, now) {
		case OnWire:
			return 0, Pass
		case Locally:
			return owner, Pass
		default:
			return 0, UnknownAddress
		}
	}
	// An address of which nothing is known: a member's segment may know more than the policy does, and so may machines.
	if v.enforced.members[asker].alive(now) || v.asksMachines(asker, now) {
		return 0, Pass
	}
	return 0, UnknownAddress
}

// askables are the machines whose addresses nobody has listed, by who may ask them for those because of a grant to nodes. Otherwise whoever
// asks for what nobody has would have all machines of the segment looked at, each time.
func (v *View) askables() map[Identity][]Identity {
	out := map[Identity][]Identity{}
	for p := range v.enforced.pairs {
		if v.isUnlisted(p.receiver) {
			out[p.source] = append(out[p.source], p.receiver)
		}
		if v.isUnlisted(p.source) {
			out[p.receiver] = append(out[p.receiver], p.source)
		}
	}
	return out
}

// asksMachines reports whether an asker, who is no member, may have to do with a machine whose addresses nobody has listed.
func (v *View) asksMachines(asker Identity, now time.Time) bool {
	for _, id := range v.askable[asker] {
		if v.Resolves(asker, id, now) == OnWire {
			return true
		}
	}
	return false
}
