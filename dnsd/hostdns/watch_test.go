package hostdns

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// running starts Run and returns what ends it.
func running(t *testing.T, r *Resolver) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (h host) wait(what string, f func() bool) {
	h.t.Helper()
	for begin := time.Now(); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			h.t.Fatalf("%s: not within 10 s", what)
		}
	}
}

// Run gives back at its end what Set has written.
func TestRunRestores(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			h := newHost(t, kind)
			r := New(h.config())
			stop := running(t, r)
			h.must(r.Set(t.Context(), testTarget()))
			stop()
			h.checkOriginal()
			if r.State() != (State{Mode: ModeNone}) {
				t.Errorf("%+v", r.State())
			}
		})
	}
}

// Whoever changes the file, and however often: the state tells, the log tells once, and the file stays as they want it.
func TestRunNoticesChanges(t *testing.T) {
	const theirs = "nameserver 198.51.100.1\n"
	write := func(name string) func(h host, content string) {
		return func(h host, content string) { h.put(name, content, 0o644) }
	}
	rename := func(h host, content string) { // as an editor does
		h.put("etc/resolv.conf~", content, 0o644)
		h.must(os.Rename(h.path("etc/resolv.conf~"), h.path("etc/resolv.conf")))
	}
	remove := func(h host, content string) {
		h.must(os.Remove(h.path("etc/resolv.conf")))
		time.Sleep(settle / 2)
		h.put("etc/resolv.conf", content, 0o644)
	}
	for _, tt := range []struct {
		name, kind string
		change     []func(h host, content string)
	}{
		{"written", "file", []func(host, string){write("etc/resolv.conf")}},
		{"renamed", "file", []func(host, string){rename}},
		{"removed and written", "file", []func(host, string){remove}},
		{"renamed, then written, then renamed", "file", []func(host, string){rename, write("etc/resolv.conf"), rename}},
		{"bind mount written", "bind mount", []func(host, string){write("etc/resolv.conf")}},
		{"bind mount written by its other name", "bind mount", []func(host, string){write("netns.conf"), write("netns.conf")}},
		{"bind mount behind a symlink", "symlink to a bind mount", []func(host, string){write("netns.conf")}},
		{"symlink", "symlink", []func(host, string){rename}},
		{"absent", "absent", []func(host, string){write("etc/resolv.conf")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, tt.kind)
			var log safeBuffer
			cfg := h.config()
			cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
			r := New(cfg)
			stop := running(t, r)
			h.must(r.Set(t.Context(), testTarget()))
			ours := h.now()
			for i, change := range tt.change {
				time.Sleep(2 * settle) // let Run take its watches, as in life
				change(h, theirs)
				h.wait("notice the change", func() bool { return r.State().Changed && r.State().Note != "" })
				if i < len(tt.change)-1 {
					change(h, ours)
					h.wait("notice ours", func() bool { return !r.State().Changed && r.State().Note == "" })
				}
			}
			stop()
			if h.now() != theirs {
				t.Errorf("fought over: %q", h.now())
			}
			if got := strings.Count(log.String(), "changed by somebody else"); got < len(tt.change) || got > 2*len(tt.change) {
				t.Errorf("log:\n%s", log.String())
			}
			if entries, err := os.ReadDir(h.path("state")); err != nil || len(entries) != 0 {
				t.Errorf("record not dropped: %v, %v", entries, err)
			}
		})
	}
}

// The file behind the symlink belongs to somebody who goes on writing it, say when the machine comes to another network.
func TestRunFollowsTheSymlink(t *testing.T) {
	for _, kind := range []string{"symlink", "dangling symlink"} {
		t.Run(kind, func(t *testing.T) {
			h := newHost(t, kind)
			r := New(h.config())
			stop := running(t, r)
			h.must(r.Set(t.Context(), testTarget()))
			for _, addr := range []string{"198.51.100.1", "198.51.100.2"} {
				time.Sleep(2 * settle)
				h.put("run/new", "nameserver "+addr+"\n", 0o644)
				h.must(os.Rename(h.path("run/new"), h.path("run/resolv.conf")))
				h.wait("follow", func() bool {
					ups := r.Upstreams()
					return len(ups) == 1 && ups[0].Addr().String() == addr
				})
				if c := parseConf([]byte(h.now())); c.nameservers[0] != testTarget().Server.Addr() || r.State().Changed {
					t.Errorf("%v, %+v", c, r.State())
				}
			}
			stop()
			if link, err := os.Readlink(h.path("etc/resolv.conf")); err != nil || link != "../run/resolv.conf" {
				t.Errorf("%q, %v", link, err)
			}
		})
	}
}

// safeBuffer is a bytes.Buffer for several goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// The record is on the disk, directory and all, before the first step that touches resolv.conf.
func TestRecordFirst(t *testing.T) {
	var steps []string
	h := newHost(t, "file")
	h.must(h.file(func(what string) error { steps = append(steps, what); return nil }).set(testTarget()))
	one := []string{"create", "write", "chown", "chmod", "sync", "rename", "sync directory"}
	if want := slices.Concat(one, one); !slices.Equal(steps, want) {
		t.Errorf("steps %q", steps)
	}
}
