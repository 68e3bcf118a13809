package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/etherloom/etherloom/control/condition"
	"github.com/etherloom/etherloom/control/controlv1"
)

// TestReportBounds: a report beyond its bounds meets nothing, and too many end the stream.
func TestReportBounds(t *testing.T) {
	d := newDesk(t)
	a := d.join("a", d.token()).sync()
	d.grantWhen("node:a", "segment:lan", fileIsThere)
	a.report(1, true)
	eventually(t, "a has it", granted(a))
	a.report(2, true, func(r *controlv1.PostureReport) { r.Hostname = "\x1b[2J" })
	eventually(t, "a has lost it", withheld(a))
	if d.ctl.Stats().ReportsRefused != 1 || !strings.Contains(d.logs.String(), "U+001B") {
		t.Errorf("%+v; log: %s", d.ctl.Stats(), d.logs.String())
	}
	a.report(3, true)
	eventually(t, "a has it again", granted(a))
	shown, err := d.admin.ListNodes(t.Context(), &controlv1.ListNodesRequest{Name: "a"})
	must(t, err)
	if n := shown.Nodes[0]; n.Posture.GetSequence() != 3 || n.Posture.GetOs() != "debian" || n.PostureReceived == nil {
		t.Errorf("shown: %v", n)
	}
	for i := range 100 {
		if a.stream.Send(&controlv1.NodeMessage{Kind: &controlv1.NodeMessage_Posture{Posture: &controlv1.PostureReport{Sequence: uint64(4 + i)}}}) != nil {
			break
		}
	}
	eventually(t, "the stream has ended", func() bool { return a.failed() != nil })
	wantError(t, a.failed(), connect.CodeResourceExhausted, "too many posture reports")
}

func TestCheckReport(t *testing.T) {
	long := strings.Repeat("x", maxReportText+1)
	files := func(n int, path string) map[string]*controlv1.PostureFile {
		out := map[string]*controlv1.PostureFile{}
		for i := range n {
			out[fmt.Sprint(path, i)] = &controlv1.PostureFile{}
		}
		return out
	}
	for name, tt := range map[string]struct {
		report *controlv1.PostureReport
		want   string
	}{
		"nothing":            {&controlv1.PostureReport{}, ""},
		"none at all":        {nil, ""},
		"most files":         {&controlv1.PostureReport{Files: files(32, "/")}, ""},
		"too many files":     {&controlv1.PostureReport{Files: files(33, "/")}, "33 files"},
		"long path":          {&controlv1.PostureReport{Files: files(1, long)}, "a text of"},
		"long hash":          {&controlv1.PostureReport{Files: map[string]*controlv1.PostureFile{"/": {Sha256: long}}}, "a text of"},
		"long mode":          {&controlv1.PostureReport{Files: map[string]*controlv1.PostureFile{"/": {Mode: long}}}, "a text of"},
		"long fault":         {&controlv1.PostureReport{Files: map[string]*controlv1.PostureFile{"/": {Fault: long}}}, "a text of"},
		"process":            {&controlv1.PostureReport{Processes: map[string]*controlv1.PostureProcess{long: {}}}, "a text of"},
		"process's hash":     {&controlv1.PostureReport{Processes: map[string]*controlv1.PostureProcess{"/": {Sha256: "\n"}}}, "U+000A"},
		"process's fault":    {&controlv1.PostureReport{Processes: map[string]*controlv1.PostureProcess{"/": {Fault: "\n"}}}, "U+000A"},
		"command":            {&controlv1.PostureReport{Commands: map[string]*controlv1.PostureCommand{"\n": {}}}, "U+000A"},
		"line":               {&controlv1.PostureReport{Commands: map[string]*controlv1.PostureCommand{"x": {Line: "\u202e"}}}, "U+202E"},
		"command's fault":    {&controlv1.PostureReport{Commands: map[string]*controlv1.PostureCommand{"x": {Fault: "\n"}}}, "U+000A"},
		"os":                 {&controlv1.PostureReport{Os: "\n"}, "U+000A"},
		"os version":         {&controlv1.PostureReport{OsVersion: "\n"}, "U+000A"},
		"kernel":             {&controlv1.PostureReport{Kernel: "\n"}, "U+000A"},
		"arch":               {&controlv1.PostureReport{Arch: "\n"}, "U+000A"},
		"agent":              {&controlv1.PostureReport{Agent: "\n"}, "U+000A"},
		"hostname":           {&controlv1.PostureReport{Hostname: "\n"}, "U+000A"},
		"underlay":           {&controlv1.PostureReport{Underlay: []string{"\n"}}, "U+000A"},
		"too many addresses": {&controlv1.PostureReport{Underlay: make([]string, 33)}, "33 addresses"},
		"bytes in all":       {&controlv1.PostureReport{Os: strings.Repeat("x", maxReport)}, "bytes, expected at most"},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkReport(tt.report)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want %q", err, tt.want)
			}
		})
	}
	processes, commands := map[string]*controlv1.PostureProcess{}, map[string]*controlv1.PostureCommand{}
	for i := range 33 {
		processes[fmt.Sprint(i)], commands[fmt.Sprint(i)] = &controlv1.PostureProcess{}, &controlv1.PostureCommand{}
	}
	if err := checkReport(&controlv1.PostureReport{Processes: processes}); err == nil {
		t.Error("33 processes")
	}
	if err := checkReport(&controlv1.PostureReport{Commands: commands}); err == nil {
		t.Error("33 commands")
	}
}

// FuzzReport: whatever a node sends, what is let in is bounded, and judging it does no harm.
func FuzzReport(f *testing.F) {
	seed, err := proto.Marshal(&controlv1.PostureReport{
		Sequence: 1, Os: "debian", Underlay: []string{"192.0.2.1"}, Files: map[string]*controlv1.PostureFile{"/etc/ok": {Exists: true}},
		Commands: map[string]*controlv1.PostureCommand{"x": {Ran: true, Line: "a"}},
	})
	must(f, err)
	f.Add(seed)
	f.Add([]byte{})
	f.Add([]byte("\x52\x02\x12\x00")) // a file without a path
	c := &Controller{now: time.Now}
	j, err := newJudge(c)
	must(f, err)
	var conditions []*condition.Condition
	for _, when := range []string{fileIsThere, `posture.underlay.all(x, inCIDR(x, "192.0.2.0/24"))`, `posture.commands.all(x, posture.commands[x].exit == 0)`} {
		cond, err := j.compiler.Compile(when)
		must(f, err)
		conditions = append(conditions, cond)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := new(controlv1.PostureReport)
		if proto.Unmarshal(b, r) != nil || checkReport(r) != nil {
			return
		}
		if len(r.GetFiles()) > maxReportFiles || strings.ContainsAny(r.GetOs(), "\x00\n\x1b") {
			t.Errorf("let in: %v", r)
		}
		for _, cond := range conditions {
			cond.Met(&condition.Node{}, r, time.Unix(1, 0))
		}
	})
}
