package node

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"github.com/etherloom/etherloom/control/controlv1"
)

func modeName(m controlv1.AddressMode) string {
	switch m {
	case controlv1.AddressMode_ADDRESS_MODE_AUTO:
		return "auto"
	case controlv1.AddressMode_ADDRESS_MODE_STATIC:
		return "static"
	case controlv1.AddressMode_ADDRESS_MODE_DHCP:
		return "dhcp"
	case controlv1.AddressMode_ADDRESS_MODE_NONE:
		return "none"
	default:
		return "unknown"
	}
}

// setModeLocked starts or stops the DHCP client.
func (s *segment) setModeLocked(mode controlv1.AddressMode) {
	dhcp := mode == controlv1.AddressMode_ADDRESS_MODE_DHCP
	s.mode = mode
	switch {
	case dhcp && s.stop == nil:
		ctx, cancel := context.WithCancel(s.d.ctx)
		s.stop = cancel
		s.d.group.Go(func() error { return s.lease4(ctx) })
	case !dhcp && s.stop != nil:
		s.stop()
		s.stop = nil
		s.d.problemLocked("dhcp "+s.name, nil)
	}
}

// lease4 keeps an IPv4 lease from a DHCP server on the segment. The address takes the same way as every other: it is
// reported to the controller, which refuses one that somebody else has, and comes back in the signed state, for the peers
// must know it before they let it pass.
func (s *segment) lease4(ctx context.Context) error {
	var lease *nclient4.Lease
	for ctx.Err() == nil {
		next, err := s.askDHCP(ctx, lease)
		if err == nil {
			err = s.d.client.ReportAddress(ctx, uint32(s.vni), leasedPrefix(next).String())
		}
		if ctx.Err() != nil {
			return nil
		}
		s.d.mu.Lock()
		if err != nil {
			err = fmt.Errorf("no address by DHCP on %s: %w", s.tap.Name(), err)
		}
		s.d.problemLocked("dhcp "+s.name, err)
		s.d.mu.Unlock()
		wait := 5 * time.Second
		if err == nil {
			lease = next
			// T1, half of the lease (RFC 2131 section 4.4.5).
			wait = max(lease.ACK.IPAddressLeaseTime(time.Hour)/2, time.Second)
		} else if lease != nil && time.Since(lease.CreationTime) > lease.ACK.IPAddressLeaseTime(time.Hour) {
			lease = nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return nil
}

// A question is repeated after half a second, and then after twice as long each time, 15.5 s in all (RFC 2131 section 4.1 begins
// with 4 s). The first may be lost, because it opens the link to the server's node.
const (
	firstWait = 500 * time.Millisecond
	questions = 5
)

func (s *segment) askDHCP(ctx context.Context, lease *nclient4.Lease) (*nclient4.Lease, error) {
	client, err := nclient4.New(s.tap.Name(), nclient4.WithTimeout(firstWait), nclient4.WithRetry(questions))
	if err != nil {
		return nil, err
	}
	defer client.Close() //nolint:errcheck // a packet socket
	if lease != nil {
		return client.Renew(ctx, lease)
	}
	return client.Request(ctx)
}

func leasedPrefix(l *nclient4.Lease) netip.Prefix {
	addr, _ := netip.AddrFromSlice(l.ACK.YourIPAddr.To4())
	ones, _ := l.ACK.SubnetMask().Size()
	if ones == 0 {
		ones = 24
	}
	return netip.PrefixFrom(addr, ones)
}
