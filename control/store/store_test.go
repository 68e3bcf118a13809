package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/etherloom/etherloom/control/audit"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/identity"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// logs collects log lines, for tests that look at them.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// besides is what is logged but for lines with a message that may come of a machine with much else to do.
func (l *logs) besides(message string) string {
	var out strings.Builder
	for line := range strings.Lines(l.String()) {
		if !strings.Contains(line, fmt.Sprintf("msg=%q", message)) {
			out.WriteString(line)
		}
	}
	return out.String()
}

// shortDir is a temporary directory whose path leaves room for a socket's name.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "loom")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// open opens a store on dir, or as a second controller beside it if dir has the form "@PATH", and runs it.
func openAt(t testing.TB, dir string, out *logs) *Store {
	t.Helper()
	cfg := Config{Network: "default", Dir: dir, Confirm: 50 * time.Millisecond, Log: slog.New(slog.NewTextHandler(out, nil))}
	if other, ok := strings.CutPrefix(dir, "@"); ok {
		cfg.Dir, cfg.Endpoints = "", []string{"unix://" + filepath.Join(other, "client.sock")}
	}
	s, err := Open(t.Context(), cfg)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return s.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
		s.Close()
	})
	return s
}

var tester = Actor{Name: "tester", Source: "192.0.2.1:7", Request: "r1"}

// found makes a network with one segment.
func found(t testing.TB, s *Store) {
	t.Helper()
	ca, err := identity.NewCA(identity.NewNetworkID(), time.Now())
	must(t, err)
	must(t, s.Update(t.Context(), tester, func(tx *Tx) error {
		tx.Put("network.create", &model.Authority{Certificate: ca.Certificate(), Wrapped: []byte("geheim")})
		tx.Put("settings.set", &model.Settings{Name: "default", Pool: model.DefaultPool(), ULA: netip.MustParsePrefix("fd00::/48")})
		vni, err := tx.NextSegment()
		tx.Put("segment.add", &model.Segment{
			VNI: vni, Name: "lan", MTU: 1500, IPv4: netip.MustParsePrefix("10.64.0.0/20"), IPv6: netip.MustParsePrefix("fd00:0:0:1::/64"),
		})
		return err
	}))
}

func token(i int) *model.Token {
	return &model.Token{ID: fmt.Sprintf("%012x", i), Hash: make([]byte, 32), Role: "member", Uses: 1}
}

func addToken(i int) func(*Tx) error {
	return func(tx *Tx) error {
		tx.Put("token.create", token(i))
		return nil
	}
}

func verify(t testing.TB, s *Store) error {
	t.Helper()
	entries, head, err := s.Audit(t.Context(), 0, 100000)
	must(t, err)
	return audit.Verify(entries, head)
}

func TestUpdate(t *testing.T) {
	dir, out := shortDir(t), new(logs)
	s := openAt(t, dir, out)
	if s.Model().Version != 0 || s.Model().Authority != nil {
		t.Fatalf("an empty store has version %d", s.Model().Version)
	}
	found(t, s)
	m, stale := s.Current()
	must(t, s.Update(t.Context(), tester, addToken(1)))
	select {
	case <-stale:
	default:
		t.Error("the change woke nobody")
	}
	if next := s.Model(); next.Version <= m.Version || next.Tokens["000000000001"] == nil || m.Tokens["000000000001"] != nil {
		t.Errorf("model went from %d to %d, tokens %v", m.Version, next.Version, next.Tokens)
	}

	refused := errors.New("no")
	before := s.Model()
	err := s.Update(t.Context(), tester, func(tx *Tx) error {
		tx.Put("token.create", token(2))
		return refused
	})
	if !errors.Is(err, refused) || s.Model() != before {
		t.Errorf("a refused change: %v, model changed: %v", err, s.Model() != before)
	}
	must(t, s.Update(t.Context(), tester, func(*Tx) error { return nil }))
	if s.Model() != before {
		t.Error("a change of nothing made a new version")
	}
	if err := verify(t, s); err != nil {
		t.Error(err)
	}
	if loud := out.besides("etcd is slow"); loud != "" {
		t.Errorf("log is not quiet:\n%s", loud)
	}
}

// TestAuditEntries: an entry says who did what to what, shows of a change only what changed, and shows no secret.
func TestAuditEntries(t *testing.T) {
	s := openAt(t, shortDir(t), new(logs))
	found(t, s)
	must(t, s.Update(t.Context(), tester, addToken(1)))
	must(t, s.Update(t.Context(), tester, func(tx *Tx) error {
		changed := *tx.Model.Tokens["000000000001"]
		changed.Used = 1
		tx.Put("token.use", &changed)
		tx.Delete("token.remove", &changed)
		tx.Note("audit.cut", "node/1", map[string]int{"sequence": 9})
		return nil
	}))
	entries, head, err := s.Audit(t.Context(), 0, 100)
	must(t, err)
	got := ""
	for _, e := range entries {
		if e.Actor != tester.Name || e.Source != tester.Source || e.Request != tester.Request || e.Time.AsTime().IsZero() {
			t.Errorf("entry %v", e)
		}
		if strings.Contains(e.Detail, "Z2VoZWlt") || strings.Contains(e.Detail, `"hash"`) && e.Object != "head" {
			t.Errorf("secret in %s", e.Detail)
		}
		got += fmt.Sprintf("%d %s %s\n", e.Sequence, e.Action, e.Object)
	}
	want := "1 network.create authority\n2 settings.set settings\n3 segment.add segment/1\n4 token.create token/000000000001\n" +
		"5 token.use token/000000000001\n6 token.remove token/000000000001\n7 audit.cut node/1\n"
	if got != want || head.Sequence != 7 {
		t.Errorf("log up to %d:\n%s", head.Sequence, got)
	}
	if d := entries[4].Detail; d != `{"after":{"used":1},"before":{"used":0}}` {
		t.Errorf("detail of a change: %s", d)
	}
	if page, _, err := s.Audit(t.Context(), 2, 3); err != nil || len(page) != 3 || page[0].Sequence != 3 {
		t.Errorf("page after 2: %v, %v", page, err)
	}
	if d := entries[6].Detail; d != `{"after":{"sequence":9}}` {
		t.Errorf("detail of a note: %s", d)
	}
}

// TestFirstRunTwice: two controllers that make the network at the same moment make one.
func TestFirstRunTwice(t *testing.T) {
	dir := shortDir(t)
	a := openAt(t, dir, new(logs))
	b := openAt(t, "@"+dir, new(logs))
	var made [2]bool
	var g errgroup.Group
	for i, s := range []*Store{a, b} {
		g.Go(func() error {
			return s.Update(t.Context(), tester, func(tx *Tx) error {
				made[i] = tx.Model.Authority == nil
				if made[i] {
					tx.Put("network.create", &model.Authority{Certificate: []byte{byte(i)}})
				}
				return nil
			})
		})
	}
	must(t, g.Wait())
	if made[0] == made[1] {
		t.Fatalf("made by: %v", made)
	}
	if a.Model().Authority.Certificate[0] != b.Model().Authority.Certificate[0] {
		t.Error("the two controllers have different authorities")
	}
}

// TestConcurrentUpdates: many updates by two controllers all happen, once each, in one unbroken chain, and both see
// the same in the end.
func TestConcurrentUpdates(t *testing.T) {
	dir := shortDir(t)
	stores := []*Store{openAt(t, dir, new(logs)), openAt(t, "@"+dir, new(logs))}
	found(t, stores[0])
	const each, rounds = 4, 15
	var g errgroup.Group
	for i := range 2 * each {
		g.Go(func() error {
			for j := range rounds {
				err := stores[i%2].Update(t.Context(), tester, func(tx *Tx) error {
					tx.Put("grant.add", &model.Grant{ID: tx.NextGrant(), VNI: 1, From: fmt.Sprint(i, "/", j)})
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, g.Wait())
	if err := verify(t, stores[0]); err != nil {
		t.Error(err)
	}
	const all = 2 * each * rounds
	eventually(t, "both controllers are at the same version", func() bool {
		a, b := stores[0].Model(), stores[1].Model()
		return a.Version == b.Version && len(a.Grants) == all && len(b.Grants) == all && a.AuditHead() == b.AuditHead()
	})
	seen := map[string]bool{}
	for _, g := range stores[0].Model().Grants {
		seen[g.From] = true
	}
	if len(seen) != all || stores[0].Model().Counters.Grant != all {
		t.Errorf("%d different grants, the last numbered %d, want %d", len(seen), stores[0].Model().Counters.Grant, all)
	}
}

// patience is how long something may take on a machine with much else to do.
const patience = 30 * time.Second

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// TestReopen: facts, numbers and versions are there after a restart; numbers of deleted things are not given again.
func TestReopen(t *testing.T) {
	dir := shortDir(t)
	var m *model.Model
	t.Run("before", func(t *testing.T) {
		s := openAt(t, dir, new(logs))
		found(t, s)
		for range 2 {
			must(t, s.Update(t.Context(), tester, func(tx *Tx) error {
				g := &model.Grant{ID: tx.NextGrant(), VNI: 1}
				tx.Put("grant.add", g)
				tx.Delete("grant.remove", g)
				return nil
			}))
		}
		m = s.Model()
	})
	s := openAt(t, dir, new(logs))
	if got := s.Model(); got.Version != m.Version || got.AuditHead() != m.AuditHead() || got.Segments[1] == nil || len(got.Grants) != 0 {
		t.Errorf("after the restart: version %d, want %d; head %v, want %v", got.Version, m.Version, got.AuditHead(), m.AuditHead())
	}
	must(t, s.Update(t.Context(), tester, func(tx *Tx) error {
		if id := tx.NextGrant(); id != 3 {
			t.Errorf("grant %d was given after 2", id)
		}
		return nil
	}))
}

// TestWatchAfterCompaction: a controller that was away for longer than etcd keeps history reads everything anew.
func TestWatchAfterCompaction(t *testing.T) {
	dir, out := shortDir(t), new(logs)
	a := openAt(t, dir, new(logs))
	found(t, a)
	b, err := Open(t.Context(), Config{
		Network: "default", Endpoints: []string{"unix://" + filepath.Join(dir, "client.sock")}, Confirm: time.Hour,
		Log: slog.New(slog.NewTextHandler(out, nil)),
	})
	must(t, err)
	defer b.Close()
	for i := range 10 {
		must(t, a.Update(t.Context(), tester, addToken(i)))
	}
	_, err = a.engine.client.Compact(t.Context(), int64(a.Model().Version))
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return b.Run(ctx) })
	eventually(t, "the second controller caught up", func() bool { return len(b.Model().Tokens) == 10 })
	must(t, a.Update(t.Context(), tester, addToken(10)))
	eventually(t, "the second controller follows", func() bool { return len(b.Model().Tokens) == 11 })
	cancel()
	must(t, g.Wait())
	if !strings.Contains(out.String(), "watch of the store broke") {
		t.Errorf("the watch did not break: the test tests nothing\n%s", out)
	}
}

// TestConflictRunsAgain: a function that lost against another controller runs again on the newer Model.
func TestConflictRunsAgain(t *testing.T) {
	dir := shortDir(t)
	a, b := openAt(t, dir, new(logs)), openAt(t, "@"+dir, new(logs))
	found(t, a)
	runs, seen := 0, 0
	must(t, b.Update(t.Context(), tester, func(tx *Tx) error {
		if runs++; runs == 1 {
			must(t, a.Update(t.Context(), tester, addToken(1)))
		}
		seen = len(tx.Model.Tokens)
		tx.Put("token.create", token(2))
		return nil
	}))
	if runs < 2 || seen != 1 {
		t.Errorf("the function ran %d times and saw %d tokens in the end", runs, seen)
	}
}

// A cluster that was left as it comes takes little at once; the embedded etcd takes a whole policy document.
func TestUpdateTooLarge(t *testing.T) {
	dir := shortDir(t)
	own, far := openAt(t, dir, new(logs)), openAt(t, "@"+dir, new(logs))
	found(t, own)
	must(t, far.load(t.Context()))
	tokens := func(n int) func(*Tx) error {
		return func(tx *Tx) error {
			for i := range n {
				tx.Put("token.create", token(i))
			}
			return nil
		}
	}
	err := far.Update(t.Context(), tester, tokens(100))
	if err == nil || !strings.Contains(err.Error(), "in parts") || len(far.Model().Tokens) != 0 {
		t.Errorf("a change of 100 facts: %v", err)
	}
	err = own.Update(t.Context(), tester, tokens(1000))
	for end := time.Now().Add(patience); Unavailable(err) && time.Now().Before(end); { // so much may take too long on a busy machine
		err = own.Update(t.Context(), tester, tokens(1000))
	}
	must(t, err)
	if n := len(own.Model().Tokens); n != 1000 {
		t.Errorf("there are %d tokens", n)
	}
	err = own.Update(t.Context(), tester, tokens(20000))
	if err == nil || !strings.Contains(err.Error(), "in parts") {
		t.Errorf("a change of 20000 facts: %v", err)
	}
}

// The version of the policy is raised once by each change of it, and by nothing else.
func TestPolicyVersion(t *testing.T) {
	s := openAt(t, shortDir(t), new(logs))
	found(t, s)
	grant := &model.Grant{ID: 1, Label: "a=b", VNI: 1}
	for _, c := range []struct {
		name   string
		change func(*Tx)
		want   uint64
	}{
		{"token", func(tx *Tx) { tx.Put("token.create", token(1)) }, 0},
		{"grant and group", func(tx *Tx) { tx.Put("grant.add", grant); tx.Put("group.set", &model.Group{Name: "g"}) }, 1},
		{"tests, by another entry", func(tx *Tx) { tx.Keep(&model.Tests{}); tx.Note("policy.apply", "policy", struct{}{}) }, 2},
		{"grant gone", func(tx *Tx) { tx.Delete("grant.remove", grant) }, 3},
		{"token again", func(tx *Tx) { tx.Put("token.create", token(2)) }, 3},
	} {
		must(t, s.Update(t.Context(), tester, func(tx *Tx) error { c.change(tx); return nil }))
		if got := s.Model().Counters.Policy; got != c.want {
			t.Errorf("%s: the policy is at version %d, want %d", c.name, got, c.want)
		}
	}
	must(t, s.load(t.Context()))
	if got := s.Model().Counters.Policy; got != 3 {
		t.Errorf("read anew, the policy is at version %d", got)
	}
}

// TestSeatMany: more nodes become members by one grant than a transaction has room for.
func TestSeatMany(t *testing.T) {
	s := openAt(t, shortDir(t), new(logs))
	found(t, s)
	for range 6 {
		must(t, s.Update(t.Context(), tester, func(tx *Tx) error {
			for range 40 {
				id := tx.NextNode()
				key := func(b byte) []byte {
					return append(bytes.Repeat([]byte{b}, 28), byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
				}
				tx.Put("node.enrol", &model.Node{ID: id, Name: fmt.Sprint("n", id), Labels: []string{"a=b"}, OwnStatus: model.StatusActive, Sign: key(1), Static: key(2)})
			}
			return nil
		}))
	}
	must(t, s.Update(t.Context(), tester, func(tx *Tx) error {
		tx.Put("grant.add", &model.Grant{ID: tx.NextGrant(), VNI: 1, Label: "a=b"})
		return nil
	}))
	updates := 1
	for ; s.Model().Vacant(); updates++ {
		must(t, s.Update(t.Context(), tester, func(*Tx) error { return nil }))
	}
	seen := map[string]bool{}
	for id := range s.Model().Nodes {
		view := s.Model().MemberOf(id)
		if len(view) != 1 || len(view[0].Members) != 240 {
			t.Fatalf("node %d is a member of %v", id, view)
		}
		for _, a := range s.Model().Nodes[id].Stations[0].Addresses {
			if seen[a.String()] {
				t.Errorf("address %s was given twice", a)
			}
			seen[a.String()] = true
		}
	}
	if updates < 3 || updates > 10 {
		t.Errorf("%d updates for 240 nodes", updates)
	}
	if err := verify(t, s); err != nil {
		t.Error(err)
	}
}

// TestTampering: whoever writes into etcd past the controllers is found out.
func TestTampering(t *testing.T) {
	dir := shortDir(t)
	for _, c := range []struct {
		name string
		do   func(t *testing.T, s *Store, kv clientv3.KV)
		want audit.BrokenError
	}{
		{"entry changed", func(t *testing.T, s *Store, kv clientv3.KV) {
			r, err := kv.Get(t.Context(), s.entryKey(5))
			must(t, err)
			_, err = kv.Put(t.Context(), s.entryKey(5), strings.Replace(string(r.Kvs[0].Value), "tester", "nobody", 1))
			must(t, err)
		}, audit.BrokenError{Sequence: 5, Damage: audit.Changed}},
		{"entry garbled", func(t *testing.T, s *Store, kv clientv3.KV) {
			_, err := kv.Put(t.Context(), s.entryKey(5), "\xff\xff")
			must(t, err)
		}, audit.BrokenError{Sequence: 0, Damage: audit.Reordered}},
		{"entry removed", func(t *testing.T, s *Store, kv clientv3.KV) {
			_, err := kv.Delete(t.Context(), s.entryKey(4))
			must(t, err)
		}, audit.BrokenError{Sequence: 4, Damage: audit.Removed}},
		{"entries swapped", func(t *testing.T, s *Store, kv clientv3.KV) {
			x, err := kv.Get(t.Context(), s.entryKey(4))
			must(t, err)
			y, err := kv.Get(t.Context(), s.entryKey(6))
			must(t, err)
			_, err = kv.Put(t.Context(), s.entryKey(4), string(y.Kvs[0].Value))
			must(t, err)
			_, err = kv.Put(t.Context(), s.entryKey(6), string(x.Kvs[0].Value))
			must(t, err)
		}, audit.BrokenError{Sequence: 4, Damage: audit.Reordered}},
		{"tail cut", func(t *testing.T, s *Store, kv clientv3.KV) {
			_, err := kv.Delete(t.Context(), s.entryKey(7))
			must(t, err)
		}, audit.BrokenError{Sequence: 7, Damage: audit.Cut}},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Each case has a network of its own in the one etcd.
			s, err := Open(t.Context(), Config{Network: strings.ReplaceAll(c.name, " ", "-"), Dir: dir, Log: slog.New(slog.DiscardHandler)})
			must(t, err)
			defer s.Close()
			found(t, s)
			for i := range 4 {
				must(t, s.Update(t.Context(), tester, addToken(i)))
			}
			must(t, verify(t, s))
			seen := s.Model().AuditHead()
			if ok, err := s.Contains(t.Context(), seen); err != nil || !ok {
				t.Fatalf("the log does not contain its own head: %v", err)
			}
			c.do(t, s, s.engine.client)
			err = verify(t, s)
			var got *audit.BrokenError
			if !errors.As(err, &got) || *got != c.want {
				t.Errorf("found %v, want %v", err, &c.want)
			}
			if c.name == "tail cut" {
				if ok, err := s.Contains(t.Context(), seen); err != nil || ok {
					t.Errorf("the cut log still contains its old head: %v", err)
				}
			}
		})
	}
}

// TestBypass: a fact that is changed in etcd without an audit entry is loud, and an entry beyond the head stops all
// change.
func TestBypass(t *testing.T) {
	out := new(logs)
	s := openAt(t, shortDir(t), out)
	found(t, s)
	kv := s.engine.client
	_, err := kv.Delete(t.Context(), s.factKey("segment/1"))
	must(t, err)
	eventually(t, "the change past the log is loud", func() bool {
		return strings.Contains(out.String(), "fact was changed past the audit log") && strings.Contains(out.String(), "segment/1")
	})
	_, err = kv.Put(t.Context(), s.entryKey(s.Model().AuditHead().Sequence+1), "x")
	must(t, err)
	if err := s.Update(t.Context(), tester, addToken(1)); err == nil || !strings.Contains(err.Error(), "beyond its head") {
		t.Errorf("change on top of a foreign entry: %v", err)
	}
}
