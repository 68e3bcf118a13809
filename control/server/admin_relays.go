package server

import (
	"context"
	"crypto/rand"
	"net/netip"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/compile"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/credential"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
	"github.com/etherloom/etherloom/identity"
)

// AddRelay tells all nodes of a relay, and makes the credential by which it serves.
func (s *adminService) AddRelay(ctx context.Context, r *controlv1.AddRelayRequest) (*controlv1.AddRelayResponse, error) {
	relay := &model.Relay{
		Name: r.GetName(), Hosts: r.GetHosts(), Port: r.GetPort(), ProbePort: r.GetProbePort(),
	}
	cred, err := s.c.newRelay(relay)
	if err != nil {
		return nil, err
	}
	err = s.update(ctx, func(tx *store.Tx) error {
		if tx.Model.Relays[relay.Name] != nil {
			return refuse(connect.CodeAlreadyExists, "there is a relay %q: choose another name, or remove that one first", relay.Name)
		}
		tx.Put("relay.add", relay)
		return nil
	})
	if err != nil {
		return nil, err
	}
	data, err := cred.Marshal()
	if err != nil {
		return nil, err
	}
	return &controlv1.AddRelayResponse{Credential: string(data)}, nil
}

// newRelay checks a relay's record and gives it a fresh secret.
func (c *Controller) newRelay(r *model.Relay) (*credential.Relay, error) {
	if err := checkRelay(r); err != nil {
		return nil, err
	}
	var secret identity.RelaySecret
	rand.Read(secret[:])
	if err := compile.WrapRelay(c.wrap, r, secret); err != nil {
		return nil, err
	}
	return c.relayCredential(r, secret), nil
}

func (c *Controller) relayCredential(r *model.Relay, secret identity.RelaySecret) *credential.Relay {
	return &credential.Relay{
		Network: c.ca.Network, Name: r.Name, Secret: secret, Port: uint16(r.Port), ProbePort: uint16(r.ProbePort),
	}
}

const maxHosts = 8

func checkRelay(r *model.Relay) error {
	if err := identity.CheckHostName(r.Name); err != nil {
		return refuse(connect.CodeInvalidArgument, "relay: %w", err)
	}
	if len(r.Hosts) == 0 || len(r.Hosts) > maxHosts {
		return refuse(connect.CodeInvalidArgument, "a relay with %d addresses: expected 1 to %d", len(r.Hosts), maxHosts)
	}
	for _, h := range r.Hosts {
		if !hostLike(h) {
			return refuse(connect.CodeInvalidArgument, "relay address %q is neither an IP address nor a DNS name", h)
		}
	}
	for _, port := range []uint32{r.Port, r.ProbePort} {
		if port == 0 || port > 65535 {
			return refuse(connect.CodeInvalidArgument, "relay port %d: expected 1 to 65535", port)
		}
	}
	if r.Port == r.ProbePort {
		return refuse(connect.CodeInvalidArgument, "relay port %d is given twice: expected one for STUN and TURN, another for STUN alone", r.Port)
	}
	return nil
}

func hostLike(h string) bool {
	if _, err := netip.ParseAddr(h); err == nil {
		return true
	}
	return len(h) <= 253 && !slices.ContainsFunc(strings.Split(strings.ToLower(h), "."), func(label string) bool {
		return identity.CheckHostName(label) != nil
	})
}

// LocalRelay returns the credential of a relay that runs beside this controller. It adds the relay if there is none of
// that name, and tells nodes of its address and ports as they are now.
func (c *Controller) LocalRelay(ctx context.Context, name string, hosts []string, ports credential.Relay) (*credential.Relay, error) {
	want := &model.Relay{
		Name: name, Hosts: hosts, Port: uint32(ports.Port), ProbePort: uint32(ports.ProbePort),
	}
	cred, err := c.newRelay(want)
	if err != nil {
		return nil, err
	}
	err = c.store.Update(ctx, c.actor(), func(tx *store.Tx) error {
		old := tx.Model.Relays[name]
		if old == nil {
			tx.Put("relay.add", want)
			return nil
		}
		secret, err := compile.OpenRelay(c.wrap, old)
		if err != nil {
			return err
		}
		next := *want
		next.Wrapped = old.Wrapped
		cred = c.relayCredential(&next, secret)
		if !model.SameRelay(&next, old) {
			tx.Put("relay.change", &next)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return cred, nil
}

// ListRelays lists all relays.
func (s *adminService) ListRelays(context.Context, *controlv1.ListRelaysRequest) (*controlv1.ListRelaysResponse, error) {
	out := &controlv1.ListRelaysResponse{}
	for _, r := range inOrder(s.c.store.Model().Relays) {
		out.Relays = append(out.Relays, r.Proto())
	}
	return out, nil
}

// RemoveRelay takes a relay away from all nodes.
func (s *adminService) RemoveRelay(ctx context.Context, r *controlv1.RemoveRelayRequest) (*controlv1.RemoveRelayResponse, error) {
	err := s.update(ctx, func(tx *store.Tx) error {
		relay := tx.Model.Relays[r.GetName()]
		if relay == nil {
			return refuse(connect.CodeNotFound, "there is no relay %q: `etherloom relay list` shows those there are", r.GetName())
		}
		tx.Delete("relay.remove", relay)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.RemoveRelayResponse{}, nil
}
