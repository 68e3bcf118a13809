package node

import (
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/ether"
)

// This file is about machines behind gateways, as the signed state tells of them.

// macOf is a machine's MAC; zero if it may use every one that is nobody's.
func macOf(m *controlv1.Machine) (mac ether.MAC) {
	copy(mac[:], m.GetMac())
	return mac
}

// machineRecord makes a machine look like a node, to whoever asks only for a name and addresses.
func machineRecord(m *controlv1.Machine) *controlv1.Peer {
	mac := macOf(m)
	return &controlv1.Peer{Id: m.GetId(), Name: m.GetName(), Stations: []*controlv1.Station{{
		Vni: m.GetVni(), Mac: mac[:], Mode: controlv1.AddressMode_ADDRESS_MODE_STATIC, Addresses: m.GetAddresses(), Roles: m.GetRoles(),
	}}}
}
