package node

import (
	"strings"
	"testing"

	"github.com/etherloom/etherloom/transport"
)

// A queue that nobody can read is a problem, and stays one: frames of the NIC are lost for as long as that is so.
func TestUnreadQueueIsTold(t *testing.T) {
	elsewhere(t, func() {
		d, s := plugged(t)
		for {
			if _, ok := d.lanes.take(0); !ok {
				break
			}
		}
		must(t, d.take(s.delta(s.attached(device{nic: "lan0"}))))
		told := func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return strings.Contains(d.problems["nic lan0"], "a queue of wire0 is not read")
		}
		eventually(t, "it is told that a queue is not read", told)
		tr := d.trunks[device{nic: "lan0"}]
		if !tr.look() || !told() {
			t.Error("when the wire is looked after it is forgotten")
		}
		d.hostChanged()
		if !told() {
			t.Error("when the host has changed it is forgotten")
		}
	})
}

// A gateway has a herald for each of its segments, also if there are more than one queue has shards for.
func TestHeraldsUseEveryQueue(t *testing.T) {
	s := newSite(t)
	cfg := config()
	cfg.TAP.Queues = 2
	d, err := New(cfg, s.dir, quiet())
	must(t, err)
	var all []*transport.Sender
	for {
		sender, err := d.endpoint.NewSender(0)
		if err != nil {
			break
		}
		all = append(all, sender)
	}
	seg := &segment{d: d, name: "lan"}
	sender := seg.newSender()
	if sender == nil {
		t.Fatal("it has no sender, though the other queue has shards")
	}
	sender.Close()
	for range 2 * len(all) { // the other queue's, too
		if sender = seg.newSender(); sender == nil {
			return
		}
	}
	t.Error("there is no end of senders")
}
