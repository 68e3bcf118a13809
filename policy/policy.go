// Package policy says what a frame may do.
//
// The one object is the grant. It lets its sources reach a segment or some of those on it:
//
//   - To a segment: its sources are members. A frame passes only from one member to another; a group's frames are judged for
//     each receiver.
//   - To nodes: its sources reach these, and nothing else of the segment is there for them. Nobody asks anybody on the wire for
//     an address: each node answers its own host (View.Seek). What is sent must be for an address of the target's own.
//
// A grant may say what it allows in Terms: by EtherType, IP protocol, ports, multicast group. Then its sources begin flows, and
// the answers to these pass, and errors about them, and nothing else in that direction, unless the grant works both ways.
// Everything else is denied, whatever its EtherType. An empty policy passes nothing: no ARP, no DHCP, no multicast.
//
// Three questions are asked of every frame, at the node that sends it and again, from the start, at the node that receives it:
//
//   - Is the source what it says? A Station holds the MAC, the IP addresses and the roles that an identity may use on a
//     segment, and Station.Check holds a frame against them: Ethernet source, ARP and neighbour discovery fields, IP source,
//     and what only routers, DHCP servers and multicast queriers say.
//   - Is it what it seems? A fragment is judged as the first one of its datagram was; one that overlaps another, or that
//     hides its transport header, passes nowhere (Passage.Settle). What a frame is, as far as that can be told, is its Class.
//   - Does a grant let it pass? View.Egress picks the grant for one receiver, and its id travels in the frame; View.Ingress
//     demands that this very grant is known here, names this source, covers this frame and has not expired. The id in a frame
//     only selects a candidate: it proves nothing.
//
// Machines behind gateways may be kept apart whatever the grants: a segment is a private VLAN if some of them are isolated, or of a
// community (SecondaryVLAN). For each other those do not exist.
//
// A Meter holds what passes these against Limits: how often one identity may send what costs everybody.
//
// A View is what policy says of one segment as one node may know it. It is immutable: a change of policy makes a new
// one, with a greater generation. Flows is what that node remembers of live flows: an entry that another generation has judged
// is judged again by its next frame, so a change of policy cuts what it takes away, and a flow costs one look however many
// grants there are. Between two who may both send everything to each other nothing need be remembered. Time is an argument.
package policy

// Identity numbers a party within its network; 0 is nobody.
type Identity uint32

// GrantID numbers a grant; ids are never used again. 0 is none.
type GrantID uint32

// VNI numbers a segment: 24 bits.
type VNI uint32

// MaxVNI is the greatest segment number.
const MaxVNI VNI = 1<<24 - 1

// Verdict is what policy says of a frame: Pass, or the reason why not.
type Verdict uint8

// The verdicts. Their texts are in String.
const (
	Pass Verdict = iota
	NoStation
	SourceMAC
	ARPSender
	NDSender
	NotRouter
	IPSource
	BadHeader
	Undetermined
	NoGrant
	NotMember
	UnknownGrant
	WrongGrant
	GrantExpired
	PolicyExpired
	NotAllowed
	StaysHere
	UnknownAddress
	BadFragment
	BadARP
	NotDHCPServer
	DHCPClient
	NotQuerier
	BroadcastRate
	MulticastRate
	ControlRate
	JoinRate
	PinnedMAC
	OtherCopy
	PrivateVLAN
	NumVerdicts
)

// String says in one line what happened, for an operator.
func (v Verdict) String() string {
	return [NumVerdicts]string{
		Pass:           "passed",
		NoStation:      "the source has no address on this segment",
		SourceMAC:      "source MAC is not the one this identity may use",
		ARPSender:      "ARP sender is not this identity's MAC and IPv4 address",
		NDSender:       "neighbour discovery names a MAC or address that is not this identity's",
		NotRouter:      "router advertisement or redirect of a station that is no router",
		IPSource:       "IP source is not an address this identity may use",
		BadHeader:      "ARP or IP header is cut, hidden behind another, or not what the EtherType says",
		Undetermined:   "extension headers, fragments or options hide what the packet is, or it is cut",
		NoGrant:        "no grant lets the source use this segment",
		NotMember:      "the receiver is not a member of this segment",
		UnknownGrant:   "the frame names a grant that this node does not know",
		WrongGrant:     "the grant that the frame names does not cover its source",
		GrantExpired:   "the grant has expired",
		PolicyExpired:  "the policy is older than its maximum age and no controller has renewed it",
		NotAllowed:     "there is a grant between the two, but none that allows this",
		StaysHere:      "only members of a segment ask each other for addresses; a node answers its own host about those that it has a grant to",
		UnknownAddress: "nobody that this host may know of has the address that it asks for, so nobody answers",
		BadFragment:    "fragment is too small, overlaps another, or is cut as no host cuts",
		BadARP:         "ARP reply whose target is a group or not who receives it, or RARP that is no request",
		NotDHCPServer:  "DHCP of a server or relay agent, of a station that is none",
		DHCPClient:     "DHCP request for a MAC or address that is not this identity's",
		NotQuerier:     "multicast query or routing of a station that is no multicast querier",
		BroadcastRate:  "this identity sends more broadcasts than the limit allows",
		MulticastRate:  "this identity sends more multicast frames than the limit allows",
		ControlRate:    "this identity sends more ARP, neighbour discovery or DHCP to many than the limit allows",
		JoinRate:       "this identity joins and leaves multicast groups more often than the limit allows",
		PinnedMAC:      "source MAC is pinned to somebody who is not behind this attachment",
		OtherCopy:      "frame for many of which this receiver takes the copy by another grant",
		PrivateVLAN:    "source and receiver are kept apart: one is isolated, or they are of different communities (private VLAN)",
	}[v]
}

// Code is the verdict as a stable word for scripts.
func (v Verdict) Code() string {
	return [NumVerdicts]string{
		Pass: "pass", NoStation: "no-station", SourceMAC: "source-mac", ARPSender: "arp-sender", NDSender: "nd-sender",
		NotRouter: "not-router", IPSource: "ip-source", BadHeader: "bad-header", Undetermined: "undetermined", NoGrant: "no-grant",
		NotMember: "not-member", UnknownGrant: "unknown-grant", WrongGrant: "wrong-grant",
		GrantExpired: "grant-expired", PolicyExpired: "policy-expired",
		NotAllowed: "not-allowed", StaysHere: "stays-here", UnknownAddress: "unknown-address", BadFragment: "bad-fragment",
		BadARP: "bad-arp", NotDHCPServer: "not-dhcp-server", DHCPClient: "dhcp-client", NotQuerier: "not-querier",
		BroadcastRate: "broadcast-rate", MulticastRate: "multicast-rate", ControlRate: "control-rate", JoinRate: "join-rate",
		PinnedMAC: "pinned-mac", OtherCopy: "other-copy", PrivateVLAN: "private-vlan",
	}[v]
}
