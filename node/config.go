package node

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/etherloom/etherloom/bridge/election"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/internal/settings"
	"github.com/etherloom/etherloom/node/records"
	"github.com/etherloom/etherloom/node/statedir"
	"github.com/etherloom/etherloom/policy"
	"github.com/etherloom/etherloom/posture"
)

// Config is what an administrator can set on the machine. Every field has a key in the file, a flag and an environment
// variable (internal/settings).
type Config struct {
	StateDir string `yaml:"state_dir" mapstructure:"state_dir" usage:"directory of this machine's keys and state"`

	Underlay struct {
		Interfaces []string `yaml:"interfaces" mapstructure:"interfaces" usage:"patterns of the links to send by, such as eth*; default: all but our own"`
	} `yaml:"underlay" mapstructure:"underlay"`

	TAP struct {
		Name    string `yaml:"name" mapstructure:"name" usage:"name of the TAPs; %d becomes the first number that is free"`
		Queues  int    `yaml:"queues" mapstructure:"queues" usage:"queues of each TAP, and sockets of each underlay address; 0: one for every two processors"`
		Offload string `yaml:"offload" mapstructure:"offload" usage:"auto exchanges super-frames and frames without checksum with the host as its kernel allows, off does not"`
	} `yaml:"tap" mapstructure:"tap"`

	DNS struct {
		Resolver string `yaml:"resolver" mapstructure:"resolver" usage:"auto points the host's resolver at the network's names, off does not"`
		Forward  bool   `yaml:"forward" mapstructure:"forward" usage:"forward other names to the host's resolvers, instead of refusing them"`
		Search   bool   `yaml:"search" mapstructure:"search" usage:"add the zone to the host's search list"`
	} `yaml:"dns" mapstructure:"dns"`

	Timers struct {
		Probe   time.Duration `yaml:"probe" mapstructure:"probe" usage:"between probes of a path that carries data"`
		Rekey   time.Duration `yaml:"rekey" mapstructure:"rekey" usage:"life of a session's keys, at most 2m"`
		PathMTU time.Duration `yaml:"path_mtu" mapstructure:"path_mtu" usage:"between searches for a larger path MTU"`
		Hello   time.Duration `yaml:"hello" mapstructure:"hello" usage:"between hellos of gateways of one VLAN; the lease of who carries its frames is four times as long"`
		FDBAge  time.Duration `yaml:"fdb_age" mapstructure:"fdb_age" usage:"how long an address that sends nothing is remembered"`
	} `yaml:"timers" mapstructure:"timers"`

	Limits struct {
		Broadcast int `yaml:"broadcast" mapstructure:"broadcast" usage:"broadcasts a second that one machine may send to a segment; 0: any number"`
		Multicast int `yaml:"multicast" mapstructure:"multicast" usage:"the same of multicast frames"`
		Control   int `yaml:"control" mapstructure:"control" usage:"the same of ARP and neighbour discovery to many, and of DHCP"`
		Joins     int `yaml:"joins" mapstructure:"joins" usage:"the same of reports that join and leave multicast groups"`
	} `yaml:"limits" mapstructure:"limits"`

	FDB struct {
		Entries   int           `yaml:"entries" mapstructure:"entries" usage:"addresses that a segment learns"`
		PerPort   int           `yaml:"per_port" mapstructure:"per_port" usage:"of those, how many behind one port"`
		Full      string        `yaml:"full" mapstructure:"full" usage:"evict forgets the address of that port that was silent longest for one that does not fit, refuse does not learn it"`
		Duplicate string        `yaml:"duplicate" mapstructure:"duplicate" usage:"freeze holds an address that moves too often where it was before, warn only tells of it, off does neither"`
		Moves     int           `yaml:"moves" mapstructure:"moves" usage:"how many moves are too often"`
		Within    time.Duration `yaml:"within" mapstructure:"within" usage:"in how long"`
		Freeze    time.Duration `yaml:"freeze" mapstructure:"freeze" usage:"how long such an address is held"`
	} `yaml:"fdb" mapstructure:"fdb"`

	Attachments []Declaration `yaml:"attachments" mapstructure:"attachments" usage:"VLANs that this gateway bridges, each with port, segment, nic or bridge, and what attachment add takes: vlan, native, service, priority, preference, move_host, confirm"`

	Posture posture.Config `yaml:"posture" mapstructure:"posture"`

	Policy struct {
		Reject bool `yaml:"reject" mapstructure:"reject" usage:"tell this host at once that no grant lets a packet pass: TCP by a reset, other IP by an ICMP error"`
	} `yaml:"policy" mapstructure:"policy"`

	Records struct {
		File      string        `yaml:"file" mapstructure:"file" usage:"file to append records of flows and of refused frames to, as JSON lines; default: none"`
		IPFIX     string        `yaml:"ipfix" mapstructure:"ipfix" usage:"IPFIX collector to send them to, HOST:PORT by UDP, or tcp://HOST:PORT; default: none"`
		Interval  time.Duration `yaml:"interval" mapstructure:"interval" usage:"between records of a flow that goes on, and between lines about what was refused"`
		All       bool          `yaml:"all" mapstructure:"all" usage:"record also the flows between members of a segment that may send each other everything"`
		LogDenied bool          `yaml:"log_denied" mapstructure:"log_denied" usage:"log what was refused, at most ten lines in an interval"`
	} `yaml:"records" mapstructure:"records"`

	Log settings.Log `yaml:"log" mapstructure:"log"`
}

// Defaults returns the configuration of a machine on which nothing was set.
func Defaults() Config {
	var c Config
	c.StateDir = statedir.Default
	c.TAP.Name, c.TAP.Offload = "loom%d", "auto"
	c.DNS.Resolver, c.DNS.Forward = "auto", true
	c.Timers.Probe, c.Timers.Rekey, c.Timers.FDBAge = 500*time.Millisecond, 2*time.Minute, 5*time.Minute
	c.Timers.PathMTU, c.Timers.Hello = time.Minute, election.DefaultTimers().Hello
	limits := policy.DefaultLimits()
	c.Limits.Broadcast, c.Limits.Multicast, c.Limits.Control, c.Limits.Joins = limits.Broadcast, limits.Multicast, limits.Control, limits.Joins
	c.FDB.Entries, c.FDB.PerPort, c.FDB.Full = fdb.DefaultEntries, fdb.DefaultPerPort, "evict"
	c.FDB.Duplicate, c.FDB.Moves, c.FDB.Within, c.FDB.Freeze = "freeze", fdb.DefaultMoves, fdb.DefaultWithin, fdb.DefaultFreeze
	c.Posture.Interval = 30 * time.Second
	c.Records.Interval, c.Records.LogDenied = 10*time.Second, true
	c.Log = settings.DefaultLog()
	return c
}

// Check says what is wrong with a configuration, each fault with the key it is about.
func (c *Config) Check() error {
	var errs []error
	need := func(ok bool, key string, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
		}
	}
	need(c.StateDir != "", "state_dir", "must name a directory")
	for _, p := range c.Underlay.Interfaces {
		_, err := path.Match(p, "x")
		need(err == nil, "underlay.interfaces", "%q is not a pattern such as eth*", p)
	}
	need(validTAPName(c.TAP.Name), "tap.name", "%q is not an interface name of up to 13 characters, with at most one %%d", c.TAP.Name)
	need(c.TAP.Queues >= 0 && c.TAP.Queues <= maxQueues, "tap.queues", "%d is not between 0 and 16", c.TAP.Queues)
	need(slices.Contains([]string{"auto", "off"}, c.TAP.Offload), "tap.offload", "%q is neither auto nor off", c.TAP.Offload)
	need(slices.Contains([]string{"auto", "off"}, c.DNS.Resolver), "dns.resolver", "%q is neither auto nor off", c.DNS.Resolver)
	for _, t := range []struct {
		key   string
		value time.Duration
	}{
		{"timers.probe", c.Timers.Probe},
		{"timers.rekey", c.Timers.Rekey},
		{"timers.path_mtu", c.Timers.PathMTU},
		{"timers.fdb_age", c.Timers.FDBAge},
		{"timers.hello", c.Timers.Hello},
		{"fdb.within", c.FDB.Within},
		{"fdb.freeze", c.FDB.Freeze},
	} {
		need(t.value >= 10*time.Millisecond, t.key, "%v is less than 10ms", t.value)
	}
	need(c.FDB.Entries >= 1 && c.FDB.Entries <= mostEntries, "fdb.entries", "%d is not between 1 and %d", c.FDB.Entries, mostEntries)
	need(c.FDB.PerPort >= 1 && c.FDB.PerPort <= mostEntries, "fdb.per_port", "%d is not between 1 and %d", c.FDB.PerPort, mostEntries)
	need(slices.Contains([]string{"evict", "refuse"}, c.FDB.Full), "fdb.full", "%q is neither evict nor refuse", c.FDB.Full)
	need(slices.Contains([]string{"freeze", "warn", "off"}, c.FDB.Duplicate), "fdb.duplicate", "%q is none of freeze, warn and off", c.FDB.Duplicate)
	need(c.FDB.Moves >= 2, "fdb.moves", "%d is less than 2", c.FDB.Moves)
	for _, l := range []struct {
		key   string
		value int
	}{{"limits.broadcast", c.Limits.Broadcast}, {"limits.multicast", c.Limits.Multicast}, {"limits.control", c.Limits.Control}, {"limits.joins", c.Limits.Joins}} {
		need(l.value >= 0 && l.value <= mostFrames, l.key, "%d frames a second is not between 0 (any number) and %d", l.value, mostFrames)
	}
	need(c.Records.File == "" || filepath.IsAbs(c.Records.File), "records.file", "%q is not an absolute path", c.Records.File)
	if _, _, err := records.ParseCollector(c.Records.IPFIX); c.Records.IPFIX != "" {
		need(err == nil, "records.ipfix", "%v", err)
	}
	need(c.Records.Interval >= leastInterval, "records.interval", "%v is less than %v", c.Records.Interval, leastInterval)
	if err := checkDeclarations(c.Attachments); err != nil {
		errs = append(errs, fmt.Errorf("attachments: %w", err))
	}
	return errors.Join(append(errs, c.Posture.Check(), c.Log.Check())...)
}

// mostFrames is the highest limit, in frames a second: more of one machine no processor carries.
const mostFrames = 10_000_000

func (c *Config) limits() policy.Limits {
	return policy.Limits{Broadcast: c.Limits.Broadcast, Multicast: c.Limits.Multicast, Control: c.Limits.Control, Joins: c.Limits.Joins}
}

// fdb is what bounds the table of each segment.
func (c *Config) fdb() fdb.Limits {
	l := fdb.Limits{
		Age: c.Timers.FDBAge, Entries: c.FDB.Entries, PerPort: c.FDB.PerPort, Moves: c.FDB.Moves, Within: c.FDB.Within, Freeze: c.FDB.Freeze,
	}
	if c.FDB.Full == "refuse" {
		l.Full = fdb.Refuse
	}
	switch c.FDB.Duplicate {
	case "warn":
		l.Duplicate = fdb.Warn
	case "off":
		l.Moves = -1
	}
	return l
}

const (
	mostEntries = 1_000_000 // addresses; as Open vSwitch allows

	maxQueues     = 16
	leastInterval = 200 * time.Millisecond
)

// election is how long things take among gateways of one VLAN.
func (c *Config) election() election.Timers {
	t := election.DefaultTimers()
	scale := func(d time.Duration) time.Duration {
		return (d * c.Timers.Hello / election.DefaultTimers().Hello).Round(time.Millisecond)
	}
	return election.Timers{
		Hello: c.Timers.Hello, Lease: scale(t.Lease), Margin: scale(t.Margin), Alive: scale(t.Alive), Hold: scale(t.Hold), Settle: scale(t.Settle),
		Patience: t.Patience,
	}
}

// queues is how many queues there shall be: each keeps two processors busy, one that sends and one that receives.
func (c *Config) queues() int {
	if c.TAP.Queues > 0 {
		return c.TAP.Queues
	}
	return min(max(runtime.GOMAXPROCS(0)/2, 1), maxQueues)
}

// validTAPName asks of a name what the kernel does (dev_valid_name in net/core/dev.c), before the first TAP is made.
func validTAPName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= 13 && strings.Count(s, "%") == strings.Count(s, "%d") && strings.Count(s, "%d") <= 1 &&
		!strings.ContainsAny(s, "/: \t\n\v\f\r")
}
