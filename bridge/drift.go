package bridge

import (
	"bytes"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
)

// Drift lists, in words, what somebody else has changed on the TAP. It changes nothing back.
func (t *TAP) Drift() []string {
	t.mu.Lock()
	addrs, away, name := slices.Clone(t.addrs), t.away, t.name
	t.mu.Unlock()
	var out []string
	if away {
		out = append(out, "it has been moved to another network namespace; its names are not answered there")
	}
	have, err := t.Addresses()
	if err != nil {
		return append(out, "its addresses cannot be read: "+err.Error())
	}
	for _, a := range addrs {
		if !slices.Contains(have, a.prefix) {
			out = append(out, fmt.Sprintf("its address %s was removed; `ip addr add %s dev %s` puts it back", a.prefix, a.prefix, name))
		}
	}
	for _, p := range have {
		if !slices.Contains(addrs, addr{p}) && p.Addr() != t.cfg.MAC.LinkLocal() {
			out = append(out, fmt.Sprintf("address %s was added by somebody else; policy drops what is sent from it", p))
		}
	}
	err = t.with(func(_ *netlink.Handle, link netlink.Link) error {
		out = append(out, t.linkDrift(link.Attrs())...)
		return nil
	})
	if err != nil {
		out = append(out, "the device cannot be read: "+err.Error())
	}
	return out
}

func (t *TAP) linkDrift(attrs *netlink.LinkAttrs) []string {
	var out []string
	if attrs.Flags&net.FlagUp == 0 {
		out = append(out, fmt.Sprintf("it was set down; `ip link set %s up` sets it up", attrs.Name))
	}
	if !bytes.Equal(attrs.HardwareAddr, t.cfg.MAC[:]) {
		out = append(out, fmt.Sprintf("its MAC is %s and should be %s; policy drops what is sent from another", attrs.HardwareAddr, t.cfg.MAC))
	}
	if attrs.MTU != t.cfg.MTU {
		out = append(out, fmt.Sprintf("its MTU is %d and should be %d", attrs.MTU, t.cfg.MTU))
	}
	if attrs.MasterIndex != 0 {
		out = append(out, "it was made a port of a bridge; frames of machines behind it are dropped, for they have no identity")
	}
	return out
}
