package settings

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

type config struct {
	Dir string `yaml:"state_dir" mapstructure:"state_dir" usage:"where"`
	TAP struct {
		Name   string   `yaml:"name" mapstructure:"name"`
		Queues int      `yaml:"queues" mapstructure:"queues"`
		Only   []string `yaml:"only" mapstructure:"only"`
	} `yaml:"tap" mapstructure:"tap"`
	Run  []item        `yaml:"run" mapstructure:"run"`
	Wait time.Duration `yaml:"wait" mapstructure:"wait"`
	On   bool          `yaml:"on" mapstructure:"on"`
}

type item struct {
	Name string   `yaml:"name" mapstructure:"name"`
	Args []string `yaml:"args" mapstructure:"args"`
}

// A list of sections comes from the file, is printed so that it can be read again, and has no flag.
func TestSections(t *testing.T) {
	c, err := load(t, "run:\n- name: A.b\n  args: [x, \"y z\"]\n- {name: c, args: [w]}\n")
	if err != nil || len(c.Run) != 2 || c.Run[0].Name != "A.b" || len(c.Run[0].Args) != 2 || c.Run[1].Name != "c" {
		t.Fatalf("%+v, %v", c.Run, err)
	}
	var out strings.Builder
	if err := Print(&out, &c); err != nil || strings.Count(out.String(), "run:") != 1 {
		t.Fatalf("%v:\n%s", err, out.String())
	}
	again, err := load(t, out.String())
	if err != nil || !reflect.DeepEqual(again.Run, c.Run) {
		t.Errorf("%+v, %v; printed\n%s", again.Run, err, out.String())
	}
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Flags(fs, &c)
	if fs.Lookup("run") != nil {
		t.Error("there is a flag")
	}
	for file, want := range map[string]string{
		"run:\n- {name: a, arg: b}\n": `line 2: there is no setting "arg"`,
		"run: a\n":                    "a list of sections",
	} {
		if _, err := load(t, file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", file, err, want)
		}
	}
}

func load(t *testing.T, file string, args ...string) (config, error) {
	t.Helper()
	var c config
	c.Dir, c.TAP.Queues, c.Wait, c.On = "/default", 1, time.Second, true
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Flags(fs, &c)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	path := ""
	if file != "" {
		path = filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := Load(fs, path, &c)
	return c, err
}

// Flags win over environment, environment over file, file over defaults.
func TestPrecedence(t *testing.T) {
	file := "state_dir: /file\ntap:\n  name: from.file\n  queues: 4\n  only: [a, b.c]\nwait: 3s\non: false\n"
	c, err := load(t, "")
	if err != nil || c.Dir != "/default" || c.TAP.Queues != 1 || c.Wait != time.Second || !c.On {
		t.Errorf("defaults: %+v, %v", c, err)
	}
	c, err = load(t, file)
	if err != nil || c.Dir != "/file" || c.TAP.Queues != 4 || c.Wait != 3*time.Second || c.On || c.TAP.Name != "from.file" || len(c.TAP.Only) != 2 {
		t.Errorf("file: %+v, %v", c, err)
	}
	t.Setenv("ETHERLOOM_TAP_QUEUES", "5")
	t.Setenv("ETHERLOOM_WAIT", "4s")
	c, err = load(t, file)
	if err != nil || c.TAP.Queues != 5 || c.Wait != 4*time.Second || c.Dir != "/file" {
		t.Errorf("environment: %+v, %v", c, err)
	}
	c, err = load(t, file, "--tap-queues=6", "--state-dir", "/flag", "--tap-only", "x,y,z")
	if err != nil || c.TAP.Queues != 6 || c.Dir != "/flag" || c.Wait != 4*time.Second || len(c.TAP.Only) != 3 {
		t.Errorf("flags: %+v, %v", c, err)
	}
}

// An unknown key is named with its line, also deep down; so is a value of the wrong kind.
func TestMistakes(t *testing.T) {
	for file, want := range map[string]string{
		"state_dir: /x\nstatedir: /y\n":          `line 2: there is no setting "statedir" here`,
		"tap:\n  name: a\n  qeues: 3\n":          `line 3: there is no setting "qeues" here`,
		"name: a\n":                              `line 1: there is no setting "name" here`,
		"tap:\n  queues: many\n":                 "line 2",
		"state_dir: [\n":                         "yaml",
		"wait: soon\n":                           "line 1",
		"state_dir: /x\nfoo: 1\ntap: {bar: 2}\n": `"bar"`,
	} {
		if _, err := load(t, file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", file, err, want)
		}
	}
	if _, err := load(t, "# nothing\n"); err != nil {
		t.Errorf("an empty file: %v", err)
	}
	t.Setenv("ETHERLOOM_WAIT", "soon")
	if _, err := load(t, ""); err == nil {
		t.Error("a variable of the wrong kind is accepted")
	}
}

// What a value or a name may have been meant to be is said in words.
func TestExplanations(t *testing.T) {
	for file, want := range map[string]string{
		"tap-name: x\n":           `did you mean "name" in the section "tap"?`,
		"tap:\n  state-dir: /x\n": `did you mean "state_dir", at the top?`,
		"tap:\n  size: 3\n":       "misspelt",
		"state-dir: /x\n":         `did you mean "state_dir", at the top?`,
		"tap.queues: 2\n":         `did you mean "queues" in the section "tap"?`,
		"tap:\n  queues: many\n":  `line 2: "many" does not fit: want a number`,
		"wait: soon\n":            `"soon" does not fit: want a time, such as`,
		"tap:\n  only: x\n":       `"x" does not fit: want a list`,
		"on: perhaps\n":           "want true or false",
		"tap: 3\n":                "want a section",
		"state_dir: [a]\n":        "want a text",
	} {
		if _, err := load(t, file); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "unmarshal") {
			t.Errorf("%q: %v, want %s", file, err, want)
		}
	}
}

// What Print writes is what Load reads.
func TestPrint(t *testing.T) {
	want, err := load(t, "state_dir: '/with # and: colon'\ntap:\n  name: loom%d\n  queues: 4\n  only: [a, b.c]\nwait: 1m30s\non: false\n")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := Print(&out, &want); err != nil {
		t.Fatal(err)
	}
	if got, err := load(t, out.String()); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v from\n%s", got, err, out.String())
	}
	for _, part := range []string{"# ETHERLOOM_STATE_DIR: where\n", "  queues: 4 # ETHERLOOM_TAP_QUEUES"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("%q is not in\n%s", part, out.String())
		}
	}
}

func TestMissingFile(t *testing.T) {
	var c config
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Flags(fs, &c)
	if err := Load(fs, "/does/not/exist.yaml", &c); err == nil || !strings.Contains(err.Error(), "/does/not/exist.yaml") {
		t.Errorf("%v", err)
	}
}
