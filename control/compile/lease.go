package compile

import (
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/state"
)

// leaseKey names a lease as nodes are told it.
type leaseKey struct {
	machine *model.Profile
	lease   model.LeaseTold
}

// addServices adds DHCP services: of segments that a node is told of.
func (c *Compiler) addServices(s state.State, list []*model.DHCP) error {
	for _, d := range list {
		err := c.addOnce(s, d, func() *controlv1.Resource {
			return &controlv1.Resource{Kind: &controlv1.Resource_Dhcp{Dhcp: d.Proto()}}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// addLeases adds what a machine has leased, for whoever is told of the machine.
func (c *Compiler) addLeases(s state.State, p *model.Profile) error {
	if p.Machine == nil {
		return nil
	}
	for _, l := range p.Machine.Leases {
		err := c.addOnce(s, leaseKey{p, l}, func() *controlv1.Resource {
			return &controlv1.Resource{Kind: &controlv1.Resource_Lease{Lease: l.Proto(p.Stations[0].VNI, p.ID)}}
		})
		if err != nil {
			return err
		}
	}
	return nil
}
