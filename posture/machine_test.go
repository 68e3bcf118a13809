package posture

import (
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"
)

func TestOSRelease(t *testing.T) {
	for name, tt := range map[string]struct{ text, id, version string }{
		"debian":         {"PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nVERSION_ID=\"13\"\nID=debian\n", "debian", "13"},
		"single quotes":  {"ID='a$b'\nVERSION_ID='1\\2'", "a$b", `1\2`},
		"escapes":        {`ID="a\"b\\c\$d\e"`, `a"b\c$d\e`, ""},
		"comments":       {"# ID=no\n\nID=yes\n#", "yes", ""},
		"the last wins":  {"ID=a\nID=b\n", "b", ""},
		"no id":          {"VERSION_ID=1\n", "linux", "1"},
		"nothing":        {"", "", ""},
		"half a quote":   {`ID="`, `"`, ""},
		"not to be seen": {"ID=a\x1b[31m\x00b\n", "a[31mb", ""},
		"long":           {"ID=" + string(make([]byte, 1<<16)) + "x\n", "x", ""},
		"no line end":    {"ID=a\r", "a", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if id, version := parseOSRelease([]byte(tt.text)); id != tt.id || version != tt.version {
				t.Errorf("%q %q, want %q %q", id, version, tt.id, tt.version)
			}
		})
	}
}

func TestRootMount(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want mount
		ok   bool
	}{
		"partition":  {"21 28 0:19 / /sys rw - sysfs sysfs rw\n28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n", mount{"8:1", "/dev/sda1"}, true},
		"stacked":    {"1 0 0:2 / / rw - rootfs rootfs rw\n28 1 254:0 / / rw - xfs /dev/mapper/root rw\n", mount{"254:0", "/dev/mapper/root"}, true},
		"no options": {"28 1 8:1 / / rw - ext4 /dev/sda1 rw\n", mount{"8:1", "/dev/sda1"}, true},
		"elsewhere":  {"28 1 8:1 / /home rw - ext4 /dev/sda1 rw\n", mount{}, false},
		"short":      {"28 1 8:1 / / - ext4 x\n28 1\n\n - \n", mount{}, false},
		"numbers":    {"28 1 a:b / / rw - ext4 /dev/sda1 rw\n", mount{}, false},
		"path":       {"28 1 8:1/../.. / / rw - ext4 /dev/sda1 rw\n", mount{"8:1", "/dev/sda1"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if m, ok := parseRootMount([]byte(tt.text)); m != tt.want || ok != tt.ok {
				t.Errorf("%+v %v, want %+v %v", m, ok, tt.want, tt.ok)
			}
		})
	}
}

// block makes a block device in a /sys: its dm uuid and what lies below it.
func block(t *testing.T, root, number, uuid string, below ...string) string {
	t.Helper()
	dir := filepath.Join(root, "sys/devices/virtual/block", number)
	must(t, os.MkdirAll(filepath.Join(dir, "slaves"), 0o755))
	if uuid != "" {
		write(t, filepath.Join(dir, "dm/uuid"), uuid+"\n", 0o444)
	}
	for _, b := range below {
		must(t, os.Symlink("../../"+b, filepath.Join(dir, "slaves", b)))
	}
	must(t, os.MkdirAll(filepath.Join(root, "sys/dev/block"), 0o755))
	must(t, os.Symlink("../../devices/virtual/block/"+number, filepath.Join(root, "sys/dev/block", number)))
	return dir
}

func TestEncrypted(t *testing.T) {
	root := t.TempDir()
	block(t, root, "8:0", "")
	block(t, root, "8:16", "")
	block(t, root, "254:0", "CRYPT-LUKS2-0123-root", "8:0")
	block(t, root, "254:1", "LVM-abc", "254:0")
	block(t, root, "254:2", "LVM-abc", "8:0")
	block(t, root, "9:0", "", "254:0", "8:16") // RAID: half of it is in the clear
	block(t, root, "9:1", "", "254:0", "254:1")
	block(t, root, "254:9", "LVM-self", "254:9")
	raid := block(t, root, "9:2", "", "254:0")
	write(t, filepath.Join(raid, "9:3/partition"), "1\n", 0o444)
	must(t, os.Symlink("../../devices/virtual/block/9:2/9:3", filepath.Join(root, "sys/dev/block/9:3")))
	l := newLooker(root)
	for device, want := range map[string]bool{
		"8:0": false, "254:0": true, "254:1": true, "254:2": false, "9:0": false, "9:1": true, "254:9": false, "9:3": true, "7:7": false,
		"0:40": false, // no device, and its source is none
	} {
		if got := l.encrypted([]byte("28 1 " + device + " / / rw - ext4 overlay rw\n")); got != want {
			t.Errorf("%s: %v, want %v", device, got, want)
		}
	}
	if l.encrypted(nil) {
		t.Error("no mounts: encrypted")
	}
}

// What can be said of this very machine is well-formed, whatever it is.
func TestFacts(t *testing.T) {
	r := newLooker("/").facts()
	if r.Kernel == "" || r.Arch == "" {
		t.Errorf("%+v", r)
	}
	if r := newLooker(t.TempDir()).facts(); r.OS != "" || r.DiskEncrypted {
		t.Errorf("of nothing: %+v", r)
	}
}

func checkText(t *testing.T, s string) {
	t.Helper()
	if len(s) > maxText || !utf8.ValidString(s) || clean(s) != s {
		t.Errorf("%q may not be reported", s)
	}
}

func FuzzOSRelease(f *testing.F) {
	for _, s := range []string{"ID=debian\nVERSION_ID=\"13\"\n", `ID="a\"`, "ID='", "=\n==", "ID=\xff\xfe\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		id, version := parseOSRelease(b)
		checkText(t, id)
		checkText(t, version)
	})
}

func FuzzRootMount(f *testing.F) {
	for _, s := range []string{"28 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n", "28 1 0:1 / / rw - btrfs /dev/x\\040y rw", " - - - \n", "1 1 : / / - a b"} {
		f.Add([]byte(s))
	}
	l := newLooker(f.TempDir())
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, ok := parseRootMount(b); ok {
			for _, c := range m.device {
				if c != ':' && (c < '0' || c > '9') {
					t.Errorf("device %q leads elsewhere in /sys", m.device)
				}
			}
		}
		if l.encrypted(b) {
			t.Error("nothing is encrypted here")
		}
	})
}

func FuzzClean(f *testing.F) {
	f.Add("a\x1b[0m\xff")
	f.Fuzz(func(t *testing.T, s string) { checkText(t, clean(s)) })
}
