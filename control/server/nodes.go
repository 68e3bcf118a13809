package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/audit"
	"github.com/etherloom/etherloom/control/compile"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
	"github.com/etherloom/etherloom/identity"
)

// nodeService is what nodes call for themselves. Which node calls is the gate's finding; no message says it.
type nodeService struct {
	c       *Controller
	hellos  *buckets[identity.ID]
	signals *buckets[identity.ID]
	reports *buckets[identity.ID]
	uses    *buckets[identity.ID]
	leases  *buckets[identity.ID]
}

func newNodeService(c *Controller) *nodeService {
	return &nodeService{
		c:       c,
		hellos:  newBuckets[identity.ID](1, 20, maxSources),
		reports: newBuckets[identity.ID](10, 20, maxSources),
		uses:    newBuckets[identity.ID](1, 20, maxSources), // a node says so once a minute
		leases:  newBuckets[identity.ID](10, 20, maxSources),
		signals: newBuckets[identity.ID](c.opts.Limits.Signals, c.opts.Limits.SignalBurst, maxSources),
	}
}

func (s *nodeService) mayHello(st *stream) error {
	if s.hellos.allow(st.node, s.c.now()) {
		return nil
	}
	return refuse(connect.CodeResourceExhausted, "too many hellos: wait a little and connect again")
}

// maxSignal is how large a sealed signal may be.
const maxSignal = 2 << 10

// signal passes a signal on if the sender was told of the receiver, which it is if the two share a segment. What is
// not passed on is counted, and nobody is told: the sender tries again anyway.
func (s *nodeService) signal(st *stream, sig *controlv1.Signal) {
	to := identity.ID(sig.GetPeer())
	view := st.view.Load()
	stats := &s.c.stats
	switch {
	case len(sig.GetSealed()) > maxSignal:
		stats.signalsTooLarge.Add(1)
	case !s.signals.allow(st.node, s.c.now()):
		stats.signalsTooMany.Add(1)
	case view == nil || !knows(view, to) || !s.active(st):
		stats.signalsForbidden.Add(1)
	case !s.c.hub.pass(to, &controlv1.Signal{Peer: uint32(st.node), Sealed: sig.GetSealed()}):
		stats.signalsLost.Add(1)
	default:
		stats.signalsPassed.Add(1)
	}
}

func knows(told *compile.Result, peer identity.ID) bool {
	_, ok := told.Get(fmt.Sprintf("peer/%d", peer))
	return ok
}

// active repeats the gate's question: the writer may be about to cut the node off.
func (s *nodeService) active(st *stream) bool {
	m := s.c.store.Model()
	n, err := checkNode(m, st.who.leaf)
	return err == nil && m.Status(n) == model.StatusActive
}

// Renew certifies the node's keys anew.
func (s *nodeService) Renew(ctx context.Context, _ *controlv1.RenewRequest) (*controlv1.RenewResponse, error) {
	var leaf *identity.Certificate
	err := s.change(ctx, func(tx *store.Tx, n *model.Node) error {
		var err error
		if leaf, err = s.c.certifyNode(n, tx); err == nil {
			tx.Put("node.renew", n)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.RenewResponse{Certificate: leaf.DER}, nil
}

// ReportAddress tells which address a DHCP server gave the node on a segment.
func (s *nodeService) ReportAddress(ctx context.Context, r *controlv1.ReportAddressRequest) (*controlv1.ReportAddressResponse, error) {
	var lease netip.Prefix
	if r.GetAddress() != "" {
		var err error
		if lease, err = netip.ParsePrefix(r.GetAddress()); err != nil || !lease.Addr().Is4() {
			return nil, refuse(connect.CodeInvalidArgument, "address %q is not an IPv4 ADDRESS/LENGTH", r.GetAddress())
		}
	}
	err := s.change(ctx, func(tx *store.Tx, n *model.Node) error {
		seg := tx.Model.Segments[model.VNI(r.GetVni())]
		if seg == nil {
			return refuse(connect.CodeNotFound, "there is no segment %d", r.GetVni())
		}
		next, err := tx.Model.WithLease(n, seg, lease)
		if err != nil {
			return refuse(connect.CodeFailedPrecondition, "%w", err)
		}
		if !model.Same(next, tx.Model.Nodes[n.ID]) {
			tx.Put("node.lease", next)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.ReportAddressResponse{}, nil
}

// RaiseHandshakeNonce makes the node's next handshakes count as newer than all before.
func (s *nodeService) RaiseHandshakeNonce(ctx context.Context, _ *controlv1.RaiseHandshakeNonceRequest) (*controlv1.RaiseHandshakeNonceResponse, error) {
	var nonce uint64
	err := s.change(ctx, func(tx *store.Tx, n *model.Node) error {
		n.HandshakeNonce++
		nonce = n.HandshakeNonce
		tx.Put("node.nonce", n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.RaiseHandshakeNonceResponse{HandshakeNonce: nonce}, nil
}

// change is a transaction by which a node changes its own record. The function is given a copy to change and put.
func (s *nodeService) change(ctx context.Context, f func(*store.Tx, *model.Node) error) error {
	who := callerOf(ctx)
	if !s.c.mayChange(who.leaf.Name.ID) {
		return refuse(connect.CodeResourceExhausted, "the node changes its record too often: wait a little and try again")
	}
	return s.c.store.Update(ctx, who.actor(), func(tx *store.Tx) error {
		n, err := checkNode(tx.Model, who.leaf)
		if err != nil {
			return err
		}
		return f(tx, n.Clone())
	})
}

// mayChange limits what one node may cause in the store. Each change is written to disk and kept in the audit log for
// ever.
func (c *Controller) mayChange(id identity.ID) bool {
	return c.changes.allow(id, c.now())
}

// newChanges lets a node renew its certificate however short its life is.
func newChanges(l Limits, s *model.Settings) *buckets[identity.ID] {
	renewals := 8 / time.Duration(s.CertificateLifetime).Seconds()
	return newBuckets[identity.ID](max(l.Changes, renewals), l.ChangeBurst, maxSources)
}

// heed looks into a hello that has been answered. Nothing in it is worth ending the stream for.
func (c *Controller) heed(ctx context.Context, who *caller, h *controlv1.Hello) {
	if err := c.learn(ctx, who, h); err != nil {
		c.log.Warn("what a node says of itself was not stored", slog.String("request", who.request), slog.Any("err", err))
	}
	if err := c.checkHead(ctx, who, audit.HeadOf(h.GetAuditHead())); err != nil {
		c.log.Warn("the audit head that a node has seen was not checked", slog.String("request", who.request), slog.Any("err", err))
	}
}

// learn stores what its peers must know of a node's program, if that is new.
func (c *Controller) learn(ctx context.Context, who *caller, h *controlv1.Hello) error {
	agent := printable(h.GetAgent())
	news := func(n *model.Node) bool {
		return n != nil && (n.Agent != agent || n.MaxWire != h.GetMaxWire() || n.AES != h.GetAes())
	}
	if !news(c.store.Model().Nodes[who.leaf.Name.ID]) || !c.mayChange(who.leaf.Name.ID) {
		return nil
	}
	return c.store.Update(ctx, who.actor(), func(tx *store.Tx) error {
		n, err := checkNode(tx.Model, who.leaf)
		if err != nil || !news(n) {
			return err
		}
		n = n.Clone()
		n.Agent, n.MaxWire, n.AES = agent, h.GetMaxWire(), h.GetAes()
		tx.Put("node.program", n)
		return nil
	})
}

// printable is a program's name for itself, cut to what an administrator's terminal can bear.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r > unicode.MaxASCII || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), 64)]
}

// checkHead holds the newest head of the audit log that a node has seen against the log. A log that does not contain it
// has been rewritten or cut since a controller signed it.
func (c *Controller) checkHead(ctx context.Context, who *caller, seen audit.Head) error {
	ok, err := c.store.Contains(ctx, seen)
	if err != nil || ok || !c.hub.alarm(seen) {
		return err
	}
	c.log.Error("audit log was cut or rewritten: it does not contain a head that a node has seen",
		slog.Uint64("id", uint64(who.leaf.Name.ID)), slog.Uint64("sequence", seen.Sequence))
	return c.store.Update(ctx, who.actor(), func(tx *store.Tx) error {
		tx.Note("audit.cut", fmt.Sprintf("audit/%d", seen.Sequence), struct {
			Sequence uint64 `json:"sequence"`
			Hash     []byte `json:"hash"`
		}{seen.Sequence, seen.Hash[:]})
		return nil
	})
}
