package node

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/etherloom/etherloom/posture"
)

// TestPostureProto: everything that is found travels.
func TestPostureProto(t *testing.T) {
	r := &posture.Report{
		Sequence: 7, OS: "debian", OSVersion: "13", Kernel: "6.12", Arch: "x86_64", Agent: "1.2", Hostname: "h", DiskEncrypted: true,
		Underlay:  []string{"192.0.2.1"},
		Files:     map[string]posture.File{"/f": {Exists: true, Regular: true, SHA256: "ab", Mode: "0644", UID: 1, GID: 2, Size: 3, Fault: "x"}},
		Processes: map[string]posture.Process{"/p": {Running: true, SHA256: "cd", UID: 4, Fault: "y"}},
		Commands:  map[string]posture.Result{"c": {Ran: true, Exit: 5, Line: "l", Fault: "z"}},
	}
	m := PostureProto(r).ProtoReflect()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if !m.Has(fields.Get(i)) {
			t.Errorf("%s is lost", fields.Get(i).Name())
		}
	}
	p := PostureProto(r)
	for what, msg := range map[string]any{"file": p.Files["/f"], "process": p.Processes["/p"], "command": p.Commands["c"]} {
		v := reflect.ValueOf(msg).Elem()
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && v.Field(i).IsZero() {
				t.Errorf("%s: %s is lost", what, f.Name)
			}
		}
	}
}

// TestPosture: the daemon says what it has found, and which addresses it sends from.
func TestPosture(t *testing.T) {
	s := newSite(t)
	d := s.daemon()
	if d.postureReport() != nil || d.Posture().Report != nil {
		t.Error("there is a report before anything was looked at")
	}
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.9")}
	d.underlay.Store(&addrs)
	go d.watcher.Run(t.Context())
	eventually(t, "there is a report", func() bool { return d.postureReport() != nil })
	r := d.postureReport()
	if r.Agent != Version || len(r.Underlay) != 1 || r.Underlay[0] != "192.0.2.9" || r.Kernel == "" || r.Sequence == 0 {
		t.Errorf("%v", r)
	}
	if p := d.Posture(); p.Schema != Schema || p.Report.Sequence != r.Sequence || !p.Sent.IsZero() || p.Connected {
		t.Errorf("%+v", p)
	}
}

// TestPostureConfig: what is wrong in the section is named with its key.
func TestPostureConfig(t *testing.T) {
	c := Defaults()
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	c.Posture.Interval = time.Millisecond
	wantError(t, c.Check(), "posture.interval")
}
