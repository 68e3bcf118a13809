package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// LeaseDomain is the domain in which a DHCPServer knows by name those who have a lease.
const LeaseDomain = "site.example"

// DHCPServer is dnsmasq on a host: it leases addresses, and answers for the names of those who have one.
type DHCPServer struct {
	process *Process
	leases  string // dnsmasq's file
}

// Lease is what a DHCP server has given.
type Lease struct {
	MAC  net.HardwareAddr
	Addr netip.Addr
	Name string // of the host that has it; empty: it told none
}

// ServeDHCP leases the addresses from first to last to who asks on an interface of the host that has an address of the
// same prefix, and tells them this host as name server. The options are further ones of dnsmasq(8).
func (h *Host) ServeDHCP(ctx context.Context, name, first, last string, options ...string) (*DHCPServer, error) {
	d := &DHCPServer{leases: filepath.Join(h.dir, fmt.Sprintf("%03d-leases", h.next()))}
	process, err := h.Start(ctx, "dnsmasq", append([]string{
		"--no-daemon", "--conf-file=/dev/null", "--interface=" + name, "--bind-interfaces", "--log-dhcp",
		"--no-resolv", "--no-hosts", "--domain=" + LeaseDomain, "--local=/" + LeaseDomain + "/",
		"--dhcp-authoritative", "--no-ping", "--dhcp-leasefile=" + d.leases, "--dhcp-range=" + first + "," + last + ",2m",
	}, options...)...)
	if err != nil {
		return nil, err
	}
	d.process = process
	ready, cancel := context.WithTimeout(ctx, settlePatience)
	defer cancel()
	if err := process.WaitLog(ready, "sockets bound exclusively to interface "+name); err != nil {
		_ = d.Stop() // the error says why
		return nil, err
	}
	return d, nil
}

// Leases returns what the server has given and not got back, or not by itself.
func (d *DHCPServer) Leases() ([]Lease, error) {
	text, err := os.ReadFile(d.leases)
	if err != nil {
		return nil, err
	}
	var out []Lease
	for line := range strings.Lines(string(text)) {
		l, err := parseLease(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is not expiry, MAC, address, name and client of a lease: %w", d.leases, strings.TrimSpace(line), err)
		}
		out = append(out, l)
	}
	return out, nil
}

func parseLease(line string) (l Lease, err error) {
	fields := strings.Fields(line)
	if len(fields) != 5 {
		return l, fmt.Errorf("%d fields", len(fields))
	}
	if l.MAC, err = net.ParseMAC(fields[1]); err != nil {
		return l, err
	}
	if fields[3] != "*" {
		l.Name = fields[3]
	}
	l.Addr, err = netip.ParseAddr(fields[2])
	return l, err
}

// Process returns the server's process, whose log has every message.
func (d *DHCPServer) Process() *Process { return d.process }

// Stop ends the server.
func (d *DHCPServer) Stop() error { return d.process.Stop(time.Second) }

// TakeLease has udhcpc (Debian's package udhcpc) ask for an address for an interface of the host, which tells its name.
// It configures the interface, the default route and resolv.conf as it does everywhere, and ends. It asks four times
// in as many seconds; no lease is an error.
func (h *Host) TakeLease(ctx context.Context, name string) (netip.Prefix, error) {
	if _, err := h.Run(ctx, "udhcpc", "-i", name, "-f", "-q", "-n", "-t", "4", "-T", "1", "-A", "1", "-x", "hostname:"+h.name); err != nil {
		return netip.Prefix{}, err
	}
	var found netip.Prefix
	err := h.Do(func() error {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		addrs, err := ifi.Addrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				found = p
			}
		}
		return err
	})
	if err == nil && !found.IsValid() {
		err = fmt.Errorf("%s/%s has no address, although udhcpc has got a lease", h.name, name)
	}
	return found, err
}

// Resolve asks as programs on the host do which IPv4 address a name has. None is an error.
func (h *Host) Resolve(ctx context.Context, name string) (netip.Addr, error) {
	out, err := h.Run(ctx, "getent", "ahostsv4", name)
	if err != nil {
		return netip.Addr{}, err
	}
	first, _, _ := strings.Cut(out, " ")
	return netip.ParseAddr(first)
}
