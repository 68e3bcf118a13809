package server

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/control/audit"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

func netipPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// auditEntries reads the whole log in pages, as `audit verify` does, and checks the head's signature.
func auditEntries(t testing.TB, d *desk) ([]*controlv1.AuditEntry, audit.Head) {
	t.Helper()
	var all []*controlv1.AuditEntry
	for {
		page, err := d.admin.ListAudit(t.Context(), &controlv1.ListAuditRequest{After: uint64(len(all)), Limit: 7})
		must(t, err)
		all = append(all, page.Entries...)
		head := audit.HeadOf(page.Head)
		v, err := identity.NewVerifier(d.cred.CA)
		must(t, err)
		must(t, head.CheckSignature(v, page.HeadSignature, page.Signer, d.clock.now()))
		if uint64(len(all)) >= head.Sequence || len(page.Entries) == 0 {
			return all, head
		}
	}
}

func auditWhole(t testing.TB, d *desk) error {
	t.Helper()
	return audit.Verify(auditEntries(t, d))
}

// TestEveryChangeIsAudited: every act of an administrator and of a node is an entry that says who, from where, and what
// changed.
func TestEveryChangeIsAudited(t *testing.T) {
	d := newDesk(t)
	ctx := t.Context()
	token := d.token()
	a := d.join("a", token)
	grant := d.grant("node:a", "segment:lan")
	_, err := d.admin.AddSegment(ctx, &controlv1.AddSegmentRequest{Name: "dmz"})
	must(t, err)
	_, err = d.admin.RemoveSegment(ctx, &controlv1.RemoveSegmentRequest{Name: "dmz"})
	must(t, err)
	relay, err := d.admin.AddRelay(ctx, &controlv1.AddRelayRequest{Name: "r", Hosts: []string{"192.0.2.1"}, Port: 3478, ProbePort: 3479})
	must(t, err)
	_, err = d.admin.RemoveRelay(ctx, &controlv1.RemoveRelayRequest{Name: "r"})
	must(t, err)
	_, err = d.admin.SetNodeAddress(ctx, &controlv1.SetNodeAddressRequest{Name: "a", Segment: "lan", Mode: controlv1.AddressMode_ADDRESS_MODE_NONE})
	must(t, err)
	_, err = d.admin.SetNodeRoles(ctx, &controlv1.SetNodeRolesRequest{Name: "a", Segment: "lan", Add: []string{"router"}})
	must(t, err)
	_, err = a.api.Renew(ctx, &controlv1.RenewRequest{})
	must(t, err)
	_, err = a.api.RaiseHandshakeNonce(ctx, &controlv1.RaiseHandshakeNonceRequest{})
	must(t, err)
	d.setStatus("a", controlv1.NodeStatus_NODE_STATUS_LOCKED, "lost laptop")
	_, err = d.admin.RemoveGrant(ctx, &controlv1.RemoveGrantRequest{Id: grant})
	must(t, err)
	list, err := d.admin.ListTokens(ctx, &controlv1.ListTokensRequest{})
	must(t, err)
	_, err = d.admin.RevokeToken(ctx, &controlv1.RevokeTokenRequest{Id: list.Tokens[0].Id})
	must(t, err)
	_, err = d.admin.RaiseEpoch(ctx, &controlv1.RaiseEpochRequest{})
	must(t, err)

	entries, head := auditEntries(t, d)
	must(t, audit.Verify(entries, head))
	admin := fmt.Sprintf("spiffe://%s/admin/1", d.ctl.ca.Network)
	node := fmt.Sprintf("spiffe://%s/node/1", d.ctl.ca.Network)
	var got []string
	for _, e := range entries {
		actor := strings.NewReplacer(admin, "admin", node, "node").Replace(e.Actor)
		got = append(got, actor+" "+e.Action+" "+e.Object)
		if own := strings.HasPrefix(e.Actor, "controller") || strings.Contains(e.Actor, "/controller/"); own != (e.Source == "") || own != (e.Request == "") {
			t.Errorf("entry without its source or request: %v", e)
		}
		for _, secret := range []string{"wrapped", `"hash"`, string(token.Secret[:]), relay.Credential[100:140]} {
			if strings.Contains(e.Detail, secret) {
				t.Errorf("entry %d shows a secret: %s", e.Sequence, e.Detail)
			}
		}
	}
	want := []string{
		"controller network.create authority", "controller settings.set settings", "controller admin.add admin/1", "controller segment.add segment/1",
		"controller controller.add controller/1", "admin token.create token/" + list.Tokens[0].Id,
		"machine token.use token/" + list.Tokens[0].Id, "machine node.enrol node/1",
		"admin grant.add grant/1", "admin node.seat node/1", "admin segment.add segment/2", "admin segment.remove segment/2",
		"admin relay.add relay/r", "admin relay.remove relay/r", "admin node.address node/1", "admin node.role node/1", "node node.renew node/1", "node node.nonce node/1",
		"admin lock.add lock/1", "admin grant.remove grant/1", "admin token.revoke token/" + list.Tokens[0].Id, "admin epoch.raise settings",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("log is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	lock := entries[18].Detail
	for _, part := range []string{`{"after":{`, `"by":"` + admin + `"`, `"target":"node:a"`, `"node":1`, `"message":"lost laptop"`} {
		if !strings.Contains(lock, part) {
			t.Errorf("detail of the lock lacks %s: %s", part, lock)
		}
	}
	renewal := entries[16].Detail
	for _, part := range []string{`"before":{`, `"after":{`, `"serial":`} {
		if !strings.Contains(renewal, part) {
			t.Errorf("detail of the renewal lacks %s: %s", part, renewal)
		}
	}
	if strings.Contains(renewal, "static") {
		t.Errorf("detail of the renewal shows what did not change: %s", renewal)
	}
}

// TestAuditCut: a node that has seen a head which the log does not contain raises the alarm, once.
func TestAuditCut(t *testing.T) {
	d := newDesk(t)
	a := d.join("a", d.token())
	head := d.ctl.store.Model().AuditHead()
	a.sync(func(h *controlv1.Hello) { h.AuditHead = head.Proto() })
	eventually(t, "the node is told its state", func() bool { return a.holds() != nil })
	forged := audit.Head{Sequence: head.Sequence, Hash: [32]byte{1}}
	beyond := audit.Head{Sequence: head.Sequence + 1000, Hash: [32]byte{2}}
	count := func() (n int) {
		entries, _ := auditEntries(t, d)
		for _, e := range entries {
			if e.Action == "audit.cut" {
				n++
			}
		}
		return n
	}
	for i, h := range []audit.Head{forged, beyond} {
		a.sync(func(hello *controlv1.Hello) { hello.AuditHead = h.Proto() })
		eventually(t, "it is written down", func() bool { return count() == i+1 })
	}
	leaf := mustLeaf(t, d, a)
	d.ctl.heed(t.Context(), &caller{leaf: leaf}, &controlv1.Hello{Agent: "test/1", MaxWire: 1, Aes: true, AuditHead: beyond.Proto()})
	if n := count(); n != 2 {
		t.Errorf("%d entries for two heads", n)
	}
	if !strings.Contains(d.logs.String(), "audit log was cut or rewritten") {
		t.Error("the log is silent")
	}
	// A node that makes up heads costs a bounded number of entries.
	for i := range 3 * maxAlarms {
		d.ctl.heed(t.Context(), &caller{leaf: leaf}, &controlv1.Hello{
			Agent: "test/1", MaxWire: 1, Aes: true, AuditHead: audit.Head{Sequence: uint64(5000 + i)}.Proto(),
		})
	}
	if n := count(); n > maxAlarms {
		t.Errorf("%d entries for heads that a node made up", n)
	}
	must(t, auditWhole(t, d))
}

func mustLeaf(t testing.TB, d *desk, m *machine) *identity.Certificate {
	t.Helper()
	leaf, err := d.ctl.verifier.Verify([][]byte{m.leaf}, identity.KindNode, d.clock.now())
	must(t, err)
	return leaf
}
