package node

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/etherloom/etherloom/control/client"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
	"github.com/etherloom/etherloom/transport"
)

// Schema is the version of what local commands print with --json. Fields may be added to a version; none is taken away
// or given another meaning.
const Schema = 1

// Status is what `etherloom status` tells.
type Status struct {
	Schema      int                        `json:"schema"`
	Version     string                     `json:"version"`
	Name        string                     `json:"name"`
	ID          uint32                     `json:"id"`
	Network     string                     `json:"network"`
	Zone        string                     `json:"zone"`
	Since       time.Time                  `json:"since"`
	Certificate time.Time                  `json:"certificate_expires"`
	Policy      PolicyStatus               `json:"policy"`
	Segments    []string                   `json:"segments"`
	Lock        *client.Lock               `json:"lock,omitempty"` // while no controller is heard and one says so
	Controllers []client.Status            `json:"controllers"`
	Relays      []transport.RelayStatus    `json:"relays"`
	Underlay    []transport.UnderlayStatus `json:"underlay"`
	Resolver    ResolverStatus             `json:"resolver"`
	Problems    []Problem                  `json:"problems"`
}

// PolicyStatus is the signed state that the node holds.
type PolicyStatus struct {
	Held    bool      `json:"held"`
	Epoch   uint64    `json:"epoch"`
	Version uint64    `json:"version"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"` // past it nothing passes
}

// ResolverStatus is how this host resolves the network's names.
type ResolverStatus struct {
	Mode   string   `json:"mode"`
	Listen []string `json:"listen"`
	Note   string   `json:"note,omitempty"`
}

// Problem is something that an administrator should look at.
type Problem struct {
	About string `json:"about"`
	Text  string `json:"text"`
}

// Status describes the daemon.
func (d *Daemon) Status() Status {
	now := time.Now()
	d.mu.Lock()
	s := Status{
		Schema: Schema, Version: Version, Name: d.member.Name, ID: uint32(d.member.ID), Network: d.member.Network,
		Zone: d.member.Zone, Since: d.began, Certificate: d.cert.Load().NotAfter, Segments: []string{}, Problems: []Problem{},
	}
	if held := d.held.Load(); held != nil {
		h := held.Header
		s.Policy = PolicyStatus{
			Held: true, Epoch: h.GetEpoch(), Version: h.GetVersion(), Issued: h.GetIssued().AsTime(), Expires: held.Expires(),
		}
	}
	for _, seg := range d.sortedSegmentsLocked() {
		s.Segments = append(s.Segments, seg.name)
		s.Problems = append(append(s.Problems, seg.duplicates(now)...), seg.faults(now)...)
		if seg.tap == nil {
			continue
		}
		for _, text := range seg.tap.Drift() {
			s.Problems = append(s.Problems, Problem{"port " + seg.tap.Name(), text})
		}
		if text := offloadProblem(d.cfg.TAP.Offload, seg.tap.Offloads()); text != "" {
			s.Problems = append(s.Problems, Problem{"port " + seg.tap.Name(), text})
		}
	}
	for _, to := range slices.SortedFunc(maps.Keys(d.trunks), compareDevices) {
		s.Problems = append(s.Problems, d.trunks[to].problems()...)
	}
	for _, about := range slices.Sorted(maps.Keys(d.problems)) {
		s.Problems = withProblem(s.Problems, Problem{about, d.problems[about]})
	}
	d.mu.Unlock()
	s.Controllers, s.Relays, s.Underlay = d.client.Status(), d.endpoint.Relays(), d.endpoint.Underlay()
	s.Lock = lockOf(s.Controllers)
	state := d.resolver.State()
	s.Resolver = ResolverStatus{Mode: string(state.Mode), Note: state.Note, Listen: []string{}}
	for _, a := range d.dns.Listening() {
		s.Resolver.Listen = append(s.Resolver.Listen, a.String())
	}
	s.Problems = append(s.Problems, s.derived(now)...)
	return s
}

// withProblem adds a problem that is not there yet: that a NIC is gone is found by whoever follows it, and by whoever asks.
func withProblem(list []Problem, p Problem) []Problem {
	if slices.Contains(list, p) {
		return list
	}
	return append(list, p)
}

// offloadProblem says what the kernel has not granted of what it was asked for; nothing if that is nothing.
func offloadProblem(mode string, have ether.Offloads) string {
	missing := ether.Offloads{Checksum: !have.Checksum, TSO: !have.TSO, USO: !have.USO}.Names()
	if mode == "off" || len(missing) == 0 {
		return ""
	}
	return "this kernel does not offer TAPs " + strings.Join(missing, ", ") + ": all works, but takes more processor time; " +
		"Linux 6.2 and later offer it"
}

// derived finds the problems that follow from the rest.
func (s *Status) derived(now time.Time) []Problem {
	heard, out := s.contact()
	if s.Policy.Held && !s.Policy.Expires.After(now) {
		out = append(out, Problem{"policy", policy.PolicyExpired.String() + ": nothing passes"})
	}
	if heard && s.Policy.Held && len(s.Segments) == 0 {
		out = append(out, Problem{"grants", "no grant lets this node use a segment: an administrator adds one with `etherloom grant add`, " +
			"by this node's name or one of its labels"})
	}
	if len(s.Underlay) == 0 {
		out = append(out, Problem{"underlay", "no address of this machine can be used to reach peers: look at its interfaces, " +
			"and at underlay.interfaces if that is set"})
	}
	for _, u := range s.Underlay {
		if least := min(u.ReceiveBuffer, u.SendBuffer); least < transport.SocketBuffer {
			out = append(out, Problem{"underlay " + u.Local, fmt.Sprintf("the kernel grants its sockets %d KiB of buffer and not %d, so bursts are lost: "+
				"run with CAP_NET_ADMIN, or raise net.core.rmem_max and net.core.wmem_max", least>>10, transport.SocketBuffer>>10)})
		}
	}
	if down := downRelays(s.Relays); len(down) > 0 && len(down) == len(s.Relays) {
		out = append(out, Problem{"relays", "no relay can be reached, so only direct paths work: " + strings.Join(down, "; ")})
	}
	if s.Resolver.Note != "" {
		out = append(out, Problem{"resolver", s.Resolver.Note})
	}
	return out
}

// contact says whether a controller is heard, and what follows if none is.
func (s *Status) contact() (heard bool, out []Problem) {
	refused := ""
	for _, c := range s.Controllers {
		heard = heard || c.Connected
		if c.Refused {
			refused = c.Error
		}
	}
	switch {
	case heard:
	case refused != "":
		out = append(out, Problem{"membership", refused + "; this node and its peers have closed their links"})
	case s.Policy.Held:
		out = append(out, Problem{"controllers", "no controller can be reached; traffic goes on by the state of " +
			s.Policy.Issued.Format(time.RFC3339) + " until " + s.Policy.Expires.Format(time.RFC3339)})
	default:
		out = append(out, Problem{"controllers", "no controller can be reached yet, so this node knows nobody; it keeps trying"})
	}
	return heard, out
}

// lockOf is the lock that the controllers tell of; nil if one of them takes the node.
func lockOf(controllers []client.Status) (lock *client.Lock) {
	for _, c := range controllers {
		if c.Connected {
			return nil
		}
		if c.Lock != nil {
			lock = c.Lock
		}
	}
	return lock
}

func downRelays(list []transport.RelayStatus) (down []string) {
	for _, r := range list {
		if !r.Up {
			down = append(down, r.Name+": "+r.Why)
		}
	}
	return down
}

// Port is one line of `etherloom ports`.
type Port struct {
	Port        string            `json:"port"`
	Kind        string            `json:"kind"` // local, link or attached
	Segment     string            `json:"segment"`
	VNI         uint32            `json:"vni"`
	Identity    uint32            `json:"identity"`
	MAC         string            `json:"mac,omitempty"`
	MTU         int               `json:"mtu,omitempty"`
	Addresses   []string          `json:"addresses,omitempty"`
	Mode        string            `json:"address_mode,omitempty"`
	NIC         string            `json:"nic,omitempty"`     // of an attached port; or the bridge
	Bridge      string            `json:"bridge,omitempty"`  // the same: the bridge of this machine that it has joined, if it is one
	VLAN        uint16            `json:"vlan,omitempty"`    // the same; 0: untagged
	Up          *bool             `json:"up,omitempty"`      // the same: its NIC is there and has a carrier
	Offloads    []string          `json:"offloads,omitzero"` // that are on: checksum, tso, uso
	Queues      int               `json:"queues,omitempty"`
	Changed     []string          `json:"changed,omitempty"` // by somebody else
	State       string            `json:"state"`             // on, standby (another gateway carries the VLAN), blocked (a loop), shut, or disabled by a fault
	Why         string            `json:"why,omitempty"`
	Description string            `json:"description,omitempty"`
	Stats       vswitch.PortStats `json:"stats"`
}

// Ports lists the ports of every segment.
func (d *Daemon) Ports() []Port {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []Port{}
	for _, s := range d.sortedSegmentsLocked() {
		for _, p := range s.sw.Ports() {
			out = append(out, s.portLine(p))
		}
	}
	return out
}

func (s *segment) portLine(p *vswitch.Port) Port {
	line := Port{
		Port: s.portName(p), Kind: p.Kind.String(), Segment: s.name, VNI: uint32(s.vni), Identity: uint32(p.Identity), Stats: p.Stats(),
		State: "on", Description: p.Attributes().Description,
	}
	if f := p.Fault(time.Now()); f != nil {
		line.State, line.Why = "disabled", f.Reason
	}
	if p.Attributes().Shut {
		line.State, line.Why = "shut", ""
	}
	if a, is := p.Egress().(*attachment); is {
		line.State, line.Why = s.d.sentinel.describe(a, line.State, line.Why)
		up := a.trunk.wire.Up()
		line.NIC, line.VLAN, line.Up, line.MTU = cmp.Or(a.trunk.to.nic, a.trunk.to.bridge), a.tagging.VLAN, &up, s.mtu
		line.Bridge = a.trunk.to.bridge
	}
	if p.Kind == vswitch.Local && s.tap != nil {
		line.MAC, line.MTU, line.Mode = s.mac.String(), s.mtu, modeName(s.mode)
		line.Offloads, line.Queues = s.tap.Offloads().Names(), len(s.tap.Queues())
		line.Changed = s.tap.Drift()
		if addrs, err := s.tap.Addresses(); err == nil {
			for _, a := range addrs {
				line.Addresses = append(line.Addresses, a.String())
			}
		}
	}
	return line
}

// Name is one line of `etherloom names`.
type Name struct {
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"`
}

// Names lists the names that this host may know.
func (d *Daemon) Names() []Name {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []Name{}
	if d.contents == nil || d.contents.Settings == nil {
		return out
	}
	names, _ := d.namesLocked()
	for _, n := range slices.Sorted(maps.Keys(names)) {
		line := Name{Name: n, Addresses: []string{}}
		for _, a := range names[n] {
			line.Addresses = append(line.Addresses, a.String())
		}
		out = append(out, line)
	}
	return out
}

// Drop is one line of `etherloom drops`.
type Drop struct {
	Where  string `json:"where"` // "segment NAME", "nic NAME", "bridge NAME", "node" or "transport"
	Reason string `json:"reason"`
	Text   string `json:"text"`
	Count  uint64 `json:"count"`
}

// Drops lists why frames and datagrams went nowhere.
func (d *Daemon) Drops() []Drop {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []Drop{}
	for _, s := range d.sortedSegmentsLocked() {
		for _, c := range s.sw.Drops() {
			out = append(out, Drop{"segment " + s.name, c.Drop.Code(), c.Drop.String(), c.Count})
		}
	}
	for _, to := range slices.SortedFunc(maps.Keys(d.trunks), compareDevices) {
		out = append(out, d.trunks[to].drops()...)
	}
	if n := d.malformed.Load(); n > 0 {
		out = append(out, Drop{"node", "offload", "what is said to be left undone on the frame does not fit it", n})
	}
	counts := d.endpoint.Drops()
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		if n := counts[key]; n > 0 {
			out = append(out, Drop{"transport", key, transport.DropText(key), n})
		}
	}
	return out
}
