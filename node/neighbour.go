package node

import (
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	vswitch "github.com/etherloom/etherloom/switch"
)

// PortNeighbour is a device that speaks LLDP on the wire.
type PortNeighbour struct {
	System  string    `json:"system"`
	Chassis string    `json:"chassis"`
	Port    string    `json:"port"`
	Until   time.Time `json:"until"` // when what it said is out of date
}

// neighbourLine reads what a neighbour has said by LLDP; nil if none has, or what it said has ended.
func neighbourLine(n vswitch.Neighbour, now time.Time) *PortNeighbour {
	packet := gopacket.NewPacket(n.LLDP, layers.LayerTypeLinkLayerDiscovery, gopacket.Default)
	l, ok := packet.Layer(layers.LayerTypeLinkLayerDiscovery).(*layers.LinkLayerDiscovery)
	if !ok {
		return nil
	}
	out := &PortNeighbour{
		Chassis: lldpName(l.ChassisID.ID, l.ChassisID.Subtype == layers.LLDPChassisIDSubTypeMACAddr),
		Port:    lldpName(l.PortID.ID, l.PortID.Subtype == layers.LLDPPortIDSubtypeMACAddr),
		Until:   n.At.Add(time.Duration(l.TTL) * time.Second),
	}
	// What else it says may be damaged, and is not needed.
	if info, ok := packet.Layer(layers.LayerTypeLinkLayerDiscoveryInfo).(*layers.LinkLayerDiscoveryInfo); ok {
		out.System = lldpName([]byte(info.SysName), false)
	}
	if !now.Before(out.Until) {
		return nil // a time to live of 0 says that it leaves (IEEE 802.1AB section 8.5.4)
	}
	return out
}

// maxLLDPName is how many bytes of a name are shown: an identifier has at most 255 (IEEE 802.1AB section 8.5.2).
const maxLLDPName = 64

// lldpName shows an identifier: a MAC as such, another as text if it is, otherwise its bytes. It comes from a stranger, so nothing
// in it may act upon a terminal.
func lldpName(b []byte, mac bool) string {
	if mac && len(b) == 6 {
		return net.HardwareAddr(b).String()
	}
	text := string(b[:min(len(b), maxLLDPName)])
	if !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return text
	}
	return fmt.Sprintf("% x", text)
}
