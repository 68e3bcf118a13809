package state

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

// Contents is a state, decoded. Every resource in it has passed its check: ids are not 0, VNIs have 24 bits, keys,
// MACs and addresses have their form. Settings and Self may be nil.
type Contents struct {
	Settings    *controlv1.Settings
	Self        *controlv1.Peer
	Segments    map[uint32]*controlv1.Segment // by VNI
	Peers       map[identity.ID]*controlv1.Peer
	Grants      map[uint32]*controlv1.Grant
	Reaches     map[uint32]*controlv1.Reach
	Relays      map[string]*controlv1.Relay
	Revocations map[identity.ID]*controlv1.Revocation
	Machines    map[identity.ID]*controlv1.Machine
	Attachments map[identity.ID]*controlv1.Attachment
	DHCP        map[uint32]*controlv1.DhcpService  // by VNI
	Leases      map[identity.ID][]*controlv1.Lease // by machine, in no order
}

// Contents decodes and checks a state.
func (s State) Contents() (*Contents, error) {
	c := &Contents{
		Segments: map[uint32]*controlv1.Segment{}, Peers: map[identity.ID]*controlv1.Peer{},
		Grants: map[uint32]*controlv1.Grant{}, Reaches: map[uint32]*controlv1.Reach{}, Relays: map[string]*controlv1.Relay{},
		Revocations: map[identity.ID]*controlv1.Revocation{}, Machines: map[identity.ID]*controlv1.Machine{},
		Attachments: map[identity.ID]*controlv1.Attachment{},
		DHCP:        map[uint32]*controlv1.DhcpService{}, Leases: map[identity.ID][]*controlv1.Lease{},
	}
	for key, value := range s {
		r, err := decode(key, value)
		if err != nil {
			return nil, err
		}
		c.put(r)
	}
	return c, nil
}

func (c *Contents) put(r *controlv1.Resource) {
	switch k := r.GetKind().(type) {
	case *controlv1.Resource_Settings:
		c.Settings = k.Settings
	case *controlv1.Resource_Segment:
		c.Segments[k.Segment.GetVni()] = k.Segment
	case *controlv1.Resource_Self:
		c.Self = k.Self
	case *controlv1.Resource_Peer:
		c.Peers[identity.ID(k.Peer.GetId())] = k.Peer
	case *controlv1.Resource_Grant:
		c.Grants[k.Grant.GetId()] = k.Grant
	case *controlv1.Resource_Reach:
		c.Reaches[k.Reach.GetId()] = k.Reach
	case *controlv1.Resource_Relay:
		c.Relays[k.Relay.GetName()] = k.Relay
	case *controlv1.Resource_Revocation:
		c.Revocations[identity.ID(k.Revocation.GetId())] = k.Revocation
	case *controlv1.Resource_Machine:
		c.Machines[identity.ID(k.Machine.GetId())] = k.Machine
	case *controlv1.Resource_Attachment:
		c.Attachments[identity.ID(k.Attachment.GetId())] = k.Attachment
	case *controlv1.Resource_Dhcp:
		c.DHCP[k.Dhcp.GetVni()] = k.Dhcp
	case *controlv1.Resource_Lease:
		of := identity.ID(k.Lease.GetMachine())
		c.Leases[of] = append(c.Leases[of], k.Lease)
	}
}

// decode reads one resource and checks that it is well-formed and in its place.
func decode(key string, value []byte) (*controlv1.Resource, error) {
	r := new(controlv1.Resource)
	if err := proto.Unmarshal(value, r); err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrMalformed, key, err)
	}
	// A kind that this program does not know comes from a newer controller. It is kept, since the hash covers it, and
	// passed over: facts allow things, so what is passed over stays forbidden.
	if r.GetKind() == nil && len(r.ProtoReflect().GetUnknown()) > 0 {
		return r, nil
	}
	want, err := Key(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrMalformed, key, err)
	}
	if key != want {
		return nil, fmt.Errorf("%w: %q holds %s", ErrMalformed, key, want)
	}
	if err := check(r); err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrMalformed, key, err)
	}
	return r, nil
}
