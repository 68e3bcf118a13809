package node

import (
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/node/herald"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// A notice is given to the segment that it is about, as from who has sent it, and to nobody if there is none.
func TestIngressNotice(t *testing.T) {
	const machine policy.Identity = 0x64
	mac := ether.MAC{2, 0x5e, 0, 0, 0, 1}
	bytes := func(format, vni string) []byte {
		b, err := hex.DecodeString(format + vni + "0101" + "0000" + "0001" + "0000" + "0000000000000001" + "0000000000000000" + "0000000000000001" +
			"025e00000001" + "0000" + "00000064" + "00000000")
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	vni := fmt.Sprintf("%06x", uint32(trialVNI))
	for name, c := range map[string]struct {
		from      policy.Identity
		message   []byte
		heard     bool
		malformed uint64
	}{
		"from the gateway":     {trialNear, bytes("02", vni), true, 0},
		"from who has no link": {4711, bytes("02", vni), false, 0},
		"of another segment":   {trialNear, bytes("02", "00ffff"), false, 0},
		"of half an entry":     {trialNear, bytes("02", vni)[:44], false, 1},
		"of the future":        {trialNear, bytes("0f", vni), false, 0},
	} {
		tr, d, in := newDoor(t)
		gateway := policy.NewMachine(ether.MAC{}, nil)
		gateway.Gateways, gateway.Attachments = []policy.Identity{trialNear}, []policy.Identity{machine}
		view := policy.Compile(policy.Rules{Stations: map[policy.Identity]*policy.Station{machine: gateway}})
		table := fdb.New[vswitch.Place](fdb.Limits{})
		tr.far.herald = herald.New(herald.Config{
			VNI: trialVNI, Self: tr.far.local.Identity, Table: table, Policy: func() *policy.View { return view }, Links: heraldLinks{tr.far}, Epoch: randomEpoch, Most: 10,
		})
		now := time.Now()
		in.Receive(identity.ID(c.from), c.message, now)
		if _, heard := table.Lookup(mac, now); heard != c.heard || d.malformed.Load() != c.malformed {
			t.Errorf("%s: heard %t, want %t; %d malformed, want %d", name, heard, c.heard, d.malformed.Load(), c.malformed)
		}
	}
}
