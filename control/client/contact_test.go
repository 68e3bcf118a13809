package client

import (
	"testing"
	"time"
)

// TestContact follows when a node may say that it has heard a controller: short contacts do not count, a short gap does
// not end one, and what has counted stays.
func TestContact(t *testing.T) {
	start := time.Unix(1000, 0)
	const settle = 10 * time.Second
	type step struct {
		at   int    // seconds
		do   string // up, down or nothing
		want int    // settled at that second; -1: never
		now  bool
	}
	for name, steps := range map[string][]step{
		"never":             {{5, "", -1, false}},
		"not long enough":   {{0, "up", -1, true}, {9, "", -1, true}, {9, "down", -1, false}, {60, "", -1, false}},
		"long enough":       {{0, "up", -1, true}, {10, "", 10, true}, {25, "", 25, true}, {30, "down", 30, false}, {60, "", 30, false}},
		"unasked meanwhile": {{0, "up", -1, true}, {30, "down", 30, false}},
		"short gap":         {{0, "up", -1, true}, {6, "down", -1, false}, {11, "up", 11, true}, {12, "", 12, true}},
		"long gap":          {{0, "up", -1, true}, {20, "down", 20, false}, {26, "up", 20, true}, {35, "", 20, true}, {36, "", 36, true}},
		"gap in the short":  {{0, "up", -1, true}, {6, "down", -1, false}, {12, "up", -1, true}, {21, "", -1, true}, {22, "", 22, true}},
		"two streams":       {{0, "up", -1, true}, {1, "up", -1, true}, {10, "", 10, true}, {11, "down", 11, true}, {12, "", 12, true}, {13, "down", 13, false}, {20, "", 13, false}},
	} {
		t.Run(name, func(t *testing.T) {
			var c contact
			for _, s := range steps {
				at := start.Add(time.Duration(s.at) * time.Second)
				switch s.do {
				case "up":
					c.up(at)
				case "down":
					c.down(at)
				}
				want := time.Time{}
				if s.want >= 0 {
					want = start.Add(time.Duration(s.want) * time.Second)
				}
				if got := c.settledAt(settle, at); !got.Equal(want) {
					t.Errorf("at %d s contact was settled at %v, want %v", s.at, got, want)
				}
				if c.now() != s.now {
					t.Errorf("at %d s contact is %v", s.at, c.now())
				}
			}
		})
	}
}
