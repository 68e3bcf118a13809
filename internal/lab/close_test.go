package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// victimVar asks the test program to be the process that TestSweep kills; its value is the lab's prefix.
const victimVar = "LAB_TEST_VICTIM"

// switchVar gives the victim's lab a switch.
const switchVar = "LAB_TEST_SWITCH"

// markVar marks the processes of a test, so that orphans are found whatever namespace they are in.
const markVar = "LAB_TEST_MARK"

// ours matches the labs of this package's tests, whose names nobody else on the machine uses.
var ours = regexp.MustCompile(`^loom(test|sweep|alive)-`)

// traces returns all that a lab can leave on a machine, without what others do there meanwhile.
func traces(t *testing.T, mark string) []string {
	t.Helper()
	var out []string
	add := func(kind string, names ...string) {
		for _, n := range names {
			out = append(out, kind+" "+n)
		}
	}
	for _, dir := range []string{pinDir, os.TempDir(), "/etc/netns"} {
		entries, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if ours.MatchString(e.Name()) {
				add(dir, e.Name())
			}
		}
	}
	for _, ifi := range must(net.Interfaces())(t) {
		add("link", ifi.Name)
	}
	for line := range strings.Lines(string(must(os.ReadFile("/proc/self/mountinfo"))(t))) {
		if point := strings.Fields(line)[4]; filepath.Dir(point) != pinDir || ours.MatchString(filepath.Base(point)) {
			add("mount", point)
		}
	}
	for _, path := range must(filepath.Glob("/proc/[0-9]*/environ"))(t) {
		if env, err := os.ReadFile(path); err == nil && bytes.Contains(env, []byte(markVar+"="+mark)) {
			add("process", filepath.Base(filepath.Dir(path)))
		}
	}
	// Children, also those that have ended and are not waited for, which have no environment.
	for _, path := range must(filepath.Glob("/proc/self/task/*/children"))(t) {
		if children, err := os.ReadFile(path); err == nil {
			add("child", strings.Fields(string(children))...)
		}
	}
	// Threads of this process in other namespaces, and files that keep such alive.
	for _, path := range must(filepath.Glob("/proc/self/task/*/ns/*"))(t) {
		if ns, err := os.Readlink(path); err == nil {
			add("thread in", ns)
		}
	}
	for _, path := range must(filepath.Glob("/proc/self/fd/*"))(t) {
		if target, err := os.Readlink(path); err == nil && !strings.HasPrefix(target, "pipe:") && !strings.HasPrefix(target, "anon_inode:") {
			add("file", target)
		}
	}
	add("goroutines", strconv.Itoa(runtime.NumGoroutine()))
	slices.Sort(out)
	return slices.Compact(out)
}

// wantNoTraces waits for threads to end, and compares.
func wantNoTraces(t *testing.T, before []string, mark string) {
	t.Helper()
	var left []string
	for range 100 {
		left = slices.DeleteFunc(traces(t, mark), func(s string) bool { return slices.Contains(before, s) })
		if len(left) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("left on the machine:\n%s", strings.Join(left, "\n"))
}

// populate fills a lab with one of everything, processes that try to escape among it.
func populate(t *testing.T, l *Lab, mark string) *Host {
	t.Helper()
	lan := must(l.AddBridge("lan"))(t)
	a, r := must(l.AddHost("a"))(t), must(l.AddRouter("r"))(t)
	wan := must(r.Join(lan, "wan", "203.0.113.1/24"))(t)
	eth0 := must(a.Join(lan, "eth0", "203.0.113.2/24"))(t)
	must(l.ShapedCable(Plug{On: a, Name: "slow0"}, Plug{On: r, Name: "slow0"}, Shape{Delay: time.Hour}))(t)
	check(t, r.Protect(wan, Symmetric))
	must(eth0.Drop(Match{Chance: 0.5}))(t)
	must(a.Capture("eth0"))(t)
	for _, script := range []string{
		"exec sleep 600",
		"setsid sleep 600 & sleep 600",        // another session
		"trap '' TERM HUP INT; sleep 600 & :", // an orphan at once
		"unshare -n sleep 600 & sleep 600",    // another network, the same files
		"unshare -n -m sleep 600 & sleep 600", // other files too
	} {
		c := a.Command(context.Background(), "sh", "-c", script)
		c.Env = append(os.Environ(), markVar+"="+mark)
		must(c.StartLogged())(t)
	}
	check(t, a.Command(context.Background(), "sleep", "600").Start()) // and nobody waits
	time.Sleep(50 * time.Millisecond)                                 // let them escape
	return a
}

func TestCloseLeavesNothing(t *testing.T) {
	newLab(t) // skip or fail here, not below
	mark := fmt.Sprint("close", time.Now().UnixNano())
	before := traces(t, mark)
	for range 2 {
		l := must(New("loomtest"))(t)
		a := populate(t, l, mark)
		if n := len(traces(t, mark)); n <= len(before) {
			t.Errorf("%d traces with a lab, %d without: the comparison sees nothing", n, len(before))
		}
		start := time.Now()
		check(t, l.Close())
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("Close took %s", d)
		}
		wantNoTraces(t, before, mark)
		runtime.KeepAlive(a)
		check(t, l.Close()) // again
		if _, err := l.AddHost("late"); !errors.Is(err, ErrClosed) {
			t.Errorf("a host after Close: %v, want %v", err, ErrClosed)
		}
	}
}

// Close comes while hosts are added, cables laid and commands run.
func TestCloseAtAnyTime(t *testing.T) {
	newLab(t)
	mark := fmt.Sprint("any", time.Now().UnixNano())
	before := traces(t, mark)
	for i := range 6 {
		l := must(New("loomtest"))(t)
		var wg sync.WaitGroup
		for n := range 3 {
			wg.Go(func() { build(l, n, mark) })
		}
		time.Sleep(time.Duration(i) * 25 * time.Millisecond)
		check(t, l.Close())
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("calls hang after Close")
		}
		wantNoTraces(t, before, mark)
	}
}

// build goes on until the lab is closed.
func build(l *Lab, n int, mark string) {
	bridge, err := l.AddBridge(fmt.Sprintf("bridge%d", n))
	for i := 0; err == nil; i++ {
		var h *Host
		if h, err = l.AddHost(fmt.Sprintf("host%d-%d", n, i)); err != nil {
			return
		}
		_, err = h.Join(bridge, "eth0", "10.0.0.1/24")
		if _, delayErr := l.ShapedCable(Plug{On: h, Name: "slow"}, Plug{On: bridge}, Shape{}); delayErr == nil {
			_, _ = h.Capture("slow")
		}
		go func() {
			c := h.Command(context.Background(), "sh", "-c", "sleep 600 & sleep 600")
			c.Env = append(os.Environ(), markVar+"="+mark)
			_, _ = c.CombinedOutput()
		}()
		_ = h.Do(func() error { return nil })
	}
}

// victim builds a lab, says so and waits to be killed.
func victim(prefix string) {
	l, err := New(prefix)
	if err == nil {
		var h *Host
		if h, err = l.AddHost("a"); err == nil {
			_, err = h.Command(context.Background(), "sh", "-c", "setsid sleep 600 & exec sleep 600").StartLogged()
		}
	}
	if os.Getenv(switchVar) != "" && err == nil {
		_, err = l.AddVLANSwitch(context.Background(), "switch")
	}
	time.Sleep(50 * time.Millisecond) // let the grandchild escape
	fmt.Println(l.Name(), err)
	select {}
}

func TestSweep(t *testing.T) {
	newLab(t)
	const prefix = "loomsweep"
	mark := fmt.Sprint("sweep", time.Now().UnixNano())
	must(Sweep(prefix))(t) // what an earlier test run may have left
	before := traces(t, mark)

	cmd := exec.Command(must(os.Executable())(t), "-test.run=^$")
	cmd.Env = append(os.Environ(), victimVar+"="+prefix, markVar+"="+mark)
	out := must(cmd.StdoutPipe())(t)
	check(t, cmd.Start())
	line := make([]byte, 200)
	n := must(out.Read(line))(t)
	name, ok := strings.CutSuffix(string(line[:n]), " <nil>\n")
	if !ok {
		t.Fatalf("the victim says %q", line[:n])
	}
	processes := func() (n int) {
		for _, s := range traces(t, mark) {
			if strings.HasPrefix(s, "process ") {
				n++
			}
		}
		return n
	}
	if got := processes(); got != 3 {
		t.Fatalf("%d processes, want the victim, its child and its grandchild", got)
	}
	if removed := must(Sweep(prefix))(t); len(removed) != 0 {
		t.Fatalf("swept %v of a live process", removed)
	}

	check(t, cmd.Process.Kill())
	_ = cmd.Wait()
	for range 100 { // the child dies with its parent; the grandchild has none that would tell it
		if processes() == 1 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got := processes(); got != 1 {
		t.Errorf("%d processes live on, want the grandchild alone", got)
	}
	removed := must(Sweep(prefix))(t)
	slices.Sort(removed)
	if want := []string{name, name + "-a"}; !slices.Equal(removed, want) {
		t.Errorf("swept %v, want %v", removed, want)
	}
	wantNoTraces(t, before, mark)
}

// A process id is used again: the directory's start time tells the lab of the dead process from one of the live one.
func TestAlive(t *testing.T) {
	newLab(t)
	for _, c := range []struct {
		owner string
		pid   int
		want  bool
	}{
		{fmt.Sprintf("%d %s\n", os.Getpid(), startTime(os.Getpid())), os.Getpid(), true},
		{fmt.Sprintf("%d %s\n", os.Getpid(), "1"), os.Getpid(), false},
		{"", os.Getpid(), true}, // just being made
		{"", 1 << 30, false},
	} {
		name := fmt.Sprintf("loomalive-%d.99", c.pid)
		dir := filepath.Join(os.TempDir(), name)
		check(t, os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, ownerFile), []byte(c.owner), 0o600))
		removed := must(Sweep("loomalive"))(t)
		if alive := len(removed) == 0; alive != c.want {
			t.Errorf("lab of process %d, owner %q: alive %t, want %t", c.pid, c.owner, alive, c.want)
		}
		check(t, os.RemoveAll(dir))
	}
	for _, c := range []struct {
		entry, lab string
		pid        int
	}{
		{"loom-12-a", "loom-12", 12},
		{"loom-12.3-a-b", "loom-12.3", 12},
		{"loom-12", "loom-12", 12},
		{"loom-x-a", "", 0},
		{"loom-12x", "", 0},
		{"loomtest-12", "", 0},
		{"other", "", 0},
		{"xloom-12", "", 0},
	} {
		if lab, pid, ok := parseName("loom", c.entry); lab != c.lab || pid != c.pid || ok != (c.lab != "") {
			t.Errorf("%s: lab %q, process %d, %t", c.entry, lab, pid, ok)
		}
	}
}
