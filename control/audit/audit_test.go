package audit

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

func chain(n int) ([]*controlv1.AuditEntry, Head) {
	var head Head
	entries := make([]*controlv1.AuditEntry, n)
	for i := range entries {
		entries[i] = &controlv1.AuditEntry{
			Time:  timestamppb.New(time.Unix(1_800_000_000+int64(i), 5)),
			Actor: "spiffe://00/admin/1", Source: "192.0.2.1:5", Action: "grant.add",
			Object: fmt.Sprintf("grant/%d", i), Detail: `{"after":{}}`, Request: "r",
		}
		head = head.Append(entries[i])
	}
	return entries, head
}

// TestHashVector pins the canonical form: logs outlive programs.
func TestHashVector(t *testing.T) {
	_, head := chain(2)
	if got := hex.EncodeToString(head.Hash[:]); got != "761556da548f4f963b947d3423e28bfaa698ef894ef7cb5afa1b052c3ac0b6bf" {
		t.Errorf("hash of entry 2 is %s", got)
	}
}

// TestHashCoversEveryField changes each field of an entry in turn; a field that does not move the hash could be
// changed unseen.
func TestHashCoversEveryField(t *testing.T) {
	entries, _ := chain(2)
	want := Hash(entries[1])
	fields := entries[1].ProtoReflect().Descriptor().Fields()
	changes := map[string]func(e *controlv1.AuditEntry){
		"sequence": func(e *controlv1.AuditEntry) { e.Sequence++ },
		"time":     func(e *controlv1.AuditEntry) { e.Time.Nanos++ },
		"actor":    func(e *controlv1.AuditEntry) { e.Actor += "x" },
		"source":   func(e *controlv1.AuditEntry) { e.Source += "x" },
		"action":   func(e *controlv1.AuditEntry) { e.Action += "x" },
		"object":   func(e *controlv1.AuditEntry) { e.Object += "x" },
		"detail":   func(e *controlv1.AuditEntry) { e.Detail += "x" },
		"request":  func(e *controlv1.AuditEntry) { e.Request += "x" },
		"previous": func(e *controlv1.AuditEntry) { e.Previous[0]++ },
		"hash":     nil, // is the hash
	}
	for i := range fields.Len() {
		name := string(fields.Get(i).Name())
		change, known := changes[name]
		if !known {
			t.Errorf("field %s is new: is it in the hash?", name)
		}
		if change == nil {
			continue
		}
		e := proto.Clone(entries[1]).(*controlv1.AuditEntry)
		change(e)
		if Hash(e) == want {
			t.Errorf("changing %s does not change the hash", name)
		}
	}
	moved := proto.Clone(entries[1]).(*controlv1.AuditEntry)
	moved.Actor, moved.Source = moved.Actor+moved.Source[:1], moved.Source[1:]
	if Hash(moved) == want {
		t.Error("a character moved from one field to the next does not change the hash")
	}
}

func TestVerify(t *testing.T) {
	type log = []*controlv1.AuditEntry
	rehash := func(e *controlv1.AuditEntry) {
		sum := Hash(e)
		e.Hash = sum[:]
	}
	for _, c := range []struct {
		name   string
		damage func(l log, head *Head) log
		want   *BrokenError
	}{
		{"whole", func(l log, _ *Head) log { return l }, nil},
		{"empty", func(_ log, h *Head) log { *h = Head{}; return nil }, nil},
		{"changed", func(l log, _ *Head) log { l[2].Object = "grant/9"; return l }, &BrokenError{3, Changed}},
		{"changed with its hash", func(l log, _ *Head) log {
			l[2].Object = "grant/9"
			rehash(l[2])
			return l
		}, &BrokenError{3, Changed}},
		{"last changed with its hash", func(l log, _ *Head) log {
			l[4].Object = "grant/9"
			rehash(l[4])
			return l
		}, &BrokenError{5, Changed}},
		{"first changed with its hash", func(l log, _ *Head) log {
			l[0].Previous[3] = 1
			rehash(l[0])
			return l
		}, &BrokenError{1, Changed}},
		{"previous missing", func(l log, _ *Head) log { l[0].Previous = nil; rehash(l[0]); return l }, &BrokenError{1, Changed}},
		{"first removed", func(l log, _ *Head) log { return l[1:] }, &BrokenError{1, Removed}},
		{"middle removed", func(l log, _ *Head) log { return slices.Delete(l, 2, 3) }, &BrokenError{3, Removed}},
		{"two removed", func(l log, _ *Head) log { return slices.Delete(l, 1, 3) }, &BrokenError{2, Removed}},
		{"all removed", func(log, *Head) log { return nil }, &BrokenError{1, Cut}},
		{"swapped", func(l log, _ *Head) log { l[1], l[2] = l[2], l[1]; return l }, &BrokenError{2, Reordered}},
		{"repeated", func(l log, _ *Head) log { return slices.Insert(l, 2, l[1]) }, &BrokenError{2, Reordered}},
		{"renumbered", func(l log, _ *Head) log {
			l[1].Sequence, l[2].Sequence = 3, 2
			l[1], l[2] = l[2], l[1]
			return l
		}, &BrokenError{2, Changed}},
		{"tail cut", func(l log, _ *Head) log { return l[:3] }, &BrokenError{4, Cut}},
		{"beyond the head", func(l log, h *Head) log { *h = Head{4, [32]byte(l[3].Hash)}; return l }, &BrokenError{5, Added}},
		{"another head", func(l log, h *Head) log { h.Hash[0]++; return l }, &BrokenError{5, Changed}},
		{"head of an empty log", func(_ log, h *Head) log { *h = Head{Hash: [32]byte{1}}; return nil }, &BrokenError{1, Changed}},
	} {
		t.Run(c.name, func(t *testing.T) {
			entries, head := chain(5)
			err := Verify(c.damage(entries, &head), head)
			var got *BrokenError
			errors.As(err, &got)
			switch {
			case c.want == nil && err != nil, c.want != nil && got == nil:
				t.Fatalf("Verify: %v, want %v", err, c.want)
			case c.want != nil && *got != *c.want:
				t.Fatalf("Verify: %v, want %v", err, c.want)
			}
		})
	}
}

func TestHeadSignature(t *testing.T) {
	now := time.Now()
	ca, err := identity.NewCA(identity.NewNetworkID(), now)
	if err != nil {
		t.Fatal(err)
	}
	v, err := identity.NewVerifier(ca.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	issue := func(kind identity.Kind) (ed25519.PrivateKey, []byte) {
		pub, key, _ := ed25519.GenerateKey(nil)
		leaf, err := ca.Issue(identity.Certificate{Name: identity.Name{Kind: kind, ID: 1}, Sign: pub}, time.Hour, now)
		if err != nil {
			t.Fatal(err)
		}
		return key, leaf.DER
	}
	key, leaf := issue(identity.KindController)
	_, head := chain(3)
	signature := head.Sign(key)
	if err := HeadOf(head.Proto()).CheckSignature(v, signature, leaf, now); err != nil {
		t.Errorf("a good signature: %v", err)
	}
	for name, h := range map[string]Head{"sequence": {2, head.Hash}, "hash": {3, [32]byte{}}} {
		if err := h.CheckSignature(v, signature, leaf, now); !errors.Is(err, ErrSignature) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	nodeKey, node := issue(identity.KindNode)
	if err := head.CheckSignature(v, head.Sign(nodeKey), node, now); !errors.Is(err, ErrSignature) {
		t.Errorf("signed by a node: %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	entries, _ := chain(1)
	b, _ := proto.Marshal(entries[0])
	f.Add(b, uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, sequence uint64) {
		e := new(controlv1.AuditEntry)
		if proto.Unmarshal(b, e) != nil {
			return
		}
		head := HeadOf(&controlv1.AuditHead{Sequence: sequence, Hash: e.GetHash()})
		if err := Verify([]*controlv1.AuditEntry{e}, head); err == nil && (sequence != 1 || !holds(e)) {
			t.Fatalf("accepted %v under head %d", e, sequence)
		}
	})
}
