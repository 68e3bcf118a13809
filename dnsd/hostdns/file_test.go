package hostdns

import (
	"net/netip"
	"os"
	"strings"
	"testing"
)

// What Set writes and Restore takes back, for each form that resolv.conf has.
func TestSetAndRestore(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			h := newHost(t, kind)
			r := New(h.config())
			h.must(r.Set(t.Context(), testTarget()))
			if want := (State{Mode: ModeFile, Server: testTarget().Server}); r.State() != want {
				t.Errorf("state %+v", r.State())
			}
			known := kind != "absent" && kind != "dangling symlink"
			h.checkOurs(known)
			// Again, and with another address: still one original.
			h.must(r.Set(t.Context(), testTarget()))
			other := testTarget()
			other.Search = "etherloom.internal"
			h.must(r.Set(t.Context(), other))
			if got := h.now(); !strings.Contains(got, "etherloom.internal\n") {
				t.Errorf("second Set: %q", got)
			}
			h.checkOurs(known)
			if got, err := r.Restore(t.Context()); got != Restored || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			h.checkOriginal()
			if got, err := r.Restore(t.Context()); got != Nothing || err != nil || r.State() != (State{Mode: ModeNone}) {
				t.Errorf("second Restore: %q, %v, %+v", got, err, r.State())
			}
		})
	}
}

func (h host) checkOurs(known bool) {
	h.t.Helper()
	c := parseConf([]byte(h.now()))
	if c.nameservers[0] != testTarget().Server.Addr() {
		h.t.Errorf("nameservers %v", c.nameservers)
	}
	if known && (len(c.nameservers) != 3 || c.search[0] != "corp.example" || !strings.Contains(h.now(), "options edns0\n")) {
		h.t.Errorf("not all of the original is there: %q", h.now())
	}
	if strings.Contains(h.kind, "mount") {
		if raw, err := os.ReadFile(h.path("netns.conf")); err != nil || string(raw) != h.now() {
			h.t.Errorf("the mounted file: %q, %v", raw, err)
		}
	}
	if st, err := os.Stat(h.path("state/resolv.conf.json")); err != nil || st.Mode() != 0o600 {
		h.t.Errorf("record: %v, %v", st, err)
	}
}

// A daemon that is killed leaves all as it stands; Recover at the next start puts it right. TestKilled has all the places
// where it can die.
func TestRecover(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			h := newHost(t, kind)
			if got, err := Recover(h.path("state")); got != Nothing || err != nil {
				t.Fatalf("without a record: %q, %v", got, err)
			}
			h.must(New(h.config()).Set(t.Context(), testTarget()))
			if got, err := Recover(h.path("state")); got != Restored || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			h.checkOriginal()
		})
	}
}

// Somebody else's file stays, whatever they put there and whoever finds it.
func TestForeignChangeStays(t *testing.T) {
	const theirs = "nameserver 198.51.100.1\n"
	replace := func(h host) {
		h.put("etc/new", theirs, 0o600)
		h.must(os.Rename(h.path("etc/new"), h.path("etc/resolv.conf")))
	}
	changes := map[string]func(h host){
		"replaced":    replace,
		"overwritten": func(h host) { h.put("etc/resolv.conf", theirs, 0o644) },
		"edited":      func(h host) { h.put("etc/resolv.conf", h.now()+theirs, 0o644) },
		"cut":         func(h host) { h.put("etc/resolv.conf", h.now()[:len(h.now())-5], 0o644) },
		"emptied":     func(h host) { h.put("etc/resolv.conf", "", 0o644) },
		"removed":     func(h host) { h.must(os.Remove(h.path("etc/resolv.conf"))) },
		"symlinked": func(h host) {
			h.must(os.Remove(h.path("etc/resolv.conf")))
			h.must(os.Symlink("theirs", h.path("etc/resolv.conf")))
		},
	}
	for name, change := range changes {
		for _, how := range []string{"Restore", "Recover", "Set"} {
			t.Run(name+"/"+how, func(t *testing.T) {
				h := newHost(t, "file")
				r := New(h.config())
				h.must(r.Set(t.Context(), testTarget()))
				change(h)
				before, err := take(h.path("etc/resolv.conf"))
				h.must(err)
				var got Outcome
				switch how {
				case "Restore":
					got, err = r.Restore(t.Context())
				case "Recover":
					got, err = Recover(h.path("state"))
				case "Set": // takes theirs for the original
					h.must(r.Set(t.Context(), testTarget()))
					if parseConf([]byte(h.now())).nameservers[0] != testTarget().Server.Addr() {
						t.Errorf("not set: %q", h.now())
					}
					_, err = r.Restore(t.Context())
					got = LeftAlone // there is no more to tell
				}
				if got != LeftAlone || err != nil {
					t.Errorf("%q, %v", got, err)
				}
				after, err := take(h.path("etc/resolv.conf"))
				if err != nil || !after.same(before) {
					t.Errorf("theirs was %+v, is %+v, %v", before, after, err)
				}
				if entries, err := os.ReadDir(h.path("state")); err != nil || len(entries) != 0 {
					t.Errorf("record not dropped: %v, %v", entries, err)
				}
			})
		}
	}
}

// A file that cannot be replaced may be found half written. Every cut between the original and ours, in both directions,
// is known for ours; one with a byte of somebody else's is not.
func TestTorn(t *testing.T) {
	ours := compose([]byte(original), testTarget(), "")
	rec := record{Was: snapshot{Kind: kindFile, Content: []byte(original), Mounted: true}, Wrote: [][]byte{ours}}
	for _, pair := range [][2][]byte{{ours, []byte(original)}, {[]byte(original), ours}} {
		after, before := pair[0], pair[1]
		for n := range len(after) + 1 {
			mix := append([]byte(nil), after[:n]...)
			mix = append(mix, before[min(n, len(before)):]...)
			now := snapshot{Kind: kindFile, Content: mix, Mounted: true}
			if got := rec.judge(now); got == foreign {
				t.Fatalf("cut at %d: foreign: %q", n, mix)
			}
			mix[len(mix)/2] ^= 0x80
			if got := rec.judge(now); got != foreign {
				t.Fatalf("cut at %d and changed: %d", n, got)
			}
		}
	}
	half := snapshot{Kind: kindFile, Content: append(ours[:20:20], original[20:]...)}
	if got := rec.judge(half); got != foreign {
		t.Errorf("half written, though this file is replaced as a whole: %d", got)
	}
}

// A second daemon with the same state directory, or one whose settings have changed, settles what the record says first.
func TestSetSettlesAnotherPath(t *testing.T) {
	h, other := newHost(t, "file"), newHost(t, "file")
	h.must(New(h.config()).Set(t.Context(), testTarget()))
	cfg := other.config()
	cfg.StateDir = h.path("state")
	r := New(cfg)
	h.must(r.Set(t.Context(), testTarget()))
	if h.now() != original || other.now() == original {
		t.Errorf("%q\n%q", h.now(), other.now())
	}
	if got, err := r.Restore(t.Context()); got != Restored || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	h.checkOriginal()
	other.checkOriginal()
}

func TestSetRefuses(t *testing.T) {
	h := newHost(t, "file")
	r := New(h.config())
	if err := r.Set(t.Context(), Target{}); err == nil {
		t.Error("a target without a server: no error")
	}
	odd := testTarget()
	odd.Server = netip.MustParseAddrPort("10.77.0.1:5353")
	if err := r.Set(t.Context(), odd); err == nil {
		t.Error("a port that resolv.conf cannot name: no error")
	}
	h.checkOriginal()
	cfg := h.config()
	cfg.StateDir = h.path("none")
	if err := New(cfg).Set(t.Context(), testTarget()); err == nil {
		t.Error("without a state directory: no error")
	}
	h.checkOriginal()
	h.must(r.Set(t.Context(), testTarget()))
	h.must(os.Remove(h.path("etc/resolv.conf")))
	h.must(os.Mkdir(h.path("etc/resolv.conf"), 0o755))
	if err := r.Set(t.Context(), testTarget()); err == nil || r.State() != (State{Mode: ModeNone}) {
		t.Errorf("a directory: %v, %+v", err, r.State())
	}
	if got, err := Recover(h.path("state")); got != Nothing || err != nil {
		t.Errorf("after a directory: %q, %v", got, err)
	}
}

// What is neither file nor symlink is somebody else's too, and no reason to fail at every start.
func TestRecoverDirectory(t *testing.T) {
	h := newHost(t, "file")
	h.must(New(h.config()).Set(t.Context(), testTarget()))
	h.must(os.Remove(h.path("etc/resolv.conf")))
	h.must(os.Mkdir(h.path("etc/resolv.conf"), 0o755))
	if got, err := Recover(h.path("state")); got != LeftAlone || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// A record that cannot be read is not passed over: it may be the only copy of the original.
func TestDamagedRecord(t *testing.T) {
	for name, raw := range map[string]string{
		"empty":         "",
		"not JSON":      "{",
		"no version":    `{"Path":"/x","Was":{"Kind":"absent"}}`,
		"later version": `{"Version":2,"Path":"/x","Was":{"Kind":"absent"}}`,
		"relative path": `{"Version":1,"Path":"x","Was":{"Kind":"absent"}}`,
		"unknown kind":  `{"Version":1,"Path":"/x","Was":{"Kind":"socket"}}`,
		"empty symlink": `{"Version":1,"Path":"/x","Was":{"Kind":"symlink"}}`,
		"setuid":        `{"Version":1,"Path":"/x","Was":{"Kind":"file","Owner":{"Mode":8389613}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "file")
			h.put("state/resolv.conf.json", raw, 0o600)
			if got, err := Recover(h.path("state")); err == nil {
				t.Errorf("%q without an error", got)
			}
			if err := New(h.config()).Set(t.Context(), testTarget()); err == nil || h.now() != original {
				t.Errorf("Set over it: %v, %q", err, h.now())
			}
			if _, err := os.Stat(h.path("state/resolv.conf.json")); err != nil {
				t.Error(err)
			}
		})
	}
}

// FuzzParseRecord: a record that is accepted can be written and read again.
func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"Version":1,"Path":"/etc/resolv.conf","Was":{"Kind":"file","Content":"eA==","Owner":{"Mode":420}},"Wrote":["eQ=="]}`))
	f.Add([]byte(`{"Version":1,"Path":"/etc/resolv.conf","Was":{"Kind":"symlink","Link":"../x"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		rec, err := parseRecord(raw)
		if err != nil {
			return
		}
		rec.judge(snapshot{Kind: kindFile, Content: raw, Mounted: true})
		r := records{dir: t.TempDir()}
		if err := r.save(rec); err != nil {
			t.Fatal(err)
		}
		again, err := r.load()
		if err != nil || again.Path != rec.Path || !again.Was.same(rec.Was) || len(again.Wrote) != len(rec.Wrote) {
			t.Errorf("%+v\n%+v, %v", rec, again, err)
		}
	})
}
