// Package state is what a node is told: the set of facts that concern it, and the proof that a controller of its
// network said so. Controllers and nodes share it, so that both mean the same.
//
// A State maps keys to serialised Resources. The key follows from the resource ("settings", "segment/VNI", "self",
// "peer/ID", "grant/ID", "reach/ID", "relay/NAME", "revocation/ID", "machine/ID", "attachment/ID", "dhcp/VNI",
// "lease/VNI/ADDRESS"), so one fact has one place. A controller sends it as Deltas, each of which leads from one version of the state to another:
//
//	+-----------------------------------------------------------------------------------------------+
//	| Delta                                                                                         |
//	|   header     StateHeader: network, node, epoch, base, version, hash of the result, expiry, ...|
//	|   signature  Ed25519 over "etherloom state v1\0" + header                                     |
//	|   signer     leaf of the controller that signed, DER                                          |
//	|   set        keys and resources that are new or other than at base                            |
//	|   removed    keys that are gone                                                               |
//	+-----------------------------------------------------------------------------------------------+
//
// Only the header is signed; it binds the rest by the hash of the state that results:
//
//	SHA-256( "etherloom state hash v1\0"  then for each key in byte order:
//	         length(key)[4] key length(resource)[4] resource )            lengths big-endian
//
// A Reader is the node's side. It takes a delta only if a controller that the CA certified has signed it, for this
// network and this node, and if it leads forward: to a greater (epoch, version) from the version held, or from
// nothing (base 0). A header with the hash of the state that is held already only renews it: that is how expiry moves
// on while nothing changes, and how the second of two controllers that say the same does no harm. What a Reader has
// taken is a Held, which keeps the last signed header beside the state, so that it can be written to disk (Marshal)
// and verified again as a whole when it is read (Load).
//
// A State may hold kinds of resource that this program does not know yet; it passes them over. So what restricts a
// known kind must come as a kind of its own, never as a new field that an old program would ignore.
//
// A controller serialises resources deterministically, and what it puts into them depends on nothing but the store's
// revision, so two controllers at the same revision say the same, byte for byte.
package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/etherloom/etherloom/control/controlv1"
)

// State is the set of facts that concern one node: key to serialised Resource. The values are shared; nobody writes
// to them.
type State map[string][]byte

var errNoKind = errors.New("resource of an unknown kind")

// Key returns the place of a resource in a State.
func Key(r *controlv1.Resource) (string, error) {
	switch k := r.GetKind().(type) {
	case *controlv1.Resource_Settings:
		return "settings", nil
	case *controlv1.Resource_Segment:
		return fmt.Sprintf("segment/%d", k.Segment.GetVni()), nil
	case *controlv1.Resource_Self:
		return "self", nil
	case *controlv1.Resource_Peer:
		return fmt.Sprintf("peer/%d", k.Peer.GetId()), nil
	case *controlv1.Resource_Grant:
		return fmt.Sprintf("grant/%d", k.Grant.GetId()), nil
	case *controlv1.Resource_Reach:
		return fmt.Sprintf("reach/%d", k.Reach.GetId()), nil
	case *controlv1.Resource_Relay:
		return "relay/" + k.Relay.GetName(), nil
	case *controlv1.Resource_Revocation:
		return fmt.Sprintf("revocation/%d", k.Revocation.GetId()), nil
	case *controlv1.Resource_Machine:
		return fmt.Sprintf("machine/%d", k.Machine.GetId()), nil
	case *controlv1.Resource_Attachment:
		return fmt.Sprintf("attachment/%d", k.Attachment.GetId()), nil
	case *controlv1.Resource_Dhcp:
		return fmt.Sprintf("dhcp/%d", k.Dhcp.GetVni()), nil
	case *controlv1.Resource_Lease:
		return fmt.Sprintf("lease/%d/%s", k.Lease.GetVni(), k.Lease.GetAddress()), nil
	}
	return "", errNoKind
}

// Encode serialises a resource for its place in a State.
func Encode(r *controlv1.Resource) (key string, value []byte, err error) {
	if key, err = Key(r); err != nil {
		return "", nil, err
	}
	value, err = proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if err != nil {
		return "", nil, fmt.Errorf("encode %s: %w", key, err)
	}
	return key, value, nil
}

// Hash names a state.
func (s State) Hash() [32]byte {
	h := sha256.New()
	h.Write([]byte("etherloom state hash v1\x00"))
	var length [4]byte
	write := func(b []byte) {
		binary.BigEndian.PutUint32(length[:], uint32(len(b)))
		h.Write(length[:])
		h.Write(b)
	}
	for _, key := range slices.Sorted(maps.Keys(s)) {
		write([]byte(key))
		write(s[key])
	}
	return [32]byte(h.Sum(nil))
}

// Diff returns what leads from one state to another: the entries that are new or different, and the keys, sorted,
// that are gone.
func Diff(from, to State) (set State, removed []string) {
	set = State{}
	for key, value := range to {
		if old, ok := from[key]; !ok || !bytes.Equal(old, value) {
			set[key] = value
		}
	}
	for key := range from {
		if _, ok := to[key]; !ok {
			removed = append(removed, key)
		}
	}
	slices.Sort(removed)
	return set, removed
}

// patch is Diff's inverse. It leaves s alone.
func (s State) patch(set State, removed []string) State {
	out := make(State, len(s)+len(set))
	maps.Copy(out, s)
	for _, key := range removed {
		delete(out, key)
	}
	maps.Copy(out, set)
	return out
}
