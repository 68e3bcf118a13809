package node

import (
	"crypto/rand"
	"encoding/binary"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/node/herald"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
	"github.com/etherloom/etherloom/transport"
)

// This file lets a segment's herald speak: package herald says what and when.

// heraldLinks are a segment's links, as its herald sees them.
type heraldLinks struct{ s *segment }

func (l heraldLinks) Ports() map[policy.Identity]*vswitch.Port { return *l.s.links.Load() }

func (l heraldLinks) Live(port *vswitch.Port) bool { return port.Egress().(*link).peer.Live() } //nolint:forcetypeassert // the ports of links

func (l heraldLinks) Frames(port *vswitch.Port) uint64 {
	s := port.Stats()
	return s.RxFrames + s.TxFrames
}

func newHerald(s *segment) *herald.Herald {
	return herald.New(herald.Config{
		VNI: s.vni, Self: s.d.self(), Table: s.sw.FDB(), Policy: s.sw.Policy, Links: heraldLinks{s}, Epoch: randomEpoch,
		Most: s.d.cfg.FDB.Entries, Quiet: s.d.cfg.Timers.FDBAge, Log: s.d.log.With("segment", s.name), Moved: s.moved,
		Groups: s.sw, Together: func() []herald.Carried { return s.d.sentinel.carried(s) }, Fellow: s.news.begin,
	})
}

// moved tells the switches of a VLAN that a machine is not there any more.
func (s *segment) moved(mac ether.MAC, from vswitch.Place) {
	if a, is := from.Port.Egress().(*attachment); is {
		s.d.sentinel.show(a, mac)
	}
}

func randomEpoch() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return binary.BigEndian.Uint64(b[:])
}

// announce tells the other nodes which machines are behind this one, until the segment closes.
func (s *segment) announce() error {
	var sender *transport.Sender // made when there is something to send: most nodes are no gateways
	defer func() {
		if sender != nil {
			sender.Close()
		}
	}()
	t := time.NewTicker(herald.Every)
	defer t.Stop()
	for {
		select {
		case <-s.d.ctx.Done():
			return nil
		case <-s.done:
			return nil
		case <-s.news.poke:
			s.tellFlows(sender, time.Now())
		case now := <-t.C:
			messages := s.herald.Tick(now)
			if len(messages) > 0 && sender == nil {
				if sender = s.newSender(); sender == nil {
					continue // who hears nothing asks
				}
			}
			for _, m := range messages {
				sender.Send(m.To.Egress().(*link).peer, m.Bytes, nil) //nolint:forcetypeassert // the ports of links
			}
			if len(messages) > 0 {
				sender.Flush()
				s.tellFlows(sender, now)
			}
		}
	}
}

// newSender is what notices are sent with, by whichever queue has a shard left: a gateway may have more segments than a queue has. nil, for now, if all are in use.
func (s *segment) newSender() *transport.Sender {
	var err error
	for q := range s.d.cfg.queues() {
		var sender *transport.Sender
		if sender, err = s.d.endpoint.NewSender(q); err == nil {
			return sender
		}
	}
	if s.d.senderless.allow(time.Now(), time.Minute) {
		s.d.log.Error("no other node is told which machines are here", "segment", s.name, "err", err)
	}
	return nil
}

// notice gives a notice to the segment that it is about.
func (i *ingress) notice(from identity.ID, message []byte, now time.Time) {
	vni, ok := herald.SegmentOf(message)
	if !ok {
		i.d.malformed.Add(1)
		return
	}
	s := (*i.d.byVNI.Load())[vni]
	if s == nil {
		return
	}
	if port := (*s.links.Load())[policy.Identity(from)]; port != nil {
		s.herald.Hear(port, message, now)
	}
}
