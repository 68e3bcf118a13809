package hostdns

import (
	"net/netip"
	"os"
)

// stub is where systemd-resolved listens for programs that read resolv.conf (resolved.conf(5)).
const stub = "127.0.0.53"

// Upstreams returns the host's own nameservers, in their order, all on port 53 and without ours: those of
// resolv.conf, or those that systemd-resolved has collected from the links. It reads the file at each call, so it is
// always what the host uses now, and has nothing to return if there is none.
func (r *Resolver) Upstreams() []netip.AddrPort {
	state := r.State()
	paths := []string{r.cfg.ResolvConf}
	if state.Mode == ModeResolved {
		// The stub asks resolved, which asks us only for our own domains: a detour and not a circle.
		paths = []string{r.cfg.UplinkConf, r.cfg.ResolvConf}
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var out []netip.AddrPort
		for _, a := range parseConf(content).nameservers {
			if a != state.Server.Addr() {
				out = append(out, netip.AddrPortFrom(a, 53))
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return nil
}

// bypass says so if programs that read resolv.conf do not come to systemd-resolved, and thus not to us.
func (r *Resolver) bypass() string {
	content, err := os.ReadFile(r.cfg.ResolvConf)
	if err == nil {
		for _, a := range parseConf(content).nameservers {
			if a.String() == stub {
				return ""
			}
		}
	}
	return r.cfg.ResolvConf + " does not name systemd-resolved (" + stub +
		"): programs that read it do not see the network's names"
}
