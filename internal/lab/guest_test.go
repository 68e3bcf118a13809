package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// newGuest boots a guest, or skips the test where none is asked for.
func newGuest(t *testing.T, l *Lab, plugs ...Plug) *Guest {
	t.Helper()
	if os.Getenv("ETHERLOOM_ACCEPT") != "1" {
		t.Skip("a guest boots only with ETHERLOOM_ACCEPT=1")
	}
	root := os.Getenv("ETHERLOOM_GUEST") // what scripts/guest.sh prints
	if root == "" {
		root = "/"
	}
	k := must(FindGuestKernel(root))(t)
	start := time.Now()
	g := must(l.AddGuest(t.Context(), "guest", k, plugs...))(t)
	t.Logf("booted in %s", time.Since(start))
	return g
}

// A bridge of a real kernel that knows VLANs, with an 802.1Q interface on it, behaves as the switch of a site does.
func TestGuest(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a, b, tap := must(l.AddHost("a"))(t), must(l.AddHost("b"))(t), bare(t, l, "tap")
	g := newGuest(t, l, Plug{On: a, Name: "eth0", Addrs: []string{"198.51.100.1/24"}},
		Plug{On: b, Name: "eth0", Addrs: []string{"198.51.100.2/24"}}, Plug{On: tap, Name: "lan", MTU: 1500})
	must(g.Run(t.Context(), `
		ip link add br0 type bridge vlan_filtering 1 vlan_default_pvid 0
		for n in 0 1 2; do ip link set eth$n master br0 up; done
		bridge vlan add dev eth0 vid 10 pvid untagged
		bridge vlan add dev eth1 vid 20 pvid untagged
		bridge vlan add dev eth2 vid 10
		bridge vlan add dev eth2 vid 20
		bridge vlan add dev br0 vid 10 self
		ip link set br0 up
		ip link add link br0 name br0.10 type vlan id 10
		ip address add 198.51.100.10/24 dev br0.10
		ip link set br0.10 up`))(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	must(a.WaitPing(ctx, "198.51.100.10"))(t)
	if r, err := b.Ping(ctx, "198.51.100.10", Echo{Wait: brief}); err == nil && r.Received > 0 {
		t.Error("who is on VLAN 20 reaches an address on VLAN 10")
	}
	atTap, atB := must(tap.CaptureArrivals("lan"))(t), must(b.CaptureArrivals("eth0"))(t)
	tr := NewTrain(Ethernet(Broadcast(), mac(1), Experimental), 100, time.Millisecond)
	must(a.SendTrain(ctx, "eth0", tr))(t)
	tagged := Ethernet(Broadcast(), mac(1), Experimental, Tag{VLAN: 10})
	if err := must(atTap.AwaitTrain(ctx, tr, tagged, patient/5))(t).Exactly(100); err != nil {
		t.Error("at the trunk:", err)
	}
	if err := must(atB.Train(tr, tr.Head))(t).Exactly(0); err != nil {
		t.Error("on the other VLAN:", err)
	}
	if out := must(g.Run(ctx, "bridge fdb show br br0 vlan 10"))(t); !strings.Contains(out, mac(1).String()+" dev eth0") {
		t.Errorf("the bridge has not learned: %s", out)
	}
	if out, err := g.Run(ctx, "echo reason; false; echo more"); err == nil || out != "reason\n" || !strings.Contains(err.Error(), "reason") {
		t.Errorf("a script that fails: %q, %v", out, err)
	}
	check(t, g.Host().Remove()) // and both TAPs go
	if _, err := a.Ping(t.Context(), "198.51.100.10", Echo{Wait: brief}); err == nil {
		t.Error("the NIC of a guest that is off is still there")
	}
	if _, err := g.Run(t.Context(), "true"); err == nil {
		t.Error("a guest that is off runs a script")
	}
}

// The archive is read back by the rules of cpio(5): a header of 110 bytes, name and data each padded to 4.
func TestInitramfs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	check(t, os.WriteFile(dir+"/five", []byte("12345"), 0o600))
	var a initramfs
	made := map[string]bool{}
	check(t, a.addFile(made, dir+"/five", "lib/x/five"), a.addFile(made, dir+"/five", "lib/x/five"), a.addFile(made, dir+"/five", "lib/four"))
	a.add("empty", cpioFile|0o644, nil)
	var got []string
	for rest := a.Bytes(); len(rest) > 0; {
		field := func(n int) int { // header fields are 8 digits after the magic
			return int(must(strconv.ParseUint(string(rest[6+8*n:14+8*n]), 16, 32))(t))
		}
		if string(rest[:6]) != "070701" {
			t.Fatalf("an entry begins with %q after %q", rest[:6], got)
		}
		name := string(rest[110 : 110+field(11)-1])
		data := (110 + field(11) + 3) &^ 3
		got = append(got, fmt.Sprintf("%o %s %s", field(1), name, rest[data:data+field(6)]))
		rest = rest[(data+field(6)+3)&^3:]
	}
	if want := []string{"40755 lib ", "40755 lib/x ", "100755 lib/x/five 12345", "100755 lib/four 12345", "100644 empty "}; !slices.Equal(got, want) {
		t.Errorf("the archive has %q, want %q", got, want)
	}
}

func TestFindGuestKernel(t *testing.T) {
	t.Parallel()
	if _, err := FindGuestKernel(t.TempDir()); err == nil || !strings.Contains(err.Error(), "scripts/guest.sh") {
		t.Errorf("where there is no kernel: %v", err)
	}
	root := t.TempDir()
	kernels := []string{"6.1.0-9-cloud-amd64", "6.1.0-56-cloud-amd64", "6.1.0-57-amd64"}
	check(t, os.Mkdir(root+"/boot", 0o755))
	for _, v := range kernels {
		check(t, os.WriteFile(root+"/boot/vmlinuz-"+v, nil, 0o600))
	}
	if _, err := FindGuestKernel(root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("where there are no modules: %v", err)
	}
	dir := root + "/lib/modules/" + kernels[0] + "/kernel/net"
	check(t, os.MkdirAll(dir, 0o755), os.MkdirAll(root+"/lib/modules/"+kernels[1], 0o755))
	names := guestModules()
	for _, m := range names[1:] {
		check(t, os.WriteFile(dir+"/"+m+".ko", nil, 0o600))
	}
	if _, err := FindGuestKernel(root); err == nil || !strings.Contains(err.Error(), names[0]+".ko") {
		t.Errorf("where a module is missing: %v", err)
	}
	check(t, os.WriteFile(dir+"/"+names[0]+".ko", nil, 0o600))
	k := must(FindGuestKernel(root))(t)
	if k.Image != root+"/boot/vmlinuz-"+kernels[0] || len(k.Modules) != len(names) || k.Modules[0] != dir+"/"+names[0]+".ko" {
		t.Errorf("found %+v", k)
	}
}
