package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/node/statedir"
)

// fakeDaemon answers local commands with what it is told to, and remembers what it was asked.
type fakeDaemon struct {
	asked, answer string
	status        int
}

func (f *fakeDaemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.asked = strings.TrimSpace(r.Method + " " + r.URL.Path + " " + string(body))
	w.WriteHeader(f.status)
	_, _ = io.WriteString(w, f.answer)
}

// newFakeDaemon listens in a state directory of its own, whose path it returns.
func newFakeDaemon(t *testing.T) (f *fakeDaemon, path string) {
	t.Helper()
	parent, err := os.MkdirTemp("", "loom") // short: there will be a unix socket in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	path = filepath.Join(parent, "s")
	dir, err := statedir.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", dir.Socket())
	if err != nil {
		t.Fatal(err)
	}
	f = new(fakeDaemon)
	server := &http.Server{Handler: f}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return f, path
}

// TestFDBCommands: what is typed is what the daemon is asked, and what it answers is printed.
func TestFDBCommands(t *testing.T) {
	f, path := newFakeDaemon(t)
	const mac = "02:00:5e:10:00:01"
	added := func(kind, static, replaced string) string {
		return `{"schema":1,"added":{"segment":"lan","mac":"` + mac + `","port":"gw1","kind":"` + kind + `","static":` + static + `}` + replaced + `,"removed":0}`
	}
	for _, c := range []struct {
		args, asked, answer string
		says                string // "error: ..." if that is one
	}{
		{"add lan @ gw1", `POST /fdb/add {"segment":"lan","mac":"@","port":"gw1","sticky":false}`, added("static", "true", ""), "@ is static on port gw1 of segment lan, until the daemon ends\n"},
		{"add lan @ gw1 --static", `POST /fdb/add {"segment":"lan","mac":"@","port":"gw1","sticky":false}`, added("static", "true", `,"replaced":true`), "until the daemon ends; it replaces the entry"},
		{"add lan @ gw1 --sticky", `POST /fdb/add {"segment":"lan","mac":"@","port":"gw1","sticky":true}`, added("sticky", "false", ""), "@ is sticky on port gw1 of segment lan, until it has been silent"},
		{"add lan @ gw1 --sticky --static", "", "", "error: none of the others can be"},
		{"add lan @", "", "", "error: accepts 3 arg(s)"},
		{"remove lan @", `POST /fdb/remove {"segment":"lan","mac":"@"}`, `{"schema":1,"removed":1}`, "removed\n"},
		{"remove lan @", `POST /fdb/remove {"segment":"lan","mac":"@"}`, "segment lan has no entry", "error: segment lan has no entry"},
		{"flush", `POST /fdb/flush {"segment":"","port":"","frozen":false}`, `{"schema":1,"removed":7}`, "7 forgotten\n"},
		{"flush lan --dynamic --port gw1", `POST /fdb/flush {"segment":"lan","port":"gw1","frozen":false}`, `{"schema":1,"removed":7}`, "7 forgotten\n"},
		{"flush lan --frozen", `POST /fdb/flush {"segment":"lan","port":"","frozen":true}`, `{"schema":1,"removed":0}`, "0 forgotten\n"},
		{"flush lan --frozen --dynamic", "", "", "error: none of the others can be"},
		{"flush lan --frozen --json", `POST /fdb/flush {"segment":"lan","port":"","frozen":true}`, `{"schema":1,"removed":2}`, "{\n  \"schema\": 1,\n  \"removed\": 2\n}\n"},
		{"flsh", "", "", `error: unknown command "flsh"`},
		{
			"", "GET /fdb", `[{"segment":"lan","mac":"@","port":"gw1","who":"cam","identity":9,"kind":"dynamic","frozen":true,"moves":4,"idle_ns":2000000000},` +
				`{"segment":"lan","mac":"m","port":"gw1","identity":9,"kind":"static","static":true}]`,
			"SEGMENT  MAC                PORT  WHO  IDENTITY  KIND    MOVES  IDLE\nlan      @  gw1   cam  9         frozen  4      2s\nlan      m                  gw1   -    9         static  0      -\n",
		},
	} {
		full := func(s string) string { return strings.ReplaceAll(s, "@", mac) }
		f.asked, f.answer, f.status = "", full(c.answer), http.StatusOK
		says, bad := strings.CutPrefix(c.says, "error: ")
		if bad {
			f.status = http.StatusBadRequest
		}
		says = full(says)
		var out bytes.Buffer
		cmd := root()
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SetArgs(append(append([]string{"fdb"}, strings.Fields(full(c.args))...), "--state-dir", path))
		err := cmd.ExecuteContext(t.Context())
		got := out.String()
		if err != nil {
			got = err.Error()
		}
		if (err != nil) != bad || !strings.Contains(got, says) {
			t.Errorf("fdb %s says %q, %v; want %q", c.args, got, err, says)
		}
		if f.asked != full(c.asked) {
			t.Errorf("fdb %s asks %q, want %q", c.args, f.asked, full(c.asked))
		}
	}
	// JSON keeps what its readers rely on.
	f.answer, f.status = `[{"segment":"lan","mac":"`+mac+`","port":"gw1","idle_ns":5}]`, http.StatusOK
	var out bytes.Buffer
	cmd := root()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"fdb", "--json", "--state-dir", path})
	var listed struct {
		Schema int
		FDB    []map[string]any
	}
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &listed); err != nil || listed.Schema != 1 || len(listed.FDB) != 1 {
		t.Fatalf("JSON is %s, %v", out.String(), err)
	}
	for _, key := range []string{"segment", "mac", "port", "identity", "kind", "static", "frozen", "moves", "idle_ns"} {
		if _, ok := listed.FDB[0][key]; !ok {
			t.Errorf("JSON has no %s", key)
		}
	}
}
