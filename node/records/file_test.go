package records

import (
	"bufio"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func lines(t *testing.T, path string) []map[string]any {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []map[string]any
	for s := bufio.NewScanner(f); s.Scan(); {
		var m map[string]any
		if err := json.Unmarshal(s.Bytes(), &m); err != nil {
			t.Fatalf("%q: %v", s.Text(), err)
		}
		out = append(out, m)
	}
	return out
}

func example() Record {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return Record{
		Schema: Schema, Type: Flow, Time: at, Node: Party{1, "a"}, Segment: "lan", VNI: 5, Source: &Party{1, "a"}, Target: &Party{2, "b"},
		Verdict: "pass", Grant: 7, Protocol: 6, Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2"),
		SrcPort: 4242, DstPort: 22, First: at, Last: at.Add(time.Second), Frames: 3, Octets: 300, AnswerFrames: 2, AnswerOctets: 200, End: "active",
	}
}

// Lines are appended; a file that was moved or removed is made anew, one that was there is kept.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flows.json")
	if err := os.WriteFile(path, []byte("{\"old\":true}\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	f := NewFile(path)
	write := func(n int) {
		t.Helper()
		if err := f.Write(make([]Record, n)); err != nil {
			t.Fatal(err)
		}
	}
	write(2)
	write(1)
	if l := lines(t, path); len(l) != 4 || l[0]["old"] != true {
		t.Errorf("%v", l)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(1)
	if a, b := lines(t, path+".1"), lines(t, path); len(a) != 4 || len(b) != 1 {
		t.Errorf("after it was moved: %v, %v", a, b)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(1)
	if l := lines(t, path); len(l) != 1 {
		t.Errorf("after it was removed: %v", l)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o137 != 0 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	f.Close()
	write(1)
	if l := lines(t, path); len(l) != 2 {
		t.Errorf("after it was closed: %v", l)
	}
}

func TestFileThatCannotBe(t *testing.T) {
	f := NewFile(filepath.Join(t.TempDir(), "no", "such", "file"))
	for range 2 {
		if err := f.Write(nil); err == nil || !strings.Contains(err.Error(), "records.file: ") {
			t.Errorf("%v", err)
		}
	}
}

// The names of fields are a promise.
func TestSchema(t *testing.T) {
	b, err := json.Marshal(example())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"schema":1,"type":"flow","time":"2026-01-02T03:04:05Z","node":{"id":1,"name":"a"},"segment":"lan","vni":5,` +
		`"source":{"id":1,"name":"a"},"target":{"id":2,"name":"b"},"verdict":"pass","grant":7,"protocol":6,"src":"192.0.2.1","dst":"192.0.2.2",` +
		`"src_port":4242,"dst_port":22,"first":"2026-01-02T03:04:05Z","last":"2026-01-02T03:04:06Z","frames":3,"octets":300,` +
		`"answer_frames":2,"answer_octets":200,"end":"active"}`
	if string(b) != want {
		t.Errorf("found %s\nwant  %s", b, want)
	}
}
