package model

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/etherloom/etherloom/identity"
)

// VNI numbers a segment: 1 to 2^24-1 (RFC 7348 section 5). It is never given twice.
type VNI uint32

// GrantID numbers a grant. It is never given twice.
type GrantID uint32

// Fact is one durable record of a network.
type Fact interface {
	// Key is the record's place among the network's facts, such as "node/7".
	Key() string
}

// Authority is the network's certificate authority.
type Authority struct {
	Certificate []byte `json:"certificate"`       // DER
	Wrapped     []byte `json:"wrapped,omitempty"` // PKCS #8, sealed with the wrap key
}

// Key is "authority".
func (*Authority) Key() string { return "authority" }

// Settings are what holds for the network as a whole.
type Settings struct {
	Name                string       `json:"name"`
	Zone                string       `json:"zone"`
	CertificateLifetime Duration     `json:"certificate_lifetime"`
	Grace               Duration     `json:"grace"`
	LinkIdle            Duration     `json:"link_idle"`
	ULA                 netip.Prefix `json:"ula"`  // a /48
	Pool                netip.Prefix `json:"pool"` // from which segments' IPv4 prefixes are chosen

	// Epoch is raised by an administrator after a backup was restored.
	Epoch uint64 `json:"epoch"`
	// CredentialsUntil is when the TURN credentials that nodes hold now expire. A controller moves it on in time.
	CredentialsUntil time.Time `json:"credentials_until"`
}

// Key is "settings".
func (*Settings) Key() string { return "settings" }

// Counters are the numbers that were given last, so that none is given again.
type Counters struct {
	Node       identity.ID `json:"node"`
	Controller identity.ID `json:"controller"`
	Admin      identity.ID `json:"admin"`
	Segment    VNI         `json:"segment"`
	Grant      GrantID     `json:"grant"`
	Lock       LockID      `json:"lock,omitempty"`
	// Policy is the version of groups, grants and tests: it is raised with each change of any of them.
	Policy uint64 `json:"policy,omitempty"`
	// RolledBack is the version at which a change that was not confirmed was taken back last.
	RolledBack uint64 `json:"rolled_back,omitempty"`
}

// Key is "counters".
func (*Counters) Key() string { return "counters" }

// Head is the head of the audit log. It changes with every other fact, and so says at which revision they are.
type Head struct {
	Sequence uint64 `json:"sequence"`
	Hash     []byte `json:"hash"` // 32 bytes
}

// Key is "head".
func (*Head) Key() string { return "head" }

// Controller is a controller of the network.
type Controller struct {
	ID      identity.ID `json:"id"`
	Sign    []byte      `json:"sign"` // Ed25519
	URLs    []string    `json:"urls"`
	Serial  string      `json:"serial"` // of its newest certificate
	Expires time.Time   `json:"expires"`
}

// Key is "controller/ID".
func (c *Controller) Key() string { return fmt.Sprintf("controller/%d", c.ID) }

// Admin is an administrator's credential.
type Admin struct {
	ID      identity.ID `json:"id"`
	Name    string      `json:"name"`
	Sign    []byte      `json:"sign"` // Ed25519
	Created time.Time   `json:"created"`
	Expires time.Time   `json:"expires"`
	Revoked bool        `json:"revoked,omitempty"`
}

// Key is "admin/ID".
func (a *Admin) Key() string { return fmt.Sprintf("admin/%d", a.ID) }

// Token lets machines enrol. Its secret is known to its holder only.
type Token struct {
	ID      string    `json:"id"`             // the first 12 hex digits of Hash
	Hash    []byte    `json:"hash,omitempty"` // identity.HashSecret
	Role    string    `json:"role"`
	Site    string    `json:"site,omitempty"`
	Labels  []string  `json:"labels,omitempty"`
	Uses    uint32    `json:"uses"`
	Used    uint32    `json:"used"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Approve bool      `json:"approve,omitempty"`
	Revoked bool      `json:"revoked,omitempty"`
}

// Key is "token/ID".
func (t *Token) Key() string { return "token/" + t.ID }

// Status is where a node is in its life.
type Status string

// The statuses of a node.
const (
	StatusPending Status = "pending" // enrolled, waits for approval
	StatusActive  Status = "active"
	StatusLocked  Status = "locked"  // cut off until no lock holds it
	StatusRemoved Status = "removed" // cut off for ever
)

// Node is a machine that enrolled. Its record is never deleted, so that its id and keys are never accepted again.
type Node struct {
	ID     identity.ID `json:"id"`
	Name   string      `json:"name"`
	Site   string      `json:"site,omitempty"`
	Roles  []string    `json:"roles"`
	Labels []string    `json:"labels,omitempty"`
	// OwnStatus is what the record itself says: pending, active or removed, and locked where an older program wrote it. What
	// holds is Model.Status, which sees the locks.
	OwnStatus Status    `json:"status"`
	Message   string    `json:"message,omitempty"` // why it was removed
	Sign      []byte    `json:"sign"`              // Ed25519
	Static    []byte    `json:"static"`            // X25519
	Token     string    `json:"token"`             // id of the token that it enrolled with
	Enrolled  time.Time `json:"enrolled"`

	Serial  string    `json:"serial"` // of its newest certificate
	Expires time.Time `json:"expires"`
	// CertifiedUntil is the latest end of any certificate that it was ever given.
	CertifiedUntil time.Time `json:"certified_until"`

	Stations       []Station `json:"stations,omitempty"` // by VNI
	HandshakeNonce uint64    `json:"handshake_nonce,omitempty"`
	RelaySlot      uint32    `json:"relay_slot"`
	Agent          string    `json:"agent,omitempty"`
	MaxWire        uint32    `json:"max_wire,omitempty"`
	AES            bool      `json:"aes,omitempty"`

	// CutAt is when it was removed, SlotUntil when the last TURN credential ends that it may hold then.
	CutAt     time.Time `json:"cut_at,omitzero"`
	SlotUntil time.Time `json:"slot_until,omitzero"`
	// Spoke are the attachments whose gateway it was when it was removed.
	Spoke []identity.ID `json:"spoke,omitempty"`
	// Forgotten means that nothing that was ever signed for a locked or removed node can still be valid, so that its
	// peers need not be told of it. A new certificate ends that.
	Forgotten bool `json:"forgotten,omitempty"`
}

// Key is "node/ID".
func (n *Node) Key() string { return fmt.Sprintf("node/%d", n.ID) }

// Mode is how a station comes by its addresses.
type Mode string

// The address modes.
const (
	ModeAuto   Mode = "auto"   // IPv4 and IPv6 allocated
	ModeStatic Mode = "static" // named by an administrator
	ModeDHCP   Mode = "dhcp"   // IPv4 from a DHCP server on the segment, IPv6 allocated
	ModeNone   Mode = "none"   // no IP
)

// Role is what a station may be for others on a segment, beside a host.
type Role string

// The roles of a station.
const (
	RoleDHCPServer Role = "dhcp-server" // answers DHCP clients, or relays for them
	RoleRouter     Role = "router"      // advertises itself, and forwards
	RoleQuerier    Role = "querier"     // asks for multicast listeners, and routes multicast
)

// Station is what a node may use on a segment.
type Station struct {
	VNI       VNI            `json:"vni"`
	MAC       MAC            `json:"mac"`
	Mode      Mode           `json:"mode"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Roles     []Role         `json:"roles,omitempty"` // sorted
}

// Segment is one broadcast domain.
type Segment struct {
	VNI  VNI          `json:"vni"`
	Name string       `json:"name"`
	MTU  uint32       `json:"mtu"`
	IPv4 netip.Prefix `json:"ipv4"`
	IPv6 netip.Prefix `json:"ipv6"` // a /64

	Transparent bool `json:"transparent,omitempty"` // VLAN tags inside it are carried unchanged
}

// Key is "segment/VNI".
func (s *Segment) Key() string { return fmt.Sprintf("segment/%d", s.VNI) }

// Selector says who is meant: one of its fields is set. A name is resolved when the selector is made, so that a machine which later
// takes a freed name gets nothing by it; who bears a label or is in a group may change.
type Selector struct {
	Node  identity.ID `json:"node,omitempty"`  // the identity of a node, a host, or an attachment
	Label string      `json:"label,omitempty"` // KEY=VALUE
	Group string      `json:"group,omitempty"`
}

// Grant lets its sources reach a segment, or some of those on it. From and To are as the administrator wrote them; the
// Selectors and VNI are what they meant when the grant was made.
type Grant struct {
	ID   GrantID `json:"id"`
	Name string  `json:"name,omitempty"` // unique among grants
	From string  `json:"from"`
	To   string  `json:"to"`
	// Node, Label or Group is the source. Node may be the identity of a host or an attachment, too.
	Node    identity.ID `json:"node,omitempty"`
	Label   string      `json:"label,omitempty"`
	Group   string      `json:"group,omitempty"`
	Target  *Selector   `json:"target,omitempty"` // nil: the segment
	VNI     VNI         `json:"vni"`
	Allow   []string    `json:"allow,omitempty"`   // terms, as package policy reads them; none: everything
	Both    bool        `json:"both,omitempty"`    // who is reached may begin, too
	Observe bool        `json:"observe,omitempty"` // passes nothing, is counted
	When    string      `json:"when,omitempty"`    // CEL (package condition); empty: always
	Created time.Time   `json:"created"`
	Expires time.Time   `json:"expires,omitzero"` // zero: never
}

// Key is "grant/ID".
func (g *Grant) Key() string { return fmt.Sprintf("grant/%d", g.ID) }

// Source is who holds the grant.
func (g *Grant) Source() Selector { return Selector{g.Node, g.Label, g.Group} }

// Used says on which day a grant last let something pass, as the nodes have told.
type Used struct {
	Grant GrantID   `json:"grant"`
	Day   time.Time `json:"day"` // its beginning, UTC
}

// Key is "used/GRANT".
func (u *Used) Key() string { return fmt.Sprintf("used/%d", u.Grant) }

// Group is a name for some nodes and machines.
type Group struct {
	Name    string        `json:"name"`
	Members []string      `json:"members,omitempty"` // selectors, as the administrator wrote them
	Nodes   []identity.ID `json:"nodes,omitempty"`   // what they mean
	Labels  []string      `json:"labels,omitempty"`
}

// Key is "group/NAME".
func (g *Group) Key() string { return "group/" + g.Name }

// Test says what the policy must let pass, or must not.
type Test struct {
	From  Selector `json:"from"`
	To    Selector `json:"to"`
	VNI   VNI      `json:"vni"`
	What  string   `json:"what"` // one frame, as package document reads it, such as tcp:22
	Allow bool     `json:"allow,omitempty"`
}

// Tests are the tests of the policy, in their order.
type Tests struct {
	List []Test `json:"list"`
}

// Key is "tests".
func (*Tests) Key() string { return "tests" }

// Pending is a change of policy that nobody has confirmed: what puts back what was before.
type Pending struct {
	Until     time.Time `json:"until"`
	Who       string    `json:"who"`                  // who applied it
	Grants    []*Grant  `json:"grants,omitempty"`     // that it removed
	NewGrants []GrantID `json:"new_grants,omitempty"` // that it made
	Groups    []*Group  `json:"groups,omitempty"`     // that it changed or removed, as they were
	NewGroups []string  `json:"new_groups,omitempty"`
	Tests     []Test    `json:"tests,omitempty"` // as they were
}

// Key is "pending".
func (*Pending) Key() string { return "pending" }

// Relay passes sealed datagrams between nodes that cannot reach each other.
type Relay struct {
	Name      string   `json:"name"`
	Hosts     []string `json:"hosts"`
	Port      uint32   `json:"port"`
	ProbePort uint32   `json:"probe_port"`
	Wrapped   []byte   `json:"wrapped,omitempty"` // identity.RelaySecret, sealed with the wrap key
}

// Key is "relay/NAME".
func (r *Relay) Key() string { return "relay/" + r.Name }

// Facts are the facts of a network, by key.
type Facts map[string]Fact
