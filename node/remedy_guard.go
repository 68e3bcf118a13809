package node

import (
	"fmt"

	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// guardFixes says what would let a frame pass that no host sends without a role, or not so often.
func (q *question) guardFixes(drop vswitch.Drop, source party) []Fix {
	switch drop {
	case vswitch.Drop(policy.NotDHCPServer):
		return []Fix{q.roleFix(source, "dhcp-server", "answer DHCP clients, or relay for them")}
	case vswitch.Drop(policy.NotRouter):
		return []Fix{q.roleFix(source, "router", "advertise itself as a router, and redirect")}
	case vswitch.Drop(policy.NotQuerier):
		return []Fix{q.roleFix(source, "querier", "ask for listeners to multicast groups, and route multicast")}
	case vswitch.Drop(policy.DHCPClient):
		return []Fix{
			{Text: fmt.Sprintf("%s may ask a DHCP server for its own MAC %s alone, and give back no address but its own", source.name, source.mac)},
			q.roleFix(source, "dhcp-server", "relay for others"),
		}
	case vswitch.Drop(policy.BadARP):
		return []Fix{{Text: "an ARP reply must go to the target that it names, or to everybody; RARP replies never pass, for addresses are the controller's to give"}}
	case vswitch.Drop(policy.BroadcastRate):
		return []Fix{limitFix(source, "broadcast")}
	case vswitch.Drop(policy.MulticastRate):
		return []Fix{limitFix(source, "multicast")}
	case vswitch.Drop(policy.ControlRate):
		return []Fix{limitFix(source, "control")}
	case vswitch.Drop(policy.JoinRate):
		return []Fix{limitFix(source, "joins")}
	case vswitch.DropIsolated:
		return []Fix{{
			"no grant changes that, for both ports of this node are set to be isolated, or of different communities (`etherloom port show`): take one out of that",
			"etherloom port set PORT isolated=off",
		}}
	case vswitch.DropLocked:
		return []Fix{{
			"the port is locked (`etherloom port show`), and takes frames of those machines alone that have a name or are pinned to it: pin this one",
			"etherloom fdb add " + firstOr(q.on.name, "SEGMENT") + " MAC PORT",
		}}
	case vswitch.DropPort:
		return []Fix{{Text: "a port on the way carries nothing now: `etherloom ports` and `etherloom status` say which, and why"}}
	case vswitch.Drop(policy.PinnedMAC):
		return []Fix{{Text: "this MAC is another's, or of a host that is not behind this attachment: `etherloom host list` shows an administrator where it may be, and " +
			"`etherloom host set` changes that"}}
	default:
		return []Fix{{Text: "nothing here: the sender must be what it says it is"}}
	}
}

// roleFix lets somebody be more than a host.
func (q *question) roleFix(p party, role, what string) Fix {
	if p.unnamed() {
		return Fix{Text: "let it " + what + ": give it a name with the role, `etherloom host add NAME --mac MAC --attachment " + p.name + " --role " + role + "`"}
	}
	if p.machine {
		return Fix{Text: "let " + p.name + " " + what + ": `etherloom host set " + p.name + " ... --role " + role + "`, which says all anew that `etherloom host list` shows"}
	}
	return Fix{
		"let " + p.name + " " + what,
		fmt.Sprintf("etherloom node role %s --segment %s --add %s", p.name, firstOr(q.on.name, "SEGMENT"), role),
	}
}

// limitFix says where a limit is set. Every node has its own: what a sender's lets pass, a receiver's may refuse.
func limitFix(p party, limit string) Fix {
	return Fix{
		fmt.Sprintf("find out why %s sends so much; if it must, raise limits.%s on each node of the segment", p.name, limit),
		fmt.Sprintf("etherloom run --limits-%s FRAMES", limit),
	}
}
