package lab

import (
	"context"
	"crypto/sha256"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// Machines behind a site's switch get a lease from a server on their VLAN, ping, resolve and copy files both ways, all with
// an MTU of 1500; who is on another VLAN gets nothing.
func TestSiteServices(t *testing.T) {
	t.Parallel()
	needPrograms(t, "dnsmasq", "udhcpc", "socat")
	o := newOffice(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	server := must(o.a.ServeDHCP(ctx, "eth0", "198.51.100.100", "198.51.100.109"))(t)
	camera, door, stranger := must(o.lab.AddHost("camera"))(t), must(o.lab.AddHost("door"))(t), must(o.lab.AddHost("stranger"))(t)
	got := map[*Host]string{}
	for _, h := range []*Host{camera, door} {
		must(o.Access(ctx, Plug{On: h, Name: "eth0"}, 10))(t)
		p := must(h.TakeLease(ctx, "eth0"))(t)
		if !netip.MustParsePrefix("198.51.100.96/28").Contains(p.Addr()) || p.Bits() != 24 {
			t.Errorf("%s has %s", h.Name(), p)
		}
		got[h] = p.Addr().String()
	}
	if got[camera] == got[door] {
		t.Errorf("both have %s", got[door])
	}
	var names []string
	for _, l := range must(server.Leases())(t) {
		names = append(names, l.Name+" "+l.Addr.String())
	}
	slices.Sort(names)
	if want := []string{"camera " + got[camera], "door " + got[door]}; !slices.Equal(names, want) {
		t.Errorf("leases %q, want %q", names, want)
	}
	must(o.Access(ctx, Plug{On: stranger, Name: "eth0"}, 20))(t)
	if p, err := stranger.TakeLease(ctx, "eth0"); err == nil {
		t.Errorf("on another VLAN the lease is %s", p)
	}

	if a := must(door.Resolve(ctx, "camera."+LeaseDomain))(t); a.String() != got[camera] {
		t.Errorf("the camera is resolved to %s", a)
	}
	if a, err := door.Resolve(ctx, "nobody."+LeaseDomain); err == nil {
		t.Errorf("who is not there is resolved to %s", a)
	}
	for size, want := range map[int]int{1472: 1, 1473: 0} {
		r := must(door.Ping(ctx, got[camera], Echo{Size: size, DontFragment: true, Wait: time.Second}))(t)
		if r.Received != want {
			t.Errorf("%d bytes with an MTU of 1500: %d replies", size, r.Received)
		}
	}
	const size = 4 << 20
	there := must(CopyFile(ctx, door, camera, got[camera], size))(t)
	back := must(CopyFile(ctx, camera, door, got[door], size))(t)
	t.Logf("4 MiB took %s there and %s back", there, back)

	check(t, server.Stop())
	if _, err := o.b.TakeLease(ctx, "eth0"); err == nil {
		t.Error("a lease from a server that has ended")
	}
}

// What does not arrive, or not as it was, is an error.
func TestCopyFile(t *testing.T) {
	t.Parallel()
	needPrograms(t, "socat")
	sum := sha256.Sum256([]byte("as it was"))
	for text, want := range map[string]bool{"as it was": true, "as it is": false, "as it was not": false, "": false} {
		if err := wantSum(strings.NewReader(text), int64(len("as it was")), sum[:]); (err == nil) != want {
			t.Errorf("%q is %q: %v", text, "as it was", err)
		}
	}
	l := newLab(t)
	a, b := must(l.AddHost("a"))(t), must(l.AddHost("b"))(t)
	c := must(l.Cable(Plug{On: a, Name: "eth0", Addrs: []string{"198.51.100.1/24", "2001:db8::1/64"}},
		Plug{On: b, Name: "eth0", Addrs: []string{"198.51.100.2/24", "2001:db8::2/64"}}))(t)
	for _, addr := range []string{"198.51.100.2", "2001:db8::2"} {
		must(CopyFile(t.Context(), a, b, addr, 1<<20))(t)
	}
	if _, err := CopyFile(t.Context(), a, b, "198.51.100.1", 1<<20); err == nil {
		t.Error("copied to who does not listen")
	}
	must(c.B.Drop(Match{}))(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := CopyFile(ctx, a, b, "198.51.100.2", 1<<20); err == nil {
		t.Error("copied over a cable that carries nothing")
	}
}

func TestParseLease(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ line, mac, addr, name string }{
		{"1795885200 02:00:00:00:00:01 198.51.100.100 camera 01:02:00:00:00:00:01\n", "02:00:00:00:00:01", "198.51.100.100", "camera"},
		{"1795885200 02:00:00:00:00:01 198.51.100.100 * *\n", "02:00:00:00:00:01", "198.51.100.100", ""},
		{"1795885200 02:00:00:00:00:01 198.51.100.100 camera\n", "", "", ""},
		{"1795885200 02:00:00:00:00 198.51.100.100 camera *\n", "", "", ""},
		{"1795885200 02:00:00:00:00:01 198.51.100.300 camera *\n", "", "", ""},
		{"duid 00:01:00:01\n", "", "", ""},
	} {
		l, err := parseLease(c.line)
		if err != nil {
			if c.mac != "" {
				t.Errorf("%q: %v", strings.TrimSpace(c.line), err)
			}
			continue
		}
		if l.MAC.String() != c.mac || l.Addr.String() != c.addr || l.Name != c.name {
			t.Errorf("%q: %+v", strings.TrimSpace(c.line), l)
		}
	}
}
