package state

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

// maxVNI is the greatest VNI: it has 24 bits (RFC 7348 section 5).
const maxVNI = 1<<24 - 1

var (
	errVNI     = errors.New("VNI is not within 1 to 2^24-1")
	errID      = errors.New("id 0 is nobody's")
	errKeySize = errors.New("X25519 key has not 32 bytes")
	errMAC     = errors.New("MAC is not a unicast one of 6 bytes")
	errMTU     = errors.New("MTU is not within 576 to 9216")
	errPort    = errors.New("port is not within 1 to 65535, or the range ends before it begins")
	errBoth    = errors.New("a grant is to a segment or to nodes, not to both")
	errProbe   = errors.New("probe key has not 32 bytes, or preference is above 65535")
	errTime    = errors.New("duration is negative or out of range")
	errNoHost  = errors.New("relay without a name or a host")
	errVLAN    = errors.New("VLAN is not within 0 to 4094")
	errLink    = errors.New("attachment is on a NIC or on a bridge, one of the two")
	errMove    = errors.New("a bridge is joined: nothing of its host is moved")
	errLACP    = errors.New("attachment speaks LACP and is not all-active, or is on a bridge")
	errTagging = errors.New("attachment has a way to tag that is not known, or that needs a VLAN and has none")

	errSecondary = errors.New("machine is isolated, and of a community")
)

// check holds the content of a resource against its form, so that the node's own code need not doubt it.
func check(r *controlv1.Resource) error {
	switch k := r.GetKind().(type) {
	case *controlv1.Resource_Settings:
		return checkSettings(k.Settings)
	case *controlv1.Resource_Segment:
		return checkSegment(k.Segment)
	case *controlv1.Resource_Self:
		return checkPeer(k.Self)
	case *controlv1.Resource_Peer:
		return checkPeer(k.Peer)
	case *controlv1.Resource_Grant:
		return checkGrant(k.Grant)
	case *controlv1.Resource_Reach:
		return checkReach(k.Reach)
	case *controlv1.Resource_Relay:
		return checkRelay(k.Relay)
	case *controlv1.Resource_Revocation:
		return checkID(k.Revocation.GetId())
	case *controlv1.Resource_Machine:
		return checkMachine(k.Machine)
	case *controlv1.Resource_Attachment:
		return checkAttachment(k.Attachment)
	case *controlv1.Resource_Dhcp:
		return checkDHCP(k.Dhcp)
	case *controlv1.Resource_Lease:
		return checkLease(k.Lease)
	}
	return errNoKind
}

func checkID(id uint32) error {
	if id == 0 {
		return errID
	}
	return nil
}

func checkVNI(vni uint32) error {
	if vni == 0 || vni > maxVNI {
		return errVNI
	}
	return nil
}

func checkSettings(s *controlv1.Settings) error {
	for _, d := range []*durationpb.Duration{s.GetCertificateLifetime(), s.GetGrace(), s.GetLinkIdle()} {
		if d != nil && (d.CheckValid() != nil || d.AsDuration() < 0) {
			return errTime
		}
	}
	return nil
}

func checkSegment(s *controlv1.Segment) error {
	if err := checkVNI(s.GetVni()); err != nil {
		return err
	}
	if s.GetMtu() < 576 || s.GetMtu() > 9216 {
		return errMTU
	}
	if err := identity.CheckHostName(s.GetName()); err != nil {
		return err
	}
	for _, text := range []string{s.GetIpv4Prefix(), s.GetIpv6Prefix()} {
		if text == "" {
			continue
		}
		if p, err := netip.ParsePrefix(text); err != nil || p != p.Masked() {
			return fmt.Errorf("%q is not a prefix", text)
		}
	}
	return nil
}

func checkPeer(p *controlv1.Peer) error {
	if err := checkID(p.GetId()); err != nil {
		return err
	}
	if len(p.GetStaticKey()) != 32 {
		return errKeySize
	}
	if err := identity.CheckHostName(p.GetName()); err != nil {
		return err
	}
	for _, s := range p.GetStations() {
		if err := checkStation(s); err != nil {
			return err
		}
	}
	return nil
}

func checkStation(s *controlv1.Station) error {
	if err := checkVNI(s.GetVni()); err != nil {
		return err
	}
	if err := checkMAC(s.GetMac()); err != nil {
		return err
	}
	return checkAddresses(s.GetAddresses())
}

// checkMAC: IEEE 802-2014 section 8.2: the least significant bit of the first octet marks a group address, which nobody owns.
func checkMAC(mac []byte) error {
	if len(mac) != 6 || mac[0]&1 != 0 {
		return errMAC
	}
	return nil
}

func checkAddresses(list []string) error {
	for _, a := range list {
		if _, err := netip.ParsePrefix(a); err != nil {
			return fmt.Errorf("%q is not ADDRESS/LENGTH", a)
		}
	}
	return nil
}

func checkGrant(g *controlv1.Grant) error {
	for _, id := range append([]uint32{g.GetId()}, g.GetSources()...) {
		if err := checkID(id); err != nil {
			return err
		}
	}
	return checkVNI(g.GetVni())
}

func checkReach(r *controlv1.Reach) error {
	for _, id := range slices.Concat([]uint32{r.GetId()}, r.GetSources(), r.GetTargets()) {
		if err := checkID(id); err != nil {
			return err
		}
	}
	if r.GetSegment() && len(r.GetTargets()) > 0 {
		return errBoth
	}
	return checkVNI(r.GetVni())
}

func checkRelay(r *controlv1.Relay) error {
	if r.GetName() == "" || len(r.GetHosts()) == 0 {
		return errNoHost
	}
	for _, port := range []uint32{r.GetPort(), r.GetProbePort()} {
		if port == 0 || port > 65535 {
			return errPort
		}
	}
	return nil
}
