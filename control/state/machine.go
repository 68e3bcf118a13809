package state

import (
	"slices"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

// maxVLAN is the greatest VLAN id that there is: 4095 is reserved (IEEE 802.1Q-2018 table 9-2).
const maxVLAN = 4094

// checkMachine: one whom nobody named has no MAC of its own. Its name may be that of a port, NODE/PORT, so it is only shown.
func checkMachine(m *controlv1.Machine) error {
	for _, id := range slices.Concat([]uint32{m.GetId()}, m.GetGateways(), m.GetAttachments()) {
		if err := checkID(id); err != nil {
			return err
		}
	}
	if err := checkVNI(m.GetVni()); err != nil {
		return err
	}
	if len(m.GetMac()) > 0 {
		if err := checkMAC(m.GetMac()); err != nil {
			return err
		}
	}
	if err := checkSecondary(m.GetSecondary()); err != nil {
		return err
	}
	return checkAddresses(m.GetAddresses())
}

func checkSecondary(s *controlv1.SecondaryVLAN) error {
	if s.GetCommunity() == "" {
		return nil
	}
	if s.GetIsolated() {
		return errSecondary
	}
	return identity.CheckHostName(s.GetCommunity())
}

// checkAttachment holds a port against form. What the machine has of NICs and bridges is its own to find out.
func checkAttachment(a *controlv1.Attachment) error {
	if err := checkID(a.GetId()); err != nil {
		return err
	}
	if err := checkVNI(a.GetVni()); err != nil {
		return err
	}
	if err := identity.CheckHostName(a.GetPort()); err != nil {
		return err
	}
	switch {
	case (a.GetNic() == "") == (a.GetBridge() == ""):
		return errLink
	case len(a.GetProbeKey()) != 32 || a.GetPreference() > 1<<16-1:
		return errProbe
	case a.GetMoveHost() && a.GetNic() == "":
		return errMove
	case a.GetLacp() && (a.GetNic() == "" || a.GetRedundancy() != "all-active"):
		return errLACP
	case a.GetConfirm() != nil && (a.GetConfirm().CheckValid() != nil || a.GetConfirm().AsDuration() < 0):
		return errTime
	}
	return checkTagging(a)
}

// checkTagging is about which frames of the link are the port's, and when.
func checkTagging(a *controlv1.Attachment) error {
	switch {
	case a.GetVlan() > maxVLAN:
		return errVLAN
	case !slices.Contains([]string{"", "untagged", "tagged"}, a.GetNative()),
		!slices.Contains([]string{"", "nonzero", "always"}, a.GetPriority()),
		!slices.Contains([]string{"", "all-active"}, a.GetRedundancy()),
		a.GetVlan() == 0 && (a.GetNative() != "" || a.GetService()):
		return errTagging
	}
	return nil
}
