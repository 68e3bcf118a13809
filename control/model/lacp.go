package model

import (
	"errors"
	"fmt"
)

// ParseLACP reads whether the gateways of an attachment are to speak LACP; nothing is what there was.
func ParseLACP(text string, was bool) (bool, error) {
	switch text {
	case "":
		return was, nil
	case "on":
		return true, nil
	case "off":
		return false, nil
	}
	return false, fmt.Errorf("LACP is on (the site's switch aggregates its ports to the gateways by LACP) or off (statically, or not at all), found %q", text)
}

// WithLACP is the record with LACP or without.
func (a *Attachment) WithLACP(on bool) *Attachment {
	c := *a
	c.LACP = on
	return &c
}

// CheckLACP says why the gateways of an attachment cannot speak LACP, if they are to.
func (a *Attachment) CheckLACP() error {
	if !a.LACP {
		return nil
	}
	if a.Redundancy != AllActive {
		return errors.New("LACP is for one link aggregation to several gateways: say --redundancy all-active, too, or --lacp off")
	}
	for _, p := range a.Ports {
		if p.Bridge != "" {
			// IEEE 802.1Q-2018 table 8-1: no bridge passes on what is for the slow protocols' address.
			return fmt.Errorf("port %s is on bridge %s, which passes no LACPDUs on: attach its NIC itself (--nic), or say --lacp off", p.Name, p.Bridge)
		}
	}
	return nil
}
