package model

import (
	"strings"
	"testing"
	"time"
)

// TestCheckMove: only what the host has on a NIC is moved, and is not in doubt for long.
func TestCheckMove(t *testing.T) {
	m := site(t)
	for name, c := range map[string]struct {
		edit func(*AttachmentPort)
		want string // "": it is taken
	}{
		"a minute":        {func(*AttachmentPort) {}, ""},
		"no confirmation": {func(p *AttachmentPort) { p.Move.Confirm = 0 }, ""},
		"a day":           {func(p *AttachmentPort) { p.Move.Confirm = Duration(24 * time.Hour) }, ""},
		"more":            {func(p *AttachmentPort) { p.Move.Confirm = Duration(24*time.Hour + 1) }, "expected 1s to 24h"},
		"less":            {func(p *AttachmentPort) { p.Move.Confirm = Duration(time.Second - 1) }, "expected 1s to 24h"},
		"before":          {func(p *AttachmentPort) { p.Move.Confirm = -1 }, "expected 1s to 24h"},
		"a bridge":        {func(p *AttachmentPort) { p.NIC, p.Bridge = "", "br0" }, "its host stays where it is"},
	} {
		p := AttachmentPort{Node: 1, Name: "new", NIC: "eth7", Move: Move{Host: true, Confirm: Duration(time.Minute)}}
		c.edit(&p)
		if err := m.CheckPort(&p, nil); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}

// TestAsks: a request is a new one unless the same NIC's is confirmed.
func TestAsks(t *testing.T) {
	now := time.Unix(5, 0)
	confirmed := Move{Host: true, Confirm: Duration(time.Minute), Asked: 3, Confirmed: true}
	for name, c := range map[string]struct {
		old     Move
		host    bool
		sameNIC bool
		want    Move
	}{
		"none":                   {confirmed, false, true, Move{}},
		"the first":              {Move{}, true, false, Move{Host: true, Confirm: Duration(time.Hour), Asked: 5e9}},
		"confirmed":              {confirmed, true, true, Move{Host: true, Confirm: Duration(time.Hour), Asked: 3, Confirmed: true}},
		"confirmed, another NIC": {confirmed, true, false, Move{Host: true, Confirm: Duration(time.Hour), Asked: 5e9}},
		"not confirmed":          {Move{Host: true, Asked: 3}, true, true, Move{Host: true, Confirm: Duration(time.Hour), Asked: 5e9}},
	} {
		if got := c.old.Asks(c.host, time.Hour, c.sameNIC, now); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
