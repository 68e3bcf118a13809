package node

import (
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
)

func TestDefaultsAreGood(t *testing.T) {
	c := Defaults()
	if err := c.Check(); err != nil {
		t.Errorf("%v", err)
	}
	if c.StateDir != "/var/lib/etherloom" || c.TAP.Name != "loom%d" || c.TAP.Queues != 0 || c.queues() < 1 || c.TAP.Offload != "auto" || c.DNS.Resolver != "auto" || !c.DNS.Forward || c.DNS.Search {
		t.Errorf("defaults are %+v", c)
	}
}

// TestCheck: each fault is told with its key and what was found; what is at the edge of good is good.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*Config)
		want string // "": good
	}{
		{"no directory", func(c *Config) { c.StateDir = "" }, "state_dir: "},
		{"bad pattern", func(c *Config) { c.Underlay.Interfaces = []string{"eth*", "en[p"} }, `underlay.interfaces: "en[p"`},
		{"good patterns", func(c *Config) { c.Underlay.Interfaces = []string{"eth*", "en[ps]*"} }, ""},
		{"no TAP name", func(c *Config) { c.TAP.Name = "" }, `tap.name: ""`},
		{"longest TAP name", func(c *Config) { c.TAP.Name = "abcdefghijk%d" }, ""},
		{"TAP name too long", func(c *Config) { c.TAP.Name = "abcdefghijkl%d" }, "tap.name: "},
		{"TAP name with a slash", func(c *Config) { c.TAP.Name = "a/b" }, "tap.name: "},
		{"TAP name with a blank", func(c *Config) { c.TAP.Name = "a b" }, "tap.name: "},
		{"TAP name with a tab", func(c *Config) { c.TAP.Name = "a\tb" }, "tap.name: "},
		{"TAP name with a line", func(c *Config) { c.TAP.Name = "a\n" }, "tap.name: "},
		{"TAP name with a colon", func(c *Config) { c.TAP.Name = "a:1" }, "tap.name: "},
		{"TAP name that is a directory", func(c *Config) { c.TAP.Name = "." }, "tap.name: "},
		{"TAP name above", func(c *Config) { c.TAP.Name = ".." }, "tap.name: "},
		{"TAP name with another verb", func(c *Config) { c.TAP.Name = "loom%s" }, `tap.name: "loom%s"`},
		{"TAP name with two numbers", func(c *Config) { c.TAP.Name = "l%d%d" }, "at most one %d"},
		{"TAP name without a number", func(c *Config) { c.TAP.Name = "loom" }, ""},
		{"less than no queue", func(c *Config) { c.TAP.Queues = -1 }, "tap.queues: -1"},
		{"most queues", func(c *Config) { c.TAP.Queues = 16 }, ""},
		{"too many queues", func(c *Config) { c.TAP.Queues = 17 }, "tap.queues: 17"},
		{"no offload", func(c *Config) { c.TAP.Offload = "off" }, ""},
		{"offload", func(c *Config) { c.TAP.Offload = "on" }, `tap.offload: "on"`},
		{"resolver off", func(c *Config) { c.DNS.Resolver = "off" }, ""},
		{"resolver", func(c *Config) { c.DNS.Resolver = "on" }, `dns.resolver: "on"`},
		{"shortest timers", func(c *Config) {
			c.Timers.Probe, c.Timers.Rekey, c.Timers.FDBAge = 10*time.Millisecond, 10*time.Millisecond, 10*time.Millisecond
		}, ""},
		{"probe", func(c *Config) { c.Timers.Probe = 9 * time.Millisecond }, "timers.probe: 9ms"},
		{"rekey", func(c *Config) { c.Timers.Rekey = 0 }, "timers.rekey: 0s"},
		{"path MTU", func(c *Config) { c.Timers.PathMTU = 0 }, "timers.path_mtu: 0s"},
		{"fdb age", func(c *Config) { c.Timers.FDBAge = -time.Second }, "timers.fdb_age: -1s"},
		{"no limits", func(c *Config) {
			c.Limits.Broadcast, c.Limits.Multicast, c.Limits.Control, c.Limits.Joins = 0, 0, 0, 0
		}, ""},
		{"highest limit", func(c *Config) { c.Limits.Multicast = 10_000_000 }, ""},
		{"broadcast", func(c *Config) { c.Limits.Broadcast = -1 }, "limits.broadcast: -1"},
		{"multicast", func(c *Config) { c.Limits.Multicast = 10_000_001 }, "limits.multicast: 10000001"},
		{"control", func(c *Config) { c.Limits.Control = -5 }, "limits.control: -5"},
		{"joins", func(c *Config) { c.Limits.Joins = -5 }, "limits.joins: -5"},
		{"least table", func(c *Config) { c.FDB.Entries, c.FDB.PerPort, c.FDB.Moves = 1, 1, 2 }, ""},
		{"greatest table", func(c *Config) { c.FDB.Entries, c.FDB.PerPort = 1_000_000, 1_000_000 }, ""},
		{"no entries", func(c *Config) { c.FDB.Entries = 0 }, "fdb.entries: 0"},
		{"too many entries", func(c *Config) { c.FDB.Entries = 1_000_001 }, "fdb.entries: 1000001"},
		{"none of a port", func(c *Config) { c.FDB.PerPort = 0 }, "fdb.per_port: 0"},
		{"too many of a port", func(c *Config) { c.FDB.PerPort = 1_000_001 }, "fdb.per_port: 1000001"},
		{"refuse", func(c *Config) { c.FDB.Full, c.FDB.Duplicate = "refuse", "off" }, ""},
		{"full", func(c *Config) { c.FDB.Full = "drop" }, `fdb.full: "drop"`},
		{"warn", func(c *Config) { c.FDB.Duplicate = "warn" }, ""},
		{"duplicate", func(c *Config) { c.FDB.Duplicate = "on" }, `fdb.duplicate: "on"`},
		{"moves", func(c *Config) { c.FDB.Moves = 1 }, "fdb.moves: 1"},
		{"within", func(c *Config) { c.FDB.Within = 0 }, "fdb.within: 0s"},
		{"freeze", func(c *Config) { c.FDB.Freeze = 9 * time.Millisecond }, "fdb.freeze: 9ms"},
		{"no interval", func(c *Config) { c.Records.Interval = 199 * time.Millisecond }, "records.interval: 199ms"},
		{"shortest interval", func(c *Config) { c.Records.Interval = 200 * time.Millisecond }, ""},
		{"file", func(c *Config) { c.Records.File = "/var/log/flows.json" }, ""},
		{"file somewhere", func(c *Config) { c.Records.File = "flows.json" }, `records.file: "flows.json"`},
		{"collector", func(c *Config) { c.Records.IPFIX = "192.0.2.1:4739" }, ""},
		{"collector by TCP", func(c *Config) { c.Records.IPFIX = "tcp://[2001:db8::1]:4739" }, ""},
		{"collector by name", func(c *Config) { c.Records.IPFIX = "flows.example.com:4739" }, ""},
		{"collector without a port", func(c *Config) { c.Records.IPFIX = "192.0.2.1" }, `records.ipfix: expected HOST:PORT`},
		{"collector without a host", func(c *Config) { c.Records.IPFIX = ":4739" }, `records.ipfix: expected HOST:PORT`},
		{"collector by another way", func(c *Config) { c.Records.IPFIX = "sctp://192.0.2.1:4739" }, `records.ipfix: expected HOST:PORT`},
		{"collector with port 0", func(c *Config) { c.Records.IPFIX = "192.0.2.1:0" }, `records.ipfix: expected HOST:PORT`},
		{"level", func(c *Config) { c.Log.Level = "loud" }, `log.level: "loud"`},
		{"format", func(c *Config) { c.Log.Format = "xml" }, `log.format: "xml"`},
		{"json", func(c *Config) { c.Log.Level, c.Log.Format = "debug", "json" }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Defaults()
			c.edit(&cfg)
			err := cfg.Check()
			if c.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			wantError(t, err, c.want)
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one fault: %v", err)
			}
		})
	}
	// All faults are told at once.
	var none Config
	wantError(t, none.Check(), "state_dir", "tap.name", "tap.offload", "dns.resolver", "timers.probe", "timers.rekey", "timers.path_mtu", "timers.fdb_age", "fdb.entries", "fdb.full", "fdb.duplicate", "records.interval", "log.level", "log.format")
}

// TestTableOfConfig: each bound of a segment's table is set by its own key.
func TestTableOfConfig(t *testing.T) {
	c := Defaults()
	if got := c.fdb(); got != (fdb.Limits{
		Age: fdb.DefaultAge, Entries: fdb.DefaultEntries, PerPort: fdb.DefaultPerPort,
		Moves: fdb.DefaultMoves, Within: fdb.DefaultWithin, Freeze: fdb.DefaultFreeze,
	}) {
		t.Errorf("defaults are %+v", got)
	}
	c.Timers.FDBAge, c.FDB.Entries, c.FDB.PerPort, c.FDB.Moves, c.FDB.Within, c.FDB.Freeze = 1, 2, 3, 4, 5, 6
	c.FDB.Full, c.FDB.Duplicate = "refuse", "warn"
	if got := c.fdb(); got != (fdb.Limits{Age: 1, Entries: 2, PerPort: 3, Full: fdb.Refuse, Moves: 4, Within: 5, Freeze: 6, Duplicate: fdb.Warn}) {
		t.Errorf("bounds are %+v", got)
	}
	c.FDB.Duplicate = "off"
	if got := c.fdb(); got.Moves >= 0 {
		t.Errorf("off is %+v", got)
	}
}

// TestLimitsOfConfig: each limit is set by its own key.
func TestLimitsOfConfig(t *testing.T) {
	c := Defaults()
	if c.limits() != policy.DefaultLimits() {
		t.Errorf("defaults are %+v", c.limits())
	}
	c.Limits.Broadcast, c.Limits.Multicast, c.Limits.Control, c.Limits.Joins = 1, 2, 3, 4
	if got := c.limits(); got != (policy.Limits{Broadcast: 1, Multicast: 2, Control: 3, Joins: 4}) {
		t.Errorf("limits are %+v", got)
	}
}
