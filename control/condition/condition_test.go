package condition

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
)

func compile(t testing.TB, expression string) *Condition {
	t.Helper()
	c, err := NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.Compile(expression)
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return out
}

func node() *Node {
	return &Node{Name: "a", Site: "berlin", Roles: []string{"member", "gateway"}, Labels: map[string]string{"team": "network"}}
}

func report() *controlv1.PostureReport {
	return &controlv1.PostureReport{
		Os: "debian", OsVersion: "13", Kernel: "6.12.1-amd64", Arch: "x86_64", Agent: "1.2.0", Hostname: "a", DiskEncrypted: true,
		Underlay: []string{"192.0.2.1", "2001:db8::1"},
		Files: map[string]*controlv1.PostureFile{
			"/etc/ok":   {Exists: true, Regular: true, Sha256: "ab", Mode: "0644", Size: 12},
			"/etc/gone": {},
		},
		Processes: map[string]*controlv1.PostureProcess{"/usr/sbin/guard": {Running: true, Sha256: "cd"}},
		Commands:  map[string]*controlv1.PostureCommand{"updates": {Ran: true, Line: "0 pending"}, "late": {Exit: -1, Fault: "timeout"}},
	}
}

func TestMet(t *testing.T) {
	friday := time.Date(2026, 1, 30, 16, 30, 0, 0, time.UTC) // 17:30 in Berlin
	for expression, want := range map[string]bool{
		"true":                                 true,
		"false":                                false,
		`node.name == "a"`:                     true,
		`node.site == "paris"`:                 false,
		`"gateway" in node.roles`:              true,
		`"connector" in node.roles`:            false,
		`node.labels["team"] == "network"`:     true,
		`node.labels["other"] == "network"`:    false, // absent: an error
		`!(node.labels["other"] == "network")`: false, // and its negation is not met either
		`"other" in node.labels`:               false,
		`posture.disk_encrypted`:               true,
		`posture.os == "debian" && int(posture.os_version) >= 12`:                            true,
		`posture.kernel.startsWith("6.12.")`:                                                 true,
		`posture.files["/etc/ok"].exists`:                                                    true,
		`posture.files["/etc/ok"].mode == "0644" && posture.files["/etc/ok"].uid == 0`:       true,
		`posture.files["/etc/gone"].exists`:                                                  false,
		`!posture.files["/etc/gone"].exists`:                                                 true,
		`!posture.files["/not/asked/for"].exists`:                                            false, // the node was never asked to look
		`posture.processes["/usr/sbin/guard"].running`:                                       true,
		`posture.processes["/usr/sbin/guard"].sha256 == "ab"`:                                false,
		`posture.commands["updates"].ran && posture.commands["updates"].exit == 0`:           true,
		`posture.commands["late"].ran`:                                                       false,
		`posture.underlay.exists(a, a == "192.0.2.1")`:                                       true,
		`posture.underlay.exists(a, inCIDR(a, "192.0.2.0/24"))`:                              true,
		`posture.underlay.all(a, inCIDR(a, "192.0.2.0/24"))`:                                 false,
		`inCIDR("::ffff:192.0.2.1", "192.0.2.0/24")`:                                         true,
		`inCIDR("192.0.2.1:4500", "192.0.2.0/24")`:                                           false,
		`!inCIDR("192.0.2.1:4500", "192.0.2.0/24")`:                                          false,
		`now.getHours("Europe/Berlin") == 17`:                                                true,
		`now.getHours() == 16`:                                                               true,
		`now.getHours("+01:00") == 17`:                                                       true,
		`now.getDayOfWeek("Europe/Berlin") == 5`:                                             true, // 0 is Sunday
		`now.getDayOfWeek("Europe/Berlin") in [1, 2, 3, 4, 5] && now.getHours("UTC") < 16`:   false,
		`now < timestamp("2026-01-31T00:00:00Z") && now > timestamp("2026-01-30T00:00:00Z")`: true,
		`now >= timestamp("2026-01-31T00:00:00Z")`:                                           false,
		`1 / 0 == 1`:                 false,
		`posture.os.matches("^deb")`: true,
	} {
		if got := compile(t, expression).Met(node(), report(), friday); got != want {
			t.Errorf("%s: met is %v, want %v", expression, got, want)
		}
	}
}

// A window of hours, on each side of each of its ends, and on the day when clocks change.
func TestTimeWindow(t *testing.T) {
	c := compile(t, `now.getDayOfWeek("Europe/Berlin") in [1,2,3,4,5] && now.getHours("Europe/Berlin") >= 8 && now.getHours("Europe/Berlin") < 18`)
	for at, want := range map[string]bool{
		"2026-01-30T06:59:59Z": false, "2026-01-30T07:00:00Z": true, "2026-01-30T16:59:59Z": true, "2026-01-30T17:00:00Z": false,
		"2026-01-31T10:00:00Z": false, "2026-02-01T10:00:00Z": false, // weekend
		"2026-03-30T06:00:00Z": true, "2026-03-30T05:59:59Z": false, // summer time began the day before
		"2026-02-01T23:00:00Z": false, "2026-02-02T07:30:00Z": true,
	} {
		now, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Met(node(), nil, now); got != want {
			t.Errorf("%s: met is %v, want %v", at, got, want)
		}
	}
}

// Without a report a condition on posture is not met, however it is put; another is judged.
func TestNoReport(t *testing.T) {
	for expression, want := range map[string]bool{
		`!posture.disk_encrypted`: false, `posture.os == "" || true`: false, `node.name == "a"`: true, `now > timestamp(0)`: true,
	} {
		if got := compile(t, expression).Met(node(), nil, time.Unix(100, 0)); got != want {
			t.Errorf("%s: met is %v, want %v", expression, got, want)
		}
	}
}

func TestUses(t *testing.T) {
	for expression, want := range map[string][2]bool{
		`node.name == "a"`: {}, `posture.disk_encrypted`: {true, false}, `now > timestamp(0)`: {false, true},
		`posture.underlay.exists(a, now > timestamp(0))`: {true, true},
	} {
		if c := compile(t, expression); c.UsesPosture() != want[0] || c.UsesNow() != want[1] {
			t.Errorf("%s: uses posture %v, now %v; want %v", expression, c.UsesPosture(), c.UsesNow(), want)
		}
	}
}

func TestMistakes(t *testing.T) {
	c, err := NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	for expression, want := range map[string]string{
		``:                                             "line 1, column",
		`posture.disk_encrypted &&`:                    "line 1, column",
		`posture.encrypted`:                            "line 1, column 8: undefined field 'encrypted'",
		`posture.files["/etc/ok"].exist`:               "undefined field 'exist'",
		"true &&\n  nodename == \"a\"":                 "line 2, column 3: undeclared reference to 'nodename'",
		`node.nmae == "a"`:                             "undeclared reference",
		`posture.kernel >= 6`:                          "no matching overload",
		`posture.kernel`:                               "of type string, expected one that is true or false",
		`now.getHours("Europe/Berlni") > 8`:            `"Europe/Berlni" is not a time zone`,
		`now.getHours("Local") > 8`:                    "is not a time zone",
		`now.getHours("+25:00") > 8`:                   "is not a time zone",
		`inCIDR("192.0.2.1", "192.0.2.0")`:             "is not ADDRESS/LENGTH",
		`inCIDR("192.0.2.1", "192.0.2.1/24")`:          "expected 192.0.2.0/24",
		`posture.os.matches("(")`:                      "line 1",
		`now > timestamp("yesterday")`:                 "line 1",
		`[1].all(a, [1].all(b, [1].all(c, true)))`:     "line 1",
		strings.Repeat("(", 200) + "true":              "line",
		`"` + strings.Repeat("x", MaxLength) + `"==""`: "at most 2048",
	} {
		_, err := c.Compile(expression)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v; want %q", expression, err, want)
		}
	}
	if _, err := c.Compile("posture.foo"); err == nil || !strings.Contains(err.Error(), "disk_encrypted") {
		t.Errorf("%v: the error does not say what there is", err)
	}
}

// What there is to ask for is named in full.
func TestVariablesComplete(t *testing.T) {
	fields := (&controlv1.PostureReport{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if name := string(fields.Get(i).Name()); name != "sequence" && !strings.Contains(variables, name) {
			t.Errorf("the error of Compile does not name posture.%s", name)
		}
	}
}

// An expression that would be long at work is cut short, and not met.
func TestCostLimit(t *testing.T) {
	r := report()
	for i := range 64 {
		r.Files[fmt.Sprint("/f", i)] = &controlv1.PostureFile{Exists: true}
	}
	cheap := compile(t, `posture.files.all(f, posture.files[f].exists || f == "/etc/gone")`)
	if !cheap.Met(node(), r, time.Now()) {
		t.Error("a look at every file of a report is not possible")
	}
	list := "[" + strings.Repeat("1,", 200) + "1]"
	dear := compile(t, list+".all(a, "+list+".all(b, a == b))")
	began := time.Now()
	if dear.Met(node(), r, time.Now()) {
		t.Error("forty thousand steps were taken")
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v to give up", took)
	}
}

// No text makes the compiler panic, and none that compiles does so when it is evaluated.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		`posture.files["/etc/ok"].exists`, `now.getHours("UTC") > 8`, `inCIDR("192.0.2.1", "192.0.2.0/24")`, `node.roles.exists(r, r == "member")`,
		`"a" in node.labels ? true : posture.commands["x"].ran`, `[1,2].all(x, x > 0)`, `dyn(1) == "a"`, "\x00", `b"\xff" == b""`,
	} {
		f.Add(s)
	}
	c, err := NewCompiler()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := c.Compile(s); err == nil {
			p.Met(node(), report(), time.Unix(1e9, 0))
		}
	})
}

func BenchmarkMet(b *testing.B) {
	c := compile(b, `posture.disk_encrypted && posture.files["/etc/ok"].exists && now.getHours("Europe/Berlin") < 30`)
	n, r, now := node(), report(), time.Now()
	for b.Loop() {
		if !c.Met(n, r, now) {
			b.Fatal("not met")
		}
	}
}
