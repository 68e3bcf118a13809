package model

import (
	"strings"
	"testing"

	"github.com/etherloom/etherloom/identity"
)

func TestSecondaryVLAN(t *testing.T) {
	none, isolated, a, b := SecondaryVLAN{}, SecondaryVLAN{Isolated: true}, SecondaryVLAN{Community: "a"}, SecondaryVLAN{Community: "b"}
	for _, c := range []struct{ s, o, want SecondaryVLAN }{
		{none, none, none}, {none, isolated, isolated}, {none, a, a}, {isolated, isolated, isolated}, {isolated, a, isolated}, {a, a, a}, {a, b, isolated},
	} {
		if got := c.s.and(c.o); got != c.want {
			t.Errorf("%+v and %+v is %+v", c.s, c.o, got)
		}
		if got := c.o.and(c.s); got != c.want {
			t.Errorf("%+v and %+v is %+v", c.o, c.s, got)
		}
	}
	for _, s := range []SecondaryVLAN{none, isolated, a, b} {
		must(t, s.Check())
		if got := SecondaryOf(s.Proto()); got != s {
			t.Errorf("%+v travels, and is %+v", s, got)
		}
	}
	for _, c := range []struct {
		s    SecondaryVLAN
		says string
	}{{SecondaryVLAN{true, "a"}, "not both"}, {SecondaryVLAN{Community: "Shops"}, "community"}, {SecondaryVLAN{Community: "two words"}, "community"}} {
		if err := c.s.Check(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c.s, err)
		}
	}
}

// Those behind an attachment are where it is, and a host that may be behind several, where the strictest of them is.
func TestSecondaryOfMachines(t *testing.T) {
	f := siteFacts()
	place := func(id identity.ID, s SecondaryVLAN) {
		a := f[(&Attachment{ID: id}).Key()].(*Attachment)
		f[a.Key()] = a.WithSecondary(s)
	}
	before := seated(t, f)
	place(10, SecondaryVLAN{Community: "a"})
	m := Derive(f, 9, before)
	for id, want := range map[identity.ID]SecondaryVLAN{10: {Community: "a"}, 11: {}, 20: {Community: "a"}, 21: {Community: "a"}} {
		if got := m.Profile(id).Machine.Secondary; got != want {
			t.Errorf("machine %d is %+v, want %+v", id, got, want)
		}
	}
	place(11, SecondaryVLAN{Community: "b"})
	m = Derive(f, 10, m)
	if got := m.Profile(21).Machine.Secondary; !got.Isolated {
		t.Errorf("a host of two communities is %+v", got)
	}
	if p := m.Profile(11).MachineProto(); p.GetSecondary().GetCommunity() != "b" {
		t.Errorf("it travels as %v", p)
	}
	if r := m.AttachmentProto(m.Attachments[10]); r.GetSecondary().GetCommunity() != "a" {
		t.Errorf("the attachment is shown as %v", r)
	}
	b, err := Encode(m.Attachments[10])
	must(t, err)
	back, err := Decode("attachment/10", b)
	must(t, err)
	if back.(*Attachment).Secondary != (SecondaryVLAN{Community: "a"}) {
		t.Errorf("%s became %+v", b, back)
	}
}
