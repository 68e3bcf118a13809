package herald

import (
	"testing"
	"time"
)

// A policy that is too old is looked at once, and not with each message and tick.
func TestExpiredPolicyIsFollowedOnce(t *testing.T) {
	w := newWorld(t, 41, rules(1, 1, everybody(1)), 1, plain)
	w.pass(time.Second)
	h := w.nodes[1].herald
	r := rules(2, 1, everybody(1))
	r.Expires = w.now.Add(500 * time.Millisecond)
	w.nodes[1].obey(r)
	w.pass(300 * time.Millisecond)
	followed := func() bool {
		const mark = 4711 // of nobody
		h.audience[mark] = nil
		w.pass(Every)
		_, is := h.audience[mark]
		delete(h.audience, mark)
		return !is
	}
	if followed() {
		t.Error("before its end it is followed again")
	}
	w.pass(200 * time.Millisecond)
	if followed() {
		t.Error("past its end it is followed again and again")
	}
}
