package policy

import (
	"testing"

	"github.com/etherloom/etherloom/ether"
)

// Whose frames a MAC may be: a node's and a host's are its own alone; those whom nobody named may use what is nobody's.
func TestMayUse(t *testing.T) {
	v := site(1)
	free, listedMAC, unlistedMAC := ether.MAC{2, 0x77}, ether.MAC{2, 5: byte(listed)}, ether.MAC{2, 5: byte(unlisted)}
	node := v.Station(2).MAC
	for _, c := range []struct {
		name string
		who  Identity
		mac  ether.MAC
		want bool
	}{
		{"a node, its own", 2, node, true},
		{"a node, a free one", 2, free, false},
		{"a host, its own", listed, listedMAC, true},
		{"a host, another's", listed, unlistedMAC, false},
		{"a host, a free one", listed, free, false},
		{"those without name, a free one", attachment, free, true},
		{"those without name, a host's", attachment, listedMAC, false},
		{"those without name, a node's", attachment, node, false},
		{"those without name, a group's", attachment, ether.MAC{3}, false},
		{"those without name, none", attachment, ether.MAC{}, false},
		{"who is not there", 4711, free, false},
		{"nobody", 0, free, false},
	} {
		if got := v.MayUse(c.who, c.mac); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
