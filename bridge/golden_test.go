package bridge

import (
	"fmt"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/ether"
)

// V03: a switch of trunks does what Open vSwitch does with VLANs. These are the ports and the rows of "ofproto-dpif - VLAN
// handling" in its tests/ofproto-dpif.at (d6a632a), in words of our own. Left out are four ports that are tunnels in the sense of 802.1Q, and
// the nine rows of frames that come in there: a member of a trunk cannot be one.

// goldenPorts are the members of each port's trunk; which segment they are of is their P. A trunk of all VLANs has those that occur.
func goldenPorts(t *testing.T) map[int]*Trunk[golden] {
	t.Helper()
	ports := make(map[int]*Trunk[golden])
	add := func(port int, of map[int]Tagging) {
		var members []Member[golden]
		for segment, tagging := range of {
			members = append(members, Member[golden]{tagging, golden{port, segment}})
		}
		ports[port] = trunk(t, members...)
	}
	ten, eleven, twelve := Tagging{VLAN: 10}, Tagging{VLAN: 11}, Tagging{VLAN: 12}
	native := Tagging{VLAN: 10, Native: NativeTagged}
	add(1, map[int]Tagging{10: ten, 12: twelve})
	add(2, map[int]Tagging{10: {}})
	add(3, map[int]Tagging{12: {Priority: PriorityNonzero}})
	add(4, map[int]Tagging{12: {}})
	add(5, map[int]Tagging{10: native, 11: eleven, 12: twelve})
	add(6, map[int]Tagging{10: native, 12: twelve})
	add(7, map[int]Tagging{10: ten, 11: eleven, 12: {VLAN: 12, Native: NativeUntagged}})
	add(8, map[int]Tagging{10: ten, 12: {VLAN: 12, Native: NativeUntagged, Priority: PriorityNonzero}})
	add(100, map[int]Tagging{10: ten, 11: eleven, 12: twelve})
	return ports
}

// golden is a port's place on a segment.
type golden struct{ port, segment int }

// goldenRow is a frame that comes in by a port, and how it leaves by others. Every tag has its priority.
type goldenRow struct {
	port, vlan, pcp int    // -1: without tag
	sentVLAN        int    // of the tags it is sent with
	tagged          string // the ports by which it is sent with this VLAN,
	untagged        string // without tag,
	priority        string // and with a priority tag
}

func TestGoldenVLANs(t *testing.T) {
	ports := goldenPorts(t)
	rows := goldenRows()
	if len(rows) != 81 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		digits := "abcd 01"
		if row.vlan >= 0 {
			digits = fmt.Sprintf("8100 %04x abcd 01", row.pcp<<13|row.vlan)
		}
		from, inside, _, err := ports[row.port].Ingress(ethernet(t, digits), ether.Offload{})
		var tagged, untagged, priority []string
		for _, port := range []int{1, 2, 3, 4, 5, 6, 7, 8, 100} {
			if err != nil || port == row.port {
				continue
			}
			for _, m := range ports[port].members {
				if m.Port.segment != from.segment {
					continue
				}
				tag, err := m.Egress(inside)
				if err != nil {
					t.Fatal(err)
				}
				name := fmt.Sprint(port)
				switch string(sent(inside, tag)) {
				case string(ethernet(t, fmt.Sprintf("8100 %04x abcd 01", row.pcp<<13|row.sentVLAN))):
					tagged = append(tagged, name)
				case string(ethernet(t, fmt.Sprintf("8100 %04x abcd 01", row.pcp<<13))):
					priority = append(priority, name)
				case string(ethernet(t, "abcd 01")):
					untagged = append(untagged, name)
				default:
					t.Errorf("%+v: by port %s %x", row, name, sent(inside, tag))
				}
			}
		}
		got := goldenRow{
			row.port, row.vlan, row.pcp, row.sentVLAN, strings.Join(tagged, " "), strings.Join(untagged, " "), strings.Join(priority, " "),
		}
		if got != row {
			t.Errorf("got %+v, want %+v", got, row)
		}
	}
}

func goldenRows() []goldenRow {
	return []goldenRow{
		{100, -1, 0, 0, "", "", ""},
		{100, 0, 0, 0, "", "", ""},
		{100, 0, 1, 0, "", "", ""},
		{100, 10, 0, 10, "1 5 6 7 8", "2", ""},
		{100, 10, 1, 10, "1 5 6 7 8", "2", ""},
		{100, 11, 0, 11, "5 7", "", ""},
		{100, 11, 1, 11, "5 7", "", ""},
		{100, 12, 0, 12, "1 5 6", "3 4 7 8", ""},
		{100, 12, 1, 12, "1 5 6", "4 7", "3 8"},
		{1, -1, 0, 0, "", "", ""},
		{1, 0, 0, 0, "", "", ""},
		{1, 0, 1, 0, "", "", ""},
		{1, 10, 0, 10, "5 6 7 8 100", "2", ""},
		{1, 10, 1, 10, "5 6 7 8 100", "2", ""},
		{1, 11, 0, 0, "", "", ""},
		{1, 11, 1, 0, "", "", ""},
		{1, 12, 0, 12, "5 6 100", "3 4 7 8", ""},
		{1, 12, 1, 12, "5 6 100", "4 7", "3 8"},
		{2, -1, 0, 10, "1 5 6 7 8 100", "", ""},
		{2, 0, 0, 10, "1 5 6 7 8 100", "", ""},
		{2, 0, 1, 10, "1 5 6 7 8 100", "", ""},
		{2, 10, 0, 0, "", "", ""},
		{2, 10, 1, 0, "", "", ""},
		{2, 11, 0, 0, "", "", ""},
		{2, 11, 1, 0, "", "", ""},
		{2, 12, 0, 0, "", "", ""},
		{2, 12, 1, 0, "", "", ""},
		{3, -1, 0, 12, "1 5 6 100", "4 7 8", ""},
		{3, 0, 0, 12, "1 5 6 100", "4 7 8", ""},
		{3, 0, 1, 12, "1 5 6 100", "4 7", "8"},
		{3, 10, 0, 0, "", "", ""},
		{3, 10, 1, 0, "", "", ""},
		{3, 11, 0, 0, "", "", ""},
		{3, 11, 1, 0, "", "", ""},
		{3, 12, 0, 0, "", "", ""},
		{3, 12, 1, 0, "", "", ""},
		{4, -1, 0, 12, "1 5 6 100", "3 7 8", ""},
		{4, 0, 0, 12, "1 5 6 100", "3 7 8", ""},
		{4, 0, 1, 12, "1 5 6 100", "7", "3 8"},
		{4, 10, 0, 0, "", "", ""},
		{4, 10, 1, 0, "", "", ""},
		{4, 11, 0, 0, "", "", ""},
		{4, 11, 1, 0, "", "", ""},
		{4, 12, 0, 0, "", "", ""},
		{4, 12, 1, 0, "", "", ""},
		{5, -1, 0, 10, "1 6 7 8 100", "2", ""},
		{5, 0, 0, 10, "1 6 7 8 100", "2", ""},
		{5, 0, 1, 10, "1 6 7 8 100", "2", ""},
		{5, 10, 0, 10, "1 6 7 8 100", "2", ""},
		{5, 10, 1, 10, "1 6 7 8 100", "2", ""},
		{5, 11, 0, 11, "7 100", "", ""},
		{5, 11, 1, 11, "7 100", "", ""},
		{5, 12, 0, 12, "1 6 100", "3 4 7 8", ""},
		{5, 12, 1, 12, "1 6 100", "4 7", "3 8"},
		{6, -1, 0, 10, "1 5 7 8 100", "2", ""},
		{6, 0, 0, 10, "1 5 7 8 100", "2", ""},
		{6, 0, 1, 10, "1 5 7 8 100", "2", ""},
		{6, 10, 0, 10, "1 5 7 8 100", "2", ""},
		{6, 10, 1, 10, "1 5 7 8 100", "2", ""},
		{6, 11, 0, 0, "", "", ""},
		{6, 11, 1, 0, "", "", ""},
		{6, 12, 0, 12, "1 5 100", "3 4 7 8", ""},
		{6, 12, 1, 12, "1 5 100", "4 7", "3 8"},
		{7, -1, 0, 12, "1 5 6 100", "3 4 8", ""},
		{7, 0, 0, 12, "1 5 6 100", "3 4 8", ""},
		{7, 0, 1, 12, "1 5 6 100", "4", "3 8"},
		{7, 10, 0, 10, "1 5 6 8 100", "2", ""},
		{7, 10, 1, 10, "1 5 6 8 100", "2", ""},
		{7, 11, 0, 11, "5 100", "", ""},
		{7, 11, 1, 11, "5 100", "", ""},
		{7, 12, 0, 12, "1 5 6 100", "3 4 8", ""},
		{7, 12, 1, 12, "1 5 6 100", "4", "3 8"},
		{8, -1, 0, 12, "1 5 6 100", "3 4 7", ""},
		{8, 0, 0, 12, "1 5 6 100", "3 4 7", ""},
		{8, 0, 1, 12, "1 5 6 100", "4 7", "3"},
		{8, 10, 0, 10, "1 5 6 7 100", "2", ""},
		{8, 10, 1, 10, "1 5 6 7 100", "2", ""},
		{8, 11, 0, 0, "", "", ""},
		{8, 11, 1, 0, "", "", ""},
		{8, 12, 0, 12, "1 5 6 100", "3 4 7", ""},
		{8, 12, 1, 12, "1 5 6 100", "4 7", "3"},
	}
}
