package node

import (
	"strings"
	"testing"
	"time"

	vswitch "github.com/etherloom/etherloom/switch"
)

// tlv is one element of an LLDPDU (IEEE 802.1AB section 8.4).
func tlv(kind byte, value string) string {
	return string([]byte{kind<<1 | byte(len(value)>>8), byte(len(value))}) + value
}

// lldpdu is what a switch says of itself.
func lldpdu(ttl byte, system string) string {
	return tlv(1, "\x04\x02\x00\x00\x00\x08\x01") + tlv(2, "\x05ge-0/0/1") + tlv(3, string([]byte{0, ttl})) + tlv(5, system) + tlv(0, "")
}

// What a device says by LLDP is read, while it holds; nothing in it reaches a terminal as it is.
func TestNeighbourLine(t *testing.T) {
	mac := tlv(1, "\x04\x02\x00\x00\x00\x08\x01")
	for _, c := range []struct {
		name, lldp string
		age        time.Duration
		want       string // system|chassis|port; none: there is no neighbour
	}{
		{"a switch", lldpdu(120, "sw1.example.net"), 0, "sw1.example.net|02:00:00:00:08:01|ge-0/0/1"},
		{"with padding", lldpdu(120, "sw1") + strings.Repeat("\x00", 20), 0, "sw1|02:00:00:00:08:01|ge-0/0/1"},
		{"just in time", lldpdu(120, "sw1"), 120*time.Second - 1, "sw1|02:00:00:00:08:01|ge-0/0/1"},
		{"out of date", lldpdu(120, "sw1"), 120 * time.Second, ""},
		{"it leaves", lldpdu(0, "sw1"), 0, ""},
		{"nothing said", "", 0, ""},
		{"no name", mac + tlv(2, "\x05p1") + tlv(3, "\x00\x78") + tlv(0, ""), 0, "|02:00:00:00:08:01|p1"},
		{"a port by MAC", mac + tlv(2, "\x03\x02\x00\x00\x00\x08\x02") + tlv(3, "\x00\x78") + tlv(0, ""), 0, "|02:00:00:00:08:01|02:00:00:00:08:02"},
		{"a chassis by name", tlv(1, "\x07rack 4") + tlv(2, "\x05p1") + tlv(3, "\x00\x78") + tlv(0, ""), 0, "|rack 4|p1"},
		{"a chassis by name, like a MAC's bytes", tlv(1, "\x07abcdef") + tlv(2, "\x05p1") + tlv(3, "\x00\x78") + tlv(0, ""), 0, "|abcdef|p1"},
		{"escape sequences", lldpdu(120, "\x1b[2J"), 0, "1b 5b 32 4a|02:00:00:00:08:01|ge-0/0/1"},
		{"bytes of no text", lldpdu(120, "\xff\x00\n"), 0, "ff 00 0a|02:00:00:00:08:01|ge-0/0/1"},
		{"a long name", lldpdu(120, strings.Repeat("n", 255)), 0, strings.Repeat("n", 64) + "|02:00:00:00:08:01|ge-0/0/1"},
		{"cut in its name", lldpdu(120, "sw1")[:30], 0, ""},
		{"cut in front of its time", mac + tlv(2, "\x05p1"), 0, ""},
		{"noise", "\xff\xff\xff\xff", 0, ""},
	} {
		got := ""
		at := time.Unix(1000, 0)
		n := neighbourLine(vswitch.Neighbour{LLDP: []byte(c.lldp), At: at}, at.Add(c.age))
		if n != nil {
			got = n.System + "|" + n.Chassis + "|" + n.Port
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// FuzzNeighbourLine: whatever a device says, what is shown of it is short and printable.
func FuzzNeighbourLine(f *testing.F) {
	f.Add([]byte(lldpdu(120, "sw1")))
	f.Add([]byte(lldpdu(1, "\x1b[2J")))
	f.Fuzz(func(t *testing.T, lldp []byte) {
		at := time.Unix(1000, 0)
		n := neighbourLine(vswitch.Neighbour{LLDP: lldp, At: at}, at)
		if n == nil {
			return
		}
		for _, text := range []string{n.System, n.Chassis, n.Port} {
			if len(text) > 3*maxLLDPName || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("%q is shown", text)
			}
		}
		if d := n.Until.Sub(at); d <= 0 || d > 65535*time.Second {
			t.Errorf("it holds for %v", d)
		}
	})
}
