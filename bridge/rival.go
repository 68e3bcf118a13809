package bridge

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
)

// Problems lists, in words, what gets in the way of a wire, and how to stop it. It changes nothing.
func (w *Wire) Problems() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	var out []string
	if w.tap.Away() {
		out = append(out, fmt.Sprintf("%s has been moved to another network namespace, so that no frame reaches it: move it back", w.tap.Name()))
	}
	link, err := findNIC(w.h, w.cfg.NIC+w.cfg.Bridge)
	if err != nil {
		return append(out, err.Error())
	}
	a := link.Attrs()
	if w.cfg.Bridge != "" {
		return append(out, firewalled(a.Name, "/")...)
	}
	if w.held != nil && w.held.Host != nil {
		return append(append(out, w.besideLocked(link)...), firewalled(w.held.Host.Bridge, "/")...)
	}
	if err := needed(w.h, link); err != nil {
		out = append(out, err.Error())
	}
	if _, others, err := redirections(w.h, link); err == nil && others > 0 {
		out = append(out, fmt.Sprintf("somebody else has filters on %s, which see its frames first, and may keep them: "+
			"`tc filter show dev %s ingress`", a.Name, a.Name))
	}
	out = append(out, daemons("/", a.Index, a.Name)...)
	return append(out, bridgeFilters(w.h, link, "/")...)
}

// besideLocked is about a NIC whose host has moved to a bridge: whoever gives it addresses shall give them to that.
func (w *Wire) besideLocked(link netlink.Link) (out []string) {
	nic, bridge := link.Attrs().Name, w.held.Host.Bridge
	if err := because(w.h, link, carriesAddress); err != nil {
		out = append(out, fmt.Sprintf("somebody has given %s an address again, which is of no use there: let %s have it, where those of this host are. %v", nic, bridge, err))
	}
	for _, text := range daemons("/", link.Attrs().Index, nic) {
		out = append(out, fmt.Sprintf("%s. This host's addresses are on %s now", text, bridge))
	}
	return out
}

// daemons says which network daemon has the NIC in its hands: sooner or later it gives it an address. What they know of a device is in
// files that bear its number. Root is where the file system begins.
func daemons(root string, index int, nic string) []string {
	var out []string
	file := fmt.Sprint(index)
	// [device] managed=true, in a key file.
	if contains(filepath.Join(root, "run/NetworkManager/devices", file), func(key, value string) bool { return key == "managed" && value == "true" }) {
		out = append(out, fmt.Sprintf("NetworkManager manages %s and may give it addresses: `nmcli device set %s managed no`, and for "+
			"good unmanaged-devices=interface-name:%s under [keyfile] in /etc/NetworkManager/conf.d/", nic, nic, nic))
	}
	// Until networkd has decided, a device is pending or initialized; of what it leaves alone it says unmanaged.
	if contains(filepath.Join(root, "run/systemd/netif/links", file), func(key, value string) bool {
		return key == "ADMIN_STATE" && value != "unmanaged" && value != "pending" && value != "initialized" && value != "linger"
	}) {
		out = append(out, fmt.Sprintf("systemd-networkd manages %s and may give it addresses: write [Match] Name=%s and [Link] Unmanaged=yes into "+
			"/etc/systemd/network/00-%s.network, then `networkctl reload`", nic, nic, nic))
	}
	return out
}

// contains reports whether a file of KEY=VALUE lines has one that is asked for.
func contains(path string, want func(key, value string) bool) bool {
	text, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && want(key, value) {
			return true
		}
	}
	return false
}

// bridgeFilters is about a NIC whose frames go through a bridge of this machine: one end of a veth pair whose other is a port.
// There br_netfilter gives them to the host's firewall, which drops what it does not know; a wire by itself is not concerned.
func bridgeFilters(h *netlink.Handle, link netlink.Link, root string) []string {
	if link.Type() != "veth" || link.Attrs().NetNsID >= 0 {
		return nil
	}
	peer, err := h.LinkByIndex(link.Attrs().ParentIndex)
	if err != nil || peer.Attrs().MasterIndex == 0 {
		return nil
	}
	bridge, err := h.LinkByIndex(peer.Attrs().MasterIndex)
	if err != nil || bridge.Type() != "bridge" {
		return nil
	}
	return firewalled(bridge.Attrs().Name, root)
}

// firewalled says whether what passes a bridge goes through the host's firewall.
func firewalled(bridge, root string) []string {
	var on []string
	for _, name := range []string{"iptables", "ip6tables", "arptables"} {
		setting := "net/bridge/bridge-nf-call-" + name
		if text, err := os.ReadFile(filepath.Join(root, "proc/sys", setting)); err == nil && strings.TrimSpace(string(text)) != "0" {
			on = append(on, strings.ReplaceAll(setting, "/", ".")+"=0")
		}
	}
	if len(on) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("br_netfilter gives what passes %s to the host's firewall, which may drop it: "+
		"`sysctl -w %s`", bridge, strings.Join(on, " "))}
}
