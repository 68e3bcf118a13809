package state

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/audit"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

// desk is a network with one controller, and a node 7 that reads what it signs.
type desk struct {
	t      testing.TB
	ca     *identity.CA
	signer Signer
	reader *Reader
	now    time.Time
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	now := time.Unix(1_800_000_000, 0)
	ca, err := identity.NewCA(identity.NewNetworkID(), now)
	must(t, err)
	v, err := identity.NewVerifier(ca.Certificate())
	must(t, err)
	d := &desk{t: t, ca: ca, reader: &Reader{Verifier: v, Node: 7}, now: now}
	d.signer = d.issue(identity.KindController)
	return d
}

func (d *desk) issue(kind identity.Kind) Signer {
	pub, key, err := ed25519.GenerateKey(nil)
	must(d.t, err)
	leaf, err := d.ca.Issue(identity.Certificate{Name: identity.Name{Kind: kind, ID: 7}, Sign: pub}, time.Hour, d.now)
	must(d.t, err)
	return Signer{Leaf: leaf.DER, Key: key}
}

// header is a good one for the state; edit changes it before it is signed.
func (d *desk) header(to State, base, version uint64) *controlv1.StateHeader {
	sum := to.Hash()
	return &controlv1.StateHeader{
		Network: d.reader.Verifier.Network[:], Node: 7, Epoch: 1, Base: base, Version: version, Hash: sum[:],
		Issued: timestamppb.New(d.now), Expires: timestamppb.New(d.now.Add(time.Hour)),
		AuditHead: audit.Head{Sequence: version}.Proto(),
	}
}

func (d *desk) delta(from, to State, base, version uint64, edit ...func(*controlv1.StateHeader)) *controlv1.Delta {
	d.t.Helper()
	h := d.header(to, base, version)
	for _, f := range edit {
		f(h)
	}
	delta, err := d.signer.Delta(h, from, to)
	must(d.t, err)
	return delta
}

func (d *desk) apply(held *Held, delta *controlv1.Delta) *Held {
	d.t.Helper()
	held, err := d.reader.Apply(held, delta, d.now)
	must(d.t, err)
	return held
}

// subset is a state of some of the good resources.
func subset(t testing.TB, r *rand.Rand) State {
	s := encode(t, resources()...)
	for key := range s {
		if r.IntN(2) == 0 {
			delete(s, key)
		}
	}
	return s
}

// TestApplyFollows: over random histories, with some deltas from nothing and some lost, the node holds exactly what the
// controller meant, before and after a trip to the disk.
func TestApplyFollows(t *testing.T) {
	d, r := newDesk(t), rand.New(rand.NewPCG(3, 4))
	var held *Held
	var sent State
	base := uint64(0)
	for version := uint64(10); version < 300; version++ {
		next := subset(t, r)
		switch r.IntN(5) {
		case 0: // lost; the next delta still starts from what the node has
			continue
		case 1:
			base = 0
		}
		held = d.apply(held, d.delta(sent, next, base, version))
		if !same(held.State, next) {
			t.Fatalf("version %d: node holds %v, want %v", version, held.State, next)
		}
		sent, base = next, version
		file, err := held.Marshal()
		must(t, err)
		loaded, err := d.reader.Load(file)
		must(t, err)
		if !same(loaded.State, next) || loaded.Header.GetVersion() != version {
			t.Fatalf("version %d: loaded %v", version, loaded.State)
		}
		held = loaded
	}
	var hello controlv1.Hello
	held.Hello(&hello)
	if sum := held.State.Hash(); hello.Version != held.Header.GetVersion() || hello.Epoch != 1 ||
		!bytes.Equal(hello.Hash, sum[:]) || hello.AuditHead.GetSequence() != hello.Version {
		t.Errorf("hello is %v", &hello)
	}
}

// TestApplyRefuses: one row for each check; without the check the row fails.
func TestApplyRefuses(t *testing.T) {
	d := newDesk(t)
	full := encode(t, resources()...)
	less := encode(t, resources()[:5]...)
	held := d.apply(nil, d.delta(nil, less, 0, 10))
	good := func(edit ...func(*controlv1.StateHeader)) *controlv1.Delta {
		return d.delta(less, full, 10, 11, edit...)
	}
	by := func(s Signer) *controlv1.Delta {
		delta, err := s.Delta(d.header(full, 10, 11), less, full)
		must(t, err)
		return delta
	}
	stranger := newDesk(t)
	bad := State{"peer/9": full["peer/2"]}
	for _, c := range []struct {
		name  string
		delta *controlv1.Delta
		want  error
	}{
		{"good", good(), nil},
		{"signed by another CA's controller", by(stranger.signer), ErrSignature},
		{"signed by a node", by(d.issue(identity.KindNode)), ErrSignature},
		{"signed by an administrator", by(d.issue(identity.KindAdmin)), ErrSignature},
		{"signed by a key that is not the leaf's", by(Signer{Leaf: d.signer.Leaf, Key: stranger.signer.Key}), ErrSignature},
		{"signature over the bare header", func() *controlv1.Delta {
			delta := good()
			delta.Signature = ed25519.Sign(d.signer.Key, delta.Header)
			return delta
		}(), ErrSignature},
		{"header changed", func() *controlv1.Delta {
			delta := good()
			h := d.header(full, 10, 12)
			delta.Header, _ = proto.Marshal(h)
			return delta
		}(), ErrSignature},
		{"another network", good(func(h *controlv1.StateHeader) { h.Network = make([]byte, 16) }), ErrForeign},
		{"another node", good(func(h *controlv1.StateHeader) { h.Node = 8 }), ErrForeign},
		{"expired", good(func(h *controlv1.StateHeader) { h.Expires = timestamppb.New(d.now) }), ErrExpired},
		{"no expiry", good(func(h *controlv1.StateHeader) { h.Expires = nil }), ErrMalformed},
		{"no hash", good(func(h *controlv1.StateHeader) { h.Hash = nil }), ErrMalformed},
		{"version 0", good(func(h *controlv1.StateHeader) { h.Version = 0 }), ErrMalformed},
		{"older version", good(func(h *controlv1.StateHeader) { h.Version = 9 }), ErrOld},
		{"older epoch", good(func(h *controlv1.StateHeader) { h.Epoch = 0; h.Version = 99 }), ErrOld},
		{"older, from nothing", d.delta(nil, full, 0, 9), ErrOld},
		{"same version, other contents", good(func(h *controlv1.StateHeader) { h.Version = 10 }), ErrFork},
		{"other base", good(func(h *controlv1.StateHeader) { h.Base = 8 }), ErrBase},
		{"other epoch's base", good(func(h *controlv1.StateHeader) { h.Epoch = 2 }), ErrBase},
		{"resource missing", func() *controlv1.Delta {
			delta := good()
			delete(delta.Set, "relay/r")
			return delta
		}(), ErrHash},
		{"resource added", func() *controlv1.Delta {
			delta := good()
			delta.Set["revocation/4"] = encode(t, &controlv1.Resource{Kind: &controlv1.Resource_Revocation{Revocation: &controlv1.Revocation{Id: 4}}})["revocation/4"]
			return delta
		}(), ErrHash},
		{"resource removed", func() *controlv1.Delta {
			delta := good()
			delta.Removed = []string{"self"}
			return delta
		}(), ErrHash},
		{"malformed resource", d.delta(less, bad, 10, 11), ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := d.reader.Apply(held, c.delta, d.now)
			if !errors.Is(err, c.want) || (err != nil && got != held) {
				t.Fatalf("Apply: %v, want %v", err, c.want)
			}
		})
	}
	if _, err := d.reader.Apply(nil, good(), d.now); !errors.Is(err, ErrBase) {
		t.Errorf("a delta for a node that holds nothing: %v", err)
	}
	if _, err := d.reader.Apply(held, good(), d.now.Add(2*time.Hour)); !errors.Is(err, ErrSignature) {
		t.Errorf("a delta of a controller whose certificate has expired: %v", err)
	}
}

// TestRenew: the same contents again move version and expiry on, need no base, and never move back.
func TestRenew(t *testing.T) {
	d := newDesk(t)
	s := encode(t, resources()...)
	expires := func(after time.Duration) func(*controlv1.StateHeader) {
		return func(h *controlv1.StateHeader) { h.Expires = timestamppb.New(d.now.Add(after)) }
	}
	held := d.apply(nil, d.delta(nil, s, 0, 10))
	later := d.apply(held, d.delta(s, s, 10, 10, expires(2*time.Hour)))
	if !later.Expires().Equal(d.now.Add(2*time.Hour)) || !same(later.State, s) {
		t.Errorf("renewed state expires %v", later.Expires())
	}
	if again := d.apply(later, d.delta(s, s, 10, 10, expires(time.Minute))); again != later {
		t.Error("an earlier expiry was taken")
	}
	// Another controller, which sent this node version 8, comes to the same state at version 12.
	other := d.apply(later, d.delta(State{}, s, 8, 12))
	if other.Header.GetVersion() != 12 || !same(other.State, s) {
		t.Errorf("node holds version %d", other.Header.GetVersion())
	}
	if _, err := d.reader.Apply(other, d.delta(s, s, 10, 11), d.now); !errors.Is(err, ErrOld) {
		t.Errorf("an old renewal: %v", err)
	}
	// A raised epoch makes a lower version count as newer.
	raised := d.apply(other, d.delta(nil, s, 0, 3, func(h *controlv1.StateHeader) { h.Epoch = 2 }))
	if raised.Header.GetEpoch() != 2 || raised.Header.GetVersion() != 3 {
		t.Errorf("header is %v", raised.Header)
	}
}

func TestLoadRefuses(t *testing.T) {
	d := newDesk(t)
	held := d.apply(nil, d.delta(nil, encode(t, resources()...), 0, 10))
	file, err := held.Marshal()
	must(t, err)
	edit := func(f func(*controlv1.Delta)) []byte {
		delta := new(controlv1.Delta)
		must(t, proto.Unmarshal(file[len(fileMagic):], delta))
		f(delta)
		body, err := proto.Marshal(delta)
		must(t, err)
		return append([]byte(fileMagic), body...)
	}
	for _, c := range []struct {
		name string
		file []byte
		want error
	}{
		{"good", file, nil},
		{"empty", nil, ErrMalformed},
		{"other file", []byte("{}\n"), ErrMalformed},
		{"magic alone", []byte(fileMagic), ErrMalformed},
		{"cut", file[:len(file)-100], ErrMalformed},
		{"grant added", edit(func(x *controlv1.Delta) { x.Set["grant/2"] = x.Set["grant/1"] }), ErrHash},
		{"resource changed", edit(func(x *controlv1.Delta) { x.Set["peer/2"] = x.Set["self"] }), ErrHash},
		{"all resources gone", edit(func(x *controlv1.Delta) { x.Set = nil }), ErrHash},
		{"signature changed", edit(func(x *controlv1.Delta) { x.Signature[0]++ }), ErrSignature},
		{"header changed", edit(func(x *controlv1.Delta) { x.Header[len(x.Header)-1] ^= 1 }), nil},
	} {
		_, err := d.reader.Load(c.file)
		switch {
		case c.name == "header changed":
			if err == nil {
				t.Errorf("%s: accepted", c.name)
			}
		case !errors.Is(err, c.want):
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := (&Reader{Verifier: d.reader.Verifier, Node: 8}).Load(file); !errors.Is(err, ErrForeign) {
		t.Errorf("another node's file: %v", err)
	}
	if _, err := newDesk(t).reader.Load(file); !errors.Is(err, ErrSignature) {
		t.Errorf("another network's file: %v", err)
	}
	var none *Held
	if !none.Expires().IsZero() {
		t.Error("a node that holds nothing has time left")
	}
}

func FuzzLoad(f *testing.F) {
	d := newDesk(f)
	held := d.apply(nil, d.delta(nil, encode(f, resources()...), 0, 10))
	file, err := held.Marshal()
	must(f, err)
	f.Add(file)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := d.reader.Load(b)
		if err == nil && !same(got.State, held.State) {
			t.Fatalf("loaded a state that was never signed: %v", got.State)
		}
	})
}

func FuzzApply(f *testing.F) {
	d := newDesk(f)
	s := encode(f, resources()...)
	good, err := proto.Marshal(d.delta(nil, s, 0, 10))
	must(f, err)
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		delta := new(controlv1.Delta)
		if proto.Unmarshal(b, delta) != nil {
			return
		}
		if held, err := d.reader.Apply(nil, delta, d.now); err == nil && !same(held.State, s) {
			t.Fatalf("took a state that was never signed: %v", held.State)
		}
	})
}
