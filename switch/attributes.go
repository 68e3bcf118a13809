package vswitch

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// Attributes are what an administrator sets on a port. Those that Linux bridges have, too, are called as in bridge(8).
type Attributes struct {
	Shut        bool   // it carries nothing
	Description string // for people

	Learning   bool // where its sources are is remembered
	Flood      bool // frames to addresses that nobody was seen with go out of it
	McastFlood bool // so do frames to groups
	BcastFlood bool // and to everybody
	Isolated   bool // it exchanges frames only with ports that are neither isolated nor of a community
	Locked     bool // of machines without a name only those send through it whose MAC has a static entry there
	Guard      bool // a BPDU disables it

	NeighSuppress bool // questions for addresses are answered here from what is known, and go no further

	Community  string // it exchanges frames with its ports, and with those that are neither isolated nor of another; "" of none
	BackupPort string // to which goes what is for those behind this port while it has no carrier; "" none

	RateIn, RateOut   int64 // bits a second that may enter by it, and leave; 0: any number
	BurstIn, BurstOut int64 // octets that may come at once; 0: what suits the rate

	// How many frames may enter through it in a second, of each kind; 0: any number.
	StormBroadcast, StormMulticast, StormUnknown int
	// Recovery is how long it stays disabled after a fault; 0: until an administrator enables it.
	Recovery time.Duration
}

// DefaultAttributes are those of a new port.
func DefaultAttributes() Attributes {
	return Attributes{Learning: true, Flood: true, McastFlood: true, BcastFlood: true, Recovery: 5 * time.Minute}
}

// maxDescription is how long a description may be, in bytes.
const maxDescription = 128

// flags are the attributes that are on or off, by name.
func (a *Attributes) flags() map[string]*bool {
	return map[string]*bool{
		"shut": &a.Shut, "learning": &a.Learning, "flood": &a.Flood, "mcast_flood": &a.McastFlood, "bcast_flood": &a.BcastFlood,
		"isolated": &a.Isolated, "locked": &a.Locked, "guard": &a.Guard, "neigh_suppress": &a.NeighSuppress,
	}
}

// rates are those that are frames a second, by name.
func (a *Attributes) rates() map[string]*int {
	return map[string]*int{"storm_broadcast": &a.StormBroadcast, "storm_multicast": &a.StormMulticast, "storm_unknown": &a.StormUnknown}
}

// words are those that are names, by name.
func (a *Attributes) words() map[string]*string {
	return map[string]*string{"community": &a.Community, "backup_port": &a.BackupPort}
}

// shaping are those that are rates and sizes as in tc(8), by name.
func (a *Attributes) shaping() (bits, bursts map[string]*int64) {
	return map[string]*int64{"rate_in": &a.RateIn, "rate_out": &a.RateOut}, map[string]*int64{"burst_in": &a.BurstIn, "burst_out": &a.BurstOut}
}

// Set changes the attribute of a name. Flags are on or off, storm limits frames a second, recovery a duration such as 5m, rates and bursts
// have units of tc(8), and a community and a backup port names, or none.
func (a *Attributes) Set(key, value string) error {
	if flag := a.flags()[key]; flag != nil {
		if value != "on" && value != "off" {
			return fmt.Errorf("%s is on or off, found %q", key, value)
		}
		*flag = value == "on"
		return nil
	}
	if rate := a.rates()[key]; rate != nil {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 || n > maxRate {
			return fmt.Errorf("%s is a number of frames a second from 0 (any number) to %d, found %q", key, maxRate, value)
		}
		*rate = n
		return nil
	}
	if bits, bursts := a.shaping(); bits[key] != nil || bursts[key] != nil {
		return shape(bits[key], bursts[key], key, value)
	}
	if word := a.words()[key]; word != nil {
		return setWord(word, key, value)
	}
	return a.setOther(key, value)
}

// setOther changes one that is of a kind of its own.
func (a *Attributes) setOther(key, value string) error {
	switch key {
	case "description":
		return a.describe(value)
	case "recovery":
		d, err := time.ParseDuration(value)
		if err != nil || d != 0 && d < minRecovery {
			return fmt.Errorf("recovery is a duration of at least %v such as 5m, or 0s for never, found %q", minRecovery, value)
		}
		a.Recovery = d
		return nil
	}
	if why := absent[key]; why != "" {
		return fmt.Errorf("%s is not an attribute here: %s; there are %s", key, why, strings.Join(a.Names(), ", "))
	}
	return fmt.Errorf("there is no attribute %q: there are %s", key, strings.Join(a.Names(), ", "))
}

// describe sets the description. It is shown on terminals, which obey control characters of every kind.
func (a *Attributes) describe(text string) error {
	if len(text) > maxDescription || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("description is one line of printable text of at most %d bytes, found %q", maxDescription, text)
	}
	a.Description = text
	return nil
}

// setWord reads a name; none is that of nothing.
func setWord(to *string, key, value string) error {
	if len(value) == 0 || len(value) > maxDescription || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%s is a name without blanks, or none, found %q", key, value)
	}
	if *to = value; value == "none" {
		*to = ""
	}
	return nil
}

const (
	// maxRate is the highest storm limit: more no port carries.
	maxRate = 10_000_000
	// minRecovery is the shortest time for which a fault disables a port: within less, nobody hears of it.
	minRecovery = time.Second
)

// absent are the attributes of bridge(8) that somebody may look for, and why there are none.
var absent = map[string]string{ //nolint:gochecknoglobals // a constant table
	"hairpin":    "no frame leaves through the port that it came in by, for a site's switch carries it there itself",
	"fastleave":  "frames to groups are not narrowed to who has joined them, so nobody leaves; mcast_flood=off keeps all of them from the port",
	"root_block": "this is no bridge of a spanning tree, so none can be its root; guard=on disables a port by any BPDU",
	"cost":       "this is no bridge of a spanning tree", "priority": "this is no bridge of a spanning tree", "state": "a port is shut by shut=on",
}

// Names lists the attributes.
func (a *Attributes) Names() []string {
	names := []string{"description", "recovery"}
	for k := range a.flags() {
		names = append(names, k)
	}
	for k := range a.rates() {
		names = append(names, k)
	}
	for k := range a.words() {
		names = append(names, k)
	}
	bits, bursts := a.shaping()
	for k := range bits {
		names = append(names, k)
	}
	for k := range bursts {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}

// Values returns the attributes as Set takes them, by name.
func (a Attributes) Values() map[string]string {
	out := map[string]string{"description": a.Description, "recovery": a.Recovery.String()}
	for k, flag := range a.flags() {
		out[k] = map[bool]string{true: "on", false: "off"}[*flag]
	}
	for k, rate := range a.rates() {
		out[k] = strconv.Itoa(*rate)
	}
	for k, word := range a.words() {
		out[k] = cmp.Or(*word, "none")
	}
	bits, bursts := a.shaping()
	for k, n := range bits {
		out[k] = rateText(*n)
	}
	for k, n := range bursts {
		out[k] = burstText(*n)
	}
	return out
}

// Attributes returns the port's.
func (p *Port) Attributes() Attributes { return *p.attributes.Load() }

// SetAttributes replaces them.
func (p *Port) SetAttributes(a Attributes) { p.attributes.Store(&a) }

// Fault is why a port was disabled.
type Fault struct {
	Reason string    // what was found
	Since  time.Time // when
	Until  time.Time // when it recovers by itself; zero: when an administrator enables it
}

// Disable stops a port because of a fault, for as long as its attributes say. One that is disabled already stays as it is.
func (p *Port) Disable(reason string, now time.Time) {
	f := &Fault{Reason: reason, Since: now}
	if r := p.Attributes().Recovery; r > 0 {
		f.Until = now.Add(r)
	}
	if old := p.fault.Load(); old == nil || old.over(now) {
		p.fault.Store(f)
	}
}

// Enable ends a fault.
func (p *Port) Enable() { p.fault.Store(nil) }

// Fault returns why the port is disabled now; nil if it is not.
func (p *Port) Fault(now time.Time) *Fault {
	if f := p.fault.Load(); f != nil && !f.over(now) {
		return f
	}
	return nil
}

func (f *Fault) over(now time.Time) bool { return !f.Until.IsZero() && !now.Before(f.Until) }

// stopped reports whether the port carries nothing now.
func (p *Port) stopped(now time.Time) bool {
	if gate := p.gate.Load(); gate != nil && !(*gate)(now) {
		return true
	}
	return p.attributes.Load().Shut || p.Fault(now) != nil
}

// Carries reports whether the port carries frames now.
func (p *Port) Carries(now time.Time) bool { return !p.stopped(now) }

// SetGate has the port carry frames only while open says so, of the time of each batch. It must neither block nor allocate.
func (p *Port) SetGate(open func(now time.Time) bool) { p.gate.Store(&open) }

// SetLead has the port carry frames for many onto its VLAN only while elected says so, if other gateways carry it, too. It must neither
// block nor allocate.
func (p *Port) SetLead(elected func(now time.Time) bool) { p.lead.Store(&elected) }

// isolatedFrom reports whether two ports exchange no frames. It is about ports of this node, links among them. Machines at other nodes
// are kept apart by what the signed state says of their attachments: there policy decides (policy.SecondaryVLAN).
func (p *Port) isolatedFrom(q *Port) bool {
	a, b := p.attributes.Load(), q.attributes.Load()
	return policy.SecondaryVLAN{Isolated: a.Isolated, Community: a.Community}.Apart(policy.SecondaryVLAN{Isolated: b.Isolated, Community: b.Community})
}

// floods reports whether a frame that is flooded goes out of the port.
func (p *Port) floods(c *carriage) bool {
	a := p.attributes.Load()
	switch {
	case p.stopped(c.Now), p.isolatedFrom(c.in):
		return false
	case c.Frame.Dst == ether.Broadcast:
		return a.BcastFlood
	case c.Frame.Dst.IsGroup():
		return a.McastFlood
	default:
		return a.Flood
	}
}

// stormy holds a frame that is flooded against what the port lets in of its kind.
func (l *layout) stormy(c *carriage) Drop {
	a := c.in.attributes.Load()
	limits := policy.Limits{Broadcast: a.StormBroadcast, Multicast: a.StormMulticast, Control: a.StormUnknown}
	budget := policy.Control // stands for what is for nobody who was seen
	switch {
	case c.Frame.Dst == ether.Broadcast:
		budget = policy.Broadcasts
	case c.Frame.Dst.IsGroup():
		budget = policy.Multicasts
	}
	frames := 1
	if size := int(c.undone.Size); size > 0 {
		frames = (len(c.Frame.Payload) + size - 1) / size
	}
	var verdict policy.Verdict
	if c.asked != nil {
		verdict = c.in.storm.LookPaced(&limits, budget, frames, c.Now.Sub(l.start))
	} else {
		verdict = c.in.storm.TakePaced(&limits, budget, frames, c.Now.Sub(l.start))
	}
	if verdict != policy.Pass {
		return DropStorm
	}
	return Forwarded
}
