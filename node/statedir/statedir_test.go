package statedir

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/transport"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantError checks that an error says all of these.
func wantError(t testing.TB, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error is %v, want ...%s...", err, text)
		}
	}
}

func newDir(t testing.TB) *Dir {
	t.Helper()
	d, err := Create(filepath.Join(t.TempDir(), "state"))
	must(t, err)
	return d
}

func membership() Membership {
	return Membership{
		Network: "0123456789abcdef0123456789abcdef", ID: 7, Name: "a", Zone: "etherloom.internal",
		Controllers: []string{"https://192.0.2.1:443"}, Port: 50000,
	}
}

// file is one kind of file with content, how it is written and how it is read.
type file struct {
	name string
	perm os.FileMode
	save func(*Dir) error
	read func(*Dir) (any, error)
	want any
}

func files(t testing.TB) []file {
	t.Helper()
	keys, err := identity.NewNodeKeys()
	must(t, err)
	memory := transport.Remembered{Clock: 5, Peers: map[identity.ID]transport.RememberedPeer{3: {HandshakeNonce: 1, HandshakeTime: 2, Signal: 4}}}
	return []file{
		{"node.json", 0o600, func(d *Dir) error { return d.SaveMembership(membership()) }, func(d *Dir) (any, error) { return d.Membership() }, membership()},
		{"node.key", 0o600, func(d *Dir) error { return d.SaveKeys(keys) }, func(d *Dir) (any, error) { return d.Keys() }, keys},
		{"node.crt", 0o644, func(d *Dir) error { return d.SaveCertificate([]byte("leaf")) }, func(d *Dir) (any, error) { return d.Certificate() }, []byte("leaf")},
		{"ca.crt", 0o644, func(d *Dir) error { return d.SaveCA([]byte("ca")) }, func(d *Dir) (any, error) { return d.CA() }, []byte("ca")},
		{"state", 0o600, func(d *Dir) error { return d.SaveState([]byte("s")) }, func(d *Dir) (any, error) { return d.State() }, []byte("s")},
		{"memory.json", 0o600, func(d *Dir) error { return d.SaveMemory(memory) }, func(d *Dir) (any, error) {
			r, found, err := d.Memory()
			if err == nil && !found {
				err = errors.New("not found")
			}
			return r, err
		}, memory},
	}
}

// Each file comes back as it was written, lies in the place that the package comment names, and shows secrets to nobody.
func TestFiles(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	d := newDir(t)
	for _, f := range files(t) {
		must(t, f.save(d))
		got, err := f.read(d)
		if err != nil || !reflect.DeepEqual(got, f.want) {
			t.Errorf("%s: read %v, %v; wrote %v", f.name, got, err, f.want)
		}
		info, err := os.Stat(filepath.Join(d.path, f.name))
		must(t, err)
		if info.Mode().Perm() != f.perm {
			t.Errorf("%s has mode %04o, want %04o", f.name, info.Mode().Perm(), f.perm)
		}
	}
	list, err := os.ReadDir(d.path)
	must(t, err)
	if len(list) != len(files(t)) {
		t.Errorf("the directory holds %v", list)
	}
	if d.Socket() != d.Path("control.sock") || d.Path("") != d.path {
		t.Errorf("socket is %s, directory %s", d.Socket(), d.Path(""))
	}
}

// What was open before a file was written anew still shows the old content, whole: no file is written over.
func TestWritesAreAtomic(t *testing.T) {
	d := newDir(t)
	for _, f := range files(t) {
		must(t, os.WriteFile(d.Path(f.name), []byte("old"), 0o600))
		old, err := os.Open(d.Path(f.name))
		must(t, err)
		defer old.Close()
		must(t, f.save(d))
		var b [8]byte
		if n, _ := old.Read(b[:]); string(b[:n]) != "old" {
			t.Errorf("%s: the old file holds %q", f.name, b[:n])
		}
	}
}

// A file that cannot be read, or does not hold what it must, is an error that names it, and stays as it is.
func TestDamaged(t *testing.T) {
	for _, f := range files(t) {
		for name, damage := range map[string]func([]byte) []byte{
			"empty":   func([]byte) []byte { return []byte{} },
			"garbage": func([]byte) []byte { return []byte("\x00\xff garbage") },
			"cut":     func(b []byte) []byte { return b[:len(b)/2] },
		} {
			if f.name == "state" {
				continue // statedir does not look into it; control/state does
			}
			t.Run(f.name+" "+name, func(t *testing.T) {
				d := newDir(t)
				must(t, f.save(d))
				whole, err := os.ReadFile(d.Path(f.name))
				must(t, err)
				bad := damage(whole)
				must(t, os.WriteFile(d.Path(f.name), bad, 0o600))
				_, err = f.read(d)
				wantError(t, err, d.Path(f.name)+" is damaged", "restore it from a backup, or move "+d.path+" away and join anew")
				if after, err := os.ReadFile(d.Path(f.name)); err != nil || !bytes.Equal(after, bad) {
					t.Errorf("the file holds %q now, %v", after, err)
				}
			})
		}
		t.Run(f.name+" unreadable", func(t *testing.T) {
			d := newDir(t)
			must(t, os.Mkdir(d.Path(f.name), 0o700)) // root can read every file, but no directory
			_, err := f.read(d)
			wantError(t, err, d.Path(f.name))
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotJoined) {
				t.Errorf("%v: taken for missing", err)
			}
			if err := f.save(d); err == nil {
				t.Error("overwritten")
			}
			if info, err := os.Stat(d.Path(f.name)); err != nil || !info.IsDir() {
				t.Errorf("what was there is gone: %v", err)
			}
		})
	}
	d := newDir(t)
	wantError(t, d.DamagedState(errors.New("reason")), d.Path("state")+" is damaged: reason")
}

// PEM of another kind is no certificate.
func TestCertificateKind(t *testing.T) {
	d := newDir(t)
	keys, err := identity.NewNodeKeys()
	must(t, err)
	data, err := keys.MarshalPEM()
	must(t, err)
	must(t, os.WriteFile(d.Path("node.crt"), data, 0o600))
	_, err = d.Certificate()
	wantError(t, err, d.Path("node.crt"), "no PEM certificate")
}

func TestMembershipIsWhole(t *testing.T) {
	for name, edit := range map[string]func(*Membership){
		"no network":     func(m *Membership) { m.Network = "" },
		"bad network":    func(m *Membership) { m.Network = "../x" },
		"no identity":    func(m *Membership) { m.ID = 0 },
		"no controllers": func(m *Membership) { m.Controllers = nil },
	} {
		t.Run(name, func(t *testing.T) {
			d, m := newDir(t), membership()
			edit(&m)
			must(t, d.SaveMembership(m))
			_, err := d.Membership()
			wantError(t, err, d.Path("node.json")+" is damaged", "missing")
		})
	}
}

// What is not there yet is told from what is damaged.
func TestMissing(t *testing.T) {
	d := newDir(t)
	if d.Joined() {
		t.Error("an empty directory is taken for a membership")
	}
	_, err := d.Membership()
	wantError(t, err, d.path+" holds no node.json", "etherloom join")
	if !errors.Is(err, ErrNotJoined) {
		t.Errorf("%v is not ErrNotJoined", err)
	}
	if data, err := d.State(); data != nil || err != nil {
		t.Errorf("state: %q, %v", data, err)
	}
	if r, found, err := d.Memory(); found || err != nil || r.Clock != 0 {
		t.Errorf("memory: %v, %v, %v", r, found, err)
	}
	for name, read := range map[string]func() error{
		"node.key": func() error { _, err := d.Keys(); return err },
		"node.crt": func() error { _, err := d.Certificate(); return err },
		"ca.crt":   func() error { _, err := d.CA(); return err },
	} {
		err := read()
		wantError(t, err, d.Path(name))
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v is not ErrNotExist", name, err)
		}
	}
	// An empty state file is not the same as none: something has cut it.
	must(t, d.SaveState([]byte{}))
	if data, err := d.State(); data == nil || err != nil {
		t.Errorf("empty state: %v, %v", data, err)
	}
	must(t, d.SaveMembership(membership()))
	if !d.Joined() {
		t.Error("a membership is not seen")
	}
}

func TestOpen(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	root := t.TempDir()
	path := filepath.Join(root, "a", "b")
	_, err := Open(path)
	wantError(t, err, path, "etherloom join", "--state-dir")
	if !errors.Is(err, ErrNotJoined) {
		t.Errorf("%v is not ErrNotJoined", err)
	}
	_, err = Create(path)
	must(t, err)
	for _, p := range []string{path, filepath.Dir(path)} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s was made with mode %v, %v", p, info.Mode(), err)
		}
	}
	for _, mode := range []os.FileMode{0o701, 0o702, 0o704, 0o710, 0o720, 0o740, 0o777} {
		must(t, os.Chmod(path, mode))
		for name, f := range map[string]func(string) (*Dir, error){"Open": Open, "Create": Create} {
			if _, err := f(path); err == nil || !strings.Contains(err.Error(), "chmod 0700 "+path) {
				t.Errorf("%s of a directory with mode %04o: %v", name, mode, err)
			}
		}
	}
	must(t, os.Chmod(path, 0o500))
	if _, err := Open(path); err != nil {
		t.Errorf("a directory that its owner alone can read: %v", err)
	}
	file := filepath.Join(root, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	_, err = Open(file)
	wantError(t, err, file+" is not a directory")
	_, err = Open(filepath.Join(file, "below"))
	wantError(t, err, filepath.Join(file, "below"))
	if _, err := Create(filepath.Join(file, "below")); err == nil {
		t.Error("a directory was made below a file")
	}
}

// holderVariable names the directory that this program, started again, locks and holds.
const holderVariable = "STATEDIR_TEST_HOLD"

func TestMain(m *testing.M) {
	path := os.Getenv(holderVariable)
	if path == "" {
		os.Exit(m.Run())
	}
	d, err := Open(path)
	if err == nil {
		_, err = d.Lock()
	}
	fmt.Println(err)
	_, _ = os.Stdin.Read(make([]byte, 1)) // until it is killed
}

// A second daemon on the same directory is refused and told of the first, until that one ends, however it ends.
func TestLock(t *testing.T) {
	d := newDir(t)
	must(t, os.WriteFile(d.Path("lock"), []byte("99999999999 of a daemon long ago\n"), 0o600))
	release, err := d.Lock()
	must(t, err)
	again, err := Open(d.path)
	must(t, err)
	_, err = again.Lock()
	wantError(t, err, "another daemon (process "+strconv.Itoa(os.Getpid())+") uses "+d.path, "--state-dir")
	release()
	release, err = again.Lock()
	if err != nil {
		t.Fatalf("after the release: %v", err)
	}
	release()

	exe, err := os.Executable()
	must(t, err)
	other := exec.Command(exe)
	other.Env = append(os.Environ(), holderVariable+"="+d.path)
	stdin, err := other.StdinPipe()
	must(t, err)
	defer stdin.Close()
	stdout, err := other.StdoutPipe()
	must(t, err)
	must(t, other.Start())
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	if line != "<nil>\n" {
		t.Errorf("the other process has: %s", line)
	}
	_, err = d.Lock()
	wantError(t, err, fmt.Sprintf("(process %d)", other.Process.Pid))
	must(t, other.Process.Kill())
	_ = other.Wait()
	release, err = d.Lock()
	if err != nil {
		t.Fatalf("after the other process was killed: %v", err)
	}
	release()
}

func TestLockCannotBeMade(t *testing.T) {
	d := newDir(t)
	must(t, os.Mkdir(d.Path("lock"), 0o700))
	_, err := d.Lock()
	wantError(t, err, d.Path("lock"))
}

// Reserve finds out that there is no room while there still is some, and leaves nothing behind either way.
func TestReserve(t *testing.T) {
	d := newDir(t)
	must(t, d.Reserve())
	if list, _ := os.ReadDir(d.path); len(list) != 0 {
		t.Errorf("left %v", list)
	}
	withSmallDisk(t, d.path, func() {
		wantError(t, d.Reserve(), "no room for the state of this machine", d.Path(".reserve"))
		if list, _ := os.ReadDir(d.path); len(list) != 0 {
			t.Errorf("left %v", list)
		}
	})
}

// withSmallDisk runs f on a thread for which dir is a disk of 64 KiB. The thread ends with it, and the disk with the thread.
func withSmallDisk(t *testing.T, dir string, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k")
		}
		if err == nil {
			defer close(done)
			f()
			return
		}
		done <- err
	}()
	if err := <-done; errors.Is(err, unix.EPERM) {
		t.Skip("mounting takes root")
	} else if err != nil {
		t.Fatal(err)
	}
}
