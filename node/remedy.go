package node

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/reading"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// fixes says what would let the frame pass that drop has stopped on its way to receiver.
func (q *question) fixes(drop vswitch.Drop, receiver party) []Fix {
	switch drop {
	case vswitch.Drop(policy.NoGrant), vswitch.Drop(policy.GrantExpired):
		return q.grantFixes(q.from, receiver)
	case vswitch.Drop(policy.NotMember):
		return q.grantFixes(receiver, receiver)
	case vswitch.Drop(policy.NotAllowed):
		return q.allowFixes(receiver)
	case vswitch.Drop(policy.UnknownAddress):
		if v := q.on.view.Between(q.from.id, receiver.id, q.now); receiver.id != 0 && v != policy.Pass {
			return q.fixes(vswitch.Drop(v), receiver)
		}
		return []Fix{{Text: "ask for an address of a node that this one has a grant to: `etherloom names` shows them; somebody else's is not told"}}
	case vswitch.Drop(policy.WrongGrant):
		if grant := q.honest(receiver.id); grant != 0 {
			return []Fix{{Text: fmt.Sprintf("%s holds grant %d, which the frame should name", q.from.name, grant)}}
		}
		return []Fix{q.grantFix(q.from)}
	case vswitch.Drop(policy.SourceMAC):
		return []Fix{q.macFix(q.from)}
	case vswitch.Drop(policy.ARPSender), vswitch.Drop(policy.NDSender), vswitch.Drop(policy.IPSource):
		return q.addressFixes(q.from)
	default:
		if f, ok := q.plainFix(drop); ok {
			return []Fix{f}
		}
		return q.guardFixes(drop, q.from)
	}
}

// plainFix is for what needs no look at the parties.
func (q *question) plainFix(drop vswitch.Drop) (Fix, bool) {
	segment := firstOr(q.on.name, "SEGMENT")
	switch drop {
	case vswitch.Drop(policy.UnknownGrant):
		return Fix{Text: "sender and receiver are told different things of the policy, or the grant is gone: compare the policy's version in " +
			"`etherloom status` on both; `etherloom grant list` shows an administrator what there is"}, true
	case vswitch.Drop(policy.NoStation):
		if q.from.machine {
			return Fix{Text: "the controllers have not signed yet what " + q.from.name + " may use: `etherloom host list` and `etherloom attachment list` show an administrator what there is"}, true
		}
		return Fix{"give " + q.from.name + " a place on the segment", fmt.Sprintf("etherloom node address %s --segment %s --mode auto", q.from.name, segment)}, true
	case vswitch.Drop(policy.PolicyExpired):
		return Fix{Text: "a controller must be reached, which renews the policy: `etherloom status` says why none is"}, true
	case vswitch.Drop(policy.StaysHere):
		return Fix{Text: "nothing is wrong: each of the two nodes answers its own host, so no such frame is needed on the way"}, true
	case vswitch.Drop(policy.BadHeader), vswitch.Drop(policy.Undetermined), vswitch.Drop(policy.BadFragment), vswitch.DropShort, vswitch.DropPartialTag,
		vswitch.DropTagDepth, vswitch.DropTagKind:
		return Fix{Text: "the frame itself is at fault: no grant or setting lets such a frame pass"}, true
	case vswitch.DropReserved, vswitch.DropSourceAddress:
		return Fix{Text: "no bridge forwards such a frame, and no grant or setting changes that"}, true
	case vswitch.DropVLAN:
		return Fix{Text: "send without a VLAN tag: each VLAN needs a segment of its own, but on one that is made with --transparent", Command: "etherloom segment add NAME"}, true
	case vswitch.DropHairpin:
		return Fix{Text: "the destination is where the frame comes from, so it has it already; `etherloom fdb` shows where addresses were seen"}, true
	case vswitch.Drop(policy.PrivateVLAN):
		return Fix{
			"no grant changes that, for the attachments are isolated, or of different communities (`etherloom attachment list`): take one out of that",
			"etherloom attachment set NODE/PORT --promiscuous",
		}, true
	case vswitch.DropNoReceiver:
		return Fix{
			"nobody else is on the segment whom the frame could go to, as far as this node is told; let somebody use it",
			"etherloom grant add --from node:NAME --to segment:" + segment,
		}, true
	default:
		return Fix{}, false
	}
}

// grantFixes let a frame pass for which a grant is missing: for want of a member's, or where machines are concerned, of a narrow one.
func (q *question) grantFixes(member, receiver party) []Fix {
	if q.from.machine || receiver.machine {
		return q.narrowFixes(receiver)
	}
	return []Fix{q.grantFix(member), conditionFix(member)}
}

// grantFix lets somebody use the segment.
func (q *question) grantFix(p party) Fix {
	name := p.name
	if p.id == 0 && identity.CheckHostName(name) != nil {
		name = "NAME"
	}
	segment := firstOr(q.on.name, "SEGMENT")
	text := "let " + name + " use segment " + segment
	if name == "NAME" {
		text = "let the machine that has it use segment " + segment + ": NAME is what it is called (`etherloom node list`)"
	} else if segment == "SEGMENT" {
		text = "let " + name + " use a segment (`etherloom segment list`)"
	}
	return Fix{text, "etherloom grant add --from node:" + name + " --to segment:" + segment}
}

// allowFixes names the narrowest grant that would let the frame pass.
func (q *question) allowFixes(receiver party) []Fix {
	f, err := ether.ParseInside(q.frame)
	if err != nil {
		return nil
	}
	term, ok := policy.TermOf(&f)
	if !ok {
		return []Fix{{Text: "what this is cannot be told from the frame, so only a grant of everything to the segment lets it pass"}}
	}
	return []Fix{{
		"let " + q.from.name + " send " + term.String() + " to " + receiver.name + ", too",
		q.grantCommand(receiver, term.String()),
	}}
}

// grantCommand lets the sender begin something towards a receiver, and nothing else. A machine is on one segment, so that need not be said.
func (q *question) grantCommand(receiver party, allow string) string {
	command := "etherloom grant add --from " + q.from.selector() + " --to " + receiver.selector()
	if !q.from.machine && !receiver.machine {
		command += " --segment " + firstOr(q.on.name, "SEGMENT")
	}
	if allow != "" {
		command += " --allow " + allow
	}
	return command
}

// allowed is what a grant would have to allow for the question's frame; "" if that cannot be told.
func (q *question) allowed() string {
	if q.ask.Kind == "tcp" || q.ask.Kind == "udp" {
		return fmt.Sprintf("%s:%d", q.ask.Kind, q.ask.Port)
	}
	if q.ask.Kind != "" {
		return "icmp" // ARP passes with whatever is granted
	}
	f, err := ether.ParseInside(q.frame)
	if err != nil || f.Type == ether.TypeARP {
		return ""
	}
	if term, ok := policy.TermOf(&f); ok {
		return term.String()
	}
	return ""
}

// narrowFixes let a sender reach a machine, or a machine reach somebody, and nothing else of the segment.
func (q *question) narrowFixes(receiver party) []Fix {
	if receiver.id == 0 {
		return []Fix{{Text: q.from.name + " has no grant to anybody who may have this address: `etherloom names` shows whom this node knows, `etherloom grant list` " +
			"an administrator what there is"}}
	}
	out := []Fix{{"let " + q.from.name + " reach " + receiver.name, q.grantCommand(receiver, q.allowed())}}
	if !q.from.machine {
		out = append(out, conditionFix(q.from))
	}
	return out
}

// isGrants reports whether a frame was dropped for want of a grant.
func (q *question) isGrants(drop vswitch.Drop) bool {
	return slices.Contains([]vswitch.Drop{
		vswitch.Drop(policy.NoGrant), vswitch.Drop(policy.GrantExpired), vswitch.Drop(policy.NotMember), vswitch.Drop(policy.UnknownAddress), vswitch.DropNoReceiver,
	}, drop)
}

// strangerFixes says how to find out who somebody is of whom this node is told nothing, and what lets the two meet then.
func (q *question) strangerFixes(p party) []Fix {
	asked := p
	if asked.addr.IsValid() || asked.mac != (ether.MAC{}) {
		asked.name = "NAME"
	}
	out := []Fix{{
		"nodes and machines are told only of those whom a grant lets them meet: an administrator sees who there is, and what " + p.name + " is (also `etherloom host list`)",
		"etherloom node list",
	}}
	for _, kind := range []string{"node", "host", "attachment"} {
		if p.absent != kind && (p.absent != "" || kind == "attachment") {
			continue
		}
		meant := asked
		meant.name = kind + ":" + asked.name
		from, to := q.from.selector(), meant.name
		if q.from.id == 0 && !q.from.addr.IsValid() {
			from, to = meant.name, q.to.selector()
		}
		command := "etherloom grant add --from " + from + " --to " + to
		if kind == "node" {
			command += " --segment " + firstOr(q.on.name, "SEGMENT")
		}
		if allow := q.allowed(); allow != "" {
			command += " --allow " + allow
		}
		out = append(out, Fix{"if it is " + map[string]string{"node": "a node", "host": "a machine behind a gateway", "attachment": "an attachment"}[kind], command})
	}
	return out
}

// conditionFix reminds of grants that are there and not held. Nodes are told of no conditions.
func conditionFix(p party) Fix {
	return Fix{
		"or, if there is a grant already, meet its condition: `etherloom posture` on " + p.name + " shows what is judged, and an administrator sees " +
			"who holds which grant",
		"etherloom grant list",
	}
}

// macFix says from which address the source may send.
func (q *question) macFix(p party) Fix {
	if p.id == q.d.self() && q.on.here != nil && q.on.here.local != nil {
		return Fix{
			fmt.Sprintf("%s sends from %s alone on segment %s; what is bridged or put behind it cannot send, and if the MAC of the TAP was changed, set it back",
				p.name, p.mac, q.on.name),
			fmt.Sprintf("ip link set dev %s address %s", q.on.here.local.Name, p.mac),
		}
	}
	if p.unnamed() {
		return Fix{Text: fmt.Sprintf("this MAC is somebody else's, so nobody behind %s whom nobody named may use it: `etherloom fdb` shows where it was seen", p.name)}
	}
	return Fix{Text: fmt.Sprintf("%s sends from %s alone on segment %s", p.name, p.mac, q.on.name)}
}

// addressFixes says which addresses the source may use, and how it comes by the one that the frame claims.
func (q *question) addressFixes(p party) []Fix {
	var list []string
	for _, a := range p.addresses() {
		list = append(list, a.String())
	}
	text := fmt.Sprintf("%s has no IP address on segment %s (address mode %s)", p.name, q.on.name, modeName(p.station.GetMode()))
	if len(list) > 0 {
		text = fmt.Sprintf("%s may use %s, from %s alone: send from one of these", p.name, strings.Join(list, ", "), p.mac)
	}
	out := []Fix{{Text: text}}
	claimed := claimedBy(q.frame)
	if p.machine {
		return []Fix{q.machineAddressFix(p)}
	}
	switch {
	case !claimed.IsValid() || claimed.IsMulticast() || claimed.IsLinkLocalUnicast() || slices.Contains(p.addresses(), claimed):
		return out
	case claimed.IsUnspecified():
		if claimed.Is4() && p.station.GetMode() != controlv1.AddressMode_ADDRESS_MODE_DHCP {
			out = append(out, Fix{"or let it ask a DHCP server on the segment", fmt.Sprintf("etherloom node address %s --segment %s --mode dhcp", p.name, q.on.name)})
		}
		return out
	}
	for _, o := range q.everybody() {
		if o.id != p.id && slices.Contains(o.addresses(), claimed) {
			return append(out, Fix{Text: fmt.Sprintf("%s is %s's; two machines cannot have it", claimed, o.name)})
		}
	}
	return append(out, Fix{"or give it " + claimed.String() + " besides", q.staticCommand(p, claimed)})
}

// machineAddressFix says which addresses a machine behind a gateway may use.
func (q *question) machineAddressFix(p party) Fix {
	if p.unnamed() || len(p.station.GetAddresses()) == 0 {
		return Fix{Text: p.name + " may use each address that is nobody's: this one is somebody else's, of the segment's own DHCP service and not leased to it, or none that a " +
			"machine can have. `etherloom names` and `etherloom host list` show whose it is"}
	}
	return Fix{Text: fmt.Sprintf("%s may use %s alone, from %s: send from there, or have an administrator say all anew that it may use (`etherloom host set %s --address ...`)",
		p.name, strings.Join(p.station.GetAddresses(), ", "), p.mac, p.name)}
}

// staticCommand gives a node one address more than it has.
func (q *question) staticCommand(p party, more netip.Addr) string {
	length := more.BitLen()
	for _, text := range []string{q.on.seg.GetIpv4Prefix(), q.on.seg.GetIpv6Prefix()} {
		if prefix, err := netip.ParsePrefix(text); err == nil && prefix.Contains(more) {
			length = prefix.Bits()
		}
	}
	command := fmt.Sprintf("etherloom node address %s --segment %s --mode static", p.name, q.on.name)
	for _, have := range reading.Prefixes(p.station) {
		command += " --address " + have.String()
	}
	return fmt.Sprintf("%s --address %s", command, netip.PrefixFrom(more, length))
}

// claimedBy is the address that a frame says it is from.
func claimedBy(data []byte) netip.Addr {
	f, err := ether.ParseInside(data)
	if err != nil {
		return netip.Addr{}
	}
	if a, ok := ether.ParseARP(f.Payload); ok && f.Type == ether.TypeARP {
		return netip.AddrFrom4(a.SenderIP)
	}
	if ip, ok := ether.ParseIPv4(f.Payload); ok && f.Type == ether.TypeIPv4 {
		return netip.AddrFrom4(ip.Src)
	}
	if ip, ok := ether.ParseIPv6(f.Payload); ok && f.Type == ether.TypeIPv6 {
		return netip.AddrFrom16(ip.Src)
	}
	return netip.Addr{}
}
