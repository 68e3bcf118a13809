package state

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/etherloom/etherloom/control/controlv1"
)

var (
	errService = errors.New("DHCP service has an address, pool, router or DNS server that is none of IPv4, or a lease of less than a minute")
	errLease   = errors.New("lease is of no IPv4 address, or its name is not printable")
)

// checkDHCP holds a segment's DHCP service against form. Whether its addresses are of the segment is for the controller to see to.
func checkDHCP(d *controlv1.DhcpService) error {
	if err := checkVNI(d.GetVni()); err != nil {
		return err
	}
	if err := checkMAC(d.GetMac()); err != nil {
		return err
	}
	for _, text := range append([]string{d.GetServer()}, d.GetDns()...) {
		if !isIPv4(text) {
			return errService
		}
	}
	from, to := d.GetPoolFrom(), d.GetPoolTo()
	switch {
	case (from != "" || to != "") && (!isIPv4(from) || !isIPv4(to)),
		d.GetRouter() != "" && !isIPv4(d.GetRouter()), d.GetLeaseSeconds() < 60, len(d.GetDomain()) > 253:
		return errService
	}
	return nil
}

func checkLease(l *controlv1.Lease) error {
	if err := checkVNI(l.GetVni()); err != nil {
		return err
	}
	if err := checkID(l.GetMachine()); err != nil {
		return err
	}
	if err := checkMAC(l.GetMac()); err != nil {
		return err
	}
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if !isIPv4(l.GetAddress()) || len(l.GetName()) > 63 || strings.ContainsFunc(l.GetName(), odd) {
		return errLease
	}
	return nil
}

func isIPv4(text string) bool {
	a, err := netip.ParseAddr(text)
	return err == nil && a.Is4()
}
