package node

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// shelves is a daemon with segments lan and dmz, each with a port to this host and to nodes b and c, that answers local commands.
type shelves struct {
	d     *Daemon
	local *Local
	ports map[string]*vswitch.Port // by "segment port"
}

func newShelves(t *testing.T, l fdb.Limits) *shelves {
	t.Helper()
	site := newSite(t)
	x := &shelves{d: site.daemon(), local: Dial(site.dir), ports: map[string]*vswitch.Port{}}
	for vni, name := range map[policy.VNI]string{1: "lan", 2: "dmz"} {
		s := &segment{d: x.d, vni: vni, name: name, sw: vswitch.NewSegment(vni, selfID, 1500, l)}
		for i, port := range []string{"loom", "b", "c"} {
			kind := vswitch.Link
			if i == 0 {
				kind = vswitch.Local
			}
			p := vswitch.NewPort(port, kind, policy.Identity(selfID+i), nil)
			s.sw.AddPort(p)
			x.ports[name+" "+port] = p
		}
		x.d.segments[vni] = s
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- x.d.serveLocal(ctx) }()
	t.Cleanup(func() { cancel(); must(t, <-done) })
	eventually(t, "the daemon answers", func() bool {
		var list []FDBEntry
		return x.local.Get(t.Context(), "fdb", &list) == nil
	})
	return x
}

func (x *shelves) table(name string) *fdb.Table[vswitch.Place] {
	for _, s := range x.d.segments {
		if s.name == name {
			return s.sw.FDB()
		}
	}
	return nil
}

// learn has an address seen on ports, in turn.
func (x *shelves) learn(segment string, last byte, ports ...string) {
	for _, p := range ports {
		port := x.ports[segment+" "+p]
		x.table(segment).Learn(ether.MAC{2, 0, 0, 0, 0, last}, vswitch.Place{Port: port, Who: port.Identity}, time.Now())
	}
}

// list is what `etherloom fdb` has, a line each.
func (x *shelves) list(t *testing.T) (out []string) {
	t.Helper()
	var list []FDBEntry
	must(t, x.local.Get(t.Context(), "fdb", &list))
	for _, e := range list {
		kind := e.Kind
		if e.Frozen {
			kind = "frozen"
		}
		if e.Static != (kind == "static") || e.Identity != uint32(x.ports[e.Segment+" "+e.Port].Identity) {
			t.Errorf("%+v", e)
		}
		out = append(out, strings.Join([]string{e.Segment, e.MAC[15:], e.Port, kind}, " "))
	}
	slices.Sort(out)
	return out
}

func (x *shelves) want(t *testing.T, what string, want ...string) {
	t.Helper()
	if got := x.list(t); !slices.Equal(got, want) {
		t.Errorf("%s: the FDB is %q, want %q", what, got, want)
	}
}

// fdb add, remove and flush do what was asked, and no more.
func TestFDBCommands(t *testing.T) {
	x, ctx := newShelves(t, fdb.Limits{}), t.Context()
	x.learn("lan", 1, "b")
	x.learn("lan", 2, "c")
	x.learn("dmz", 1, "c")
	x.learn("dmz", 9, "b", "c", "b", "c", "b", "c")
	x.want(t, "learned", "dmz 01 c dynamic", "dmz 09 b frozen", "lan 01 b dynamic", "lan 02 c dynamic")

	done, err := x.local.AddFDB(ctx, FDBAdd{Segment: "lan", MAC: "02:00:00:00:00:01", Port: "loom"})
	must(t, err)
	if !done.Replaced || done.Schema != Schema || *done.Added != (FDBEntry{
		Segment: "lan", MAC: "02:00:00:00:00:01", Port: "loom", Who: fmt.Sprint("identity ", selfID), Identity: selfID, Kind: "static", Static: true,
	}) {
		t.Errorf("add says %+v", done)
	}
	done, err = x.local.AddFDB(ctx, FDBAdd{Segment: "lan", MAC: "02-00-00-00-00-03", Port: "b", Sticky: true})
	must(t, err)
	if done.Replaced || done.Added.Kind != "sticky" || done.Added.MAC != "02:00:00:00:00:03" {
		t.Errorf("add says %+v", done)
	}
	x.learn("lan", 1, "b")
	x.learn("lan", 3, "c")
	x.want(t, "pinned", "dmz 01 c dynamic", "dmz 09 b frozen", "lan 01 loom static", "lan 02 c dynamic", "lan 03 b sticky")

	for _, c := range []struct {
		ask     FDBFlush
		removed int
		want    []string
	}{
		{FDBFlush{Frozen: true, Segment: "lan"}, 0, []string{"dmz 01 c dynamic", "dmz 09 b frozen", "lan 01 loom static", "lan 02 c dynamic", "lan 03 b sticky"}},
		{FDBFlush{Frozen: true}, 1, []string{"dmz 01 c dynamic", "lan 01 loom static", "lan 02 c dynamic", "lan 03 b sticky"}},
		{FDBFlush{Segment: "lan", Port: "c"}, 1, []string{"dmz 01 c dynamic", "lan 01 loom static", "lan 03 b sticky"}},
		{FDBFlush{Port: "c"}, 1, []string{"lan 01 loom static", "lan 03 b sticky"}},
		{FDBFlush{}, 1, []string{"lan 01 loom static"}},
		{FDBFlush{Port: "loom"}, 0, []string{"lan 01 loom static"}},
	} {
		done, err := x.local.FlushFDB(ctx, c.ask)
		must(t, err)
		if done.Removed != c.removed || done.Schema != Schema {
			t.Errorf("%+v: says %+v, want %d", c.ask, done, c.removed)
		}
		x.want(t, "flushed", c.want...)
	}
	done, err = x.local.RemoveFDB(ctx, FDBRemove{Segment: "lan", MAC: "02:00:00:00:00:01"})
	must(t, err)
	if done.Removed != 1 {
		t.Errorf("remove says %+v", done)
	}
	x.want(t, "removed")
}

// What cannot be done is an error that says what there is, and changes nothing.
func TestFDBCommandsRefuse(t *testing.T) {
	x, ctx := newShelves(t, fdb.Limits{}), t.Context()
	x.learn("lan", 1, "b")
	const mac = "02:00:00:00:00:07"
	add := func(segment, mac, port string) error {
		_, err := x.local.AddFDB(ctx, FDBAdd{Segment: segment, MAC: mac, Port: port})
		return err
	}
	wantError(t, add("lab", mac, "b"), `no segment "lab"`, "it has lan, dmz", "etherloom status")
	wantError(t, add("", mac, "b"), `no segment ""`)
	wantError(t, add("lan", mac, "d"), `no port of segment lan is called "d"`, "etherloom ports")
	wantError(t, add("lan", "02:00", "b"), "six bytes")
	for _, group := range []string{"ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:00:00:00:00:00"} {
		wantError(t, add("lan", group, "b"), group, "neither zero nor a group's")
	}
	_, err := x.local.RemoveFDB(ctx, FDBRemove{Segment: "lan", MAC: mac})
	wantError(t, err, "segment lan has no entry for "+mac, "etherloom fdb")
	_, err = x.local.RemoveFDB(ctx, FDBRemove{Segment: "dmz", MAC: "02:00:00:00:00:01"})
	wantError(t, err, "segment dmz has no entry")
	_, err = x.local.RemoveFDB(ctx, FDBRemove{Segment: "lab", MAC: mac})
	wantError(t, err, `no segment "lab"`)
	_, err = x.local.RemoveFDB(ctx, FDBRemove{Segment: "lan", MAC: "nobody"})
	wantError(t, err, `"nobody"`, "six bytes")
	_, err = x.local.FlushFDB(ctx, FDBFlush{Port: "d"})
	wantError(t, err, `no port of any segment is called "d"`)
	_, err = x.local.FlushFDB(ctx, FDBFlush{Segment: "lan", Port: "d"})
	wantError(t, err, `no port of segment lan is called "d"`)
	_, err = x.local.FlushFDB(ctx, FDBFlush{Segment: "lab"})
	wantError(t, err, `no segment "lab"`)
	wantError(t, x.local.do(ctx, "POST", "fdb/flush", "all", new(FDBChange)), "cannot unmarshal")
	x.want(t, "after all that", "lan 01 b dynamic")
	clear(x.d.segments)
	wantError(t, add("lan", mac, "b"), "it has none")
}

// Duplicates are a problem of the node's, and logged once; many of them fill neither.
func TestDuplicatesAreTold(t *testing.T) {
	for _, c := range []struct {
		limits fdb.Limits
		says   string
	}{{fdb.Limits{}, "It stays on b until"}, {fdb.Limits{Duplicate: fdb.Warn}, "It still moves (fdb.duplicate is warn)"}} {
		x := newShelves(t, c.limits)
		var log bytes.Buffer
		x.d.log = slog.New(slog.NewTextHandler(&log, nil))
		s := x.d.segments[1]
		s.tellDuplicates(time.Now())
		if got := s.duplicates(time.Now()); len(got) != 0 || log.Len() > 0 {
			t.Errorf("before: %v, %s", got, log.String())
		}
		flap := []string{"b", "c", "b", "c", "b", "c"}
		x.learn("lan", 1, flap...)
		got := s.duplicates(time.Now())
		if len(got) != 1 || got[0].About != "segment lan" || !strings.Contains(got[0].Text, "02:00:00:00:00:01 is in two places at once") || !strings.Contains(got[0].Text, c.says) {
			t.Errorf("one: %v", got)
		}
		for range 2 {
			s.tellDuplicates(time.Now())
		}
		if n := strings.Count(log.String(), "in two places"); n != 1 || !strings.Contains(log.String(), "mac=02:00:00:00:00:01") {
			t.Errorf("logged %d times: %s", n, log.String())
		}
		for i := range 20 {
			x.learn("lan", byte(2+i), flap...)
		}
		s.tellDuplicates(time.Now())
		if n := strings.Count(log.String(), "in two places"); n != 1+mostDuplicates || strings.Count(log.String(), "mac=02:00:00:00:00:01") != 1 {
			t.Errorf("logged %d times: %s", n, log.String())
		}
		if got = s.duplicates(time.Now()); len(got) != mostDuplicates+1 || !strings.Contains(got[mostDuplicates].Text, "16 more addresses") {
			t.Errorf("many: %v", got)
		}
	}
}
