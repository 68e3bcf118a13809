package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/controlv1/controlv1connect"
	"github.com/etherloom/etherloom/identity"
)

// beside starts a second controller of the same network on the first one's store.
func beside(t testing.TB, first *desk, edit ...func(*Options)) *desk {
	t.Helper()
	dir := shortDir(t)
	wrap, err := os.ReadFile(filepath.Join(first.dir, "ca.wrap"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "ca.wrap"), wrap, 0o600))
	return newDeskAt(t, dir, append(edit, func(o *Options) {
		o.EtcdEndpoints = []string{"unix://" + filepath.Join(first.dir, "etcd", "client.sock")}
	})...)
}

// TestTwoControllers: two controllers on one store are one: each enrols, each tells nodes the same, what an
// administrator does at one is at once true at the other, and a node that listens to both is never confused.
func TestTwoControllers(t *testing.T) {
	first := newDesk(t)
	second := beside(t, first)
	if second.cred != nil {
		t.Error("the second controller made an administrator of its own")
	}
	second.cred = first.cred
	second.admin = controlv1connect.NewAdminServiceClient(second.client(first.cred.Certificate, first.cred.Key), second.url())
	if string(first.ctl.CA()) != string(second.ctl.CA()) || first.ctl.selfID() == second.ctl.selfID() {
		t.Fatal("the two have different CAs, or one id")
	}
	eventually(t, "each knows the other", func() bool {
		return len(first.ctl.store.Model().Shared.Controllers) == 2 && len(second.ctl.store.Model().Shared.Controllers) == 2
	})
	token := first.token(func(r *controlv1.CreateTokenRequest) { r.Labels = []string{"a=b"} })
	if len(token.URLs) != 2 {
		t.Errorf("the token names %v", token.URLs)
	}
	eventually(t, "the second knows the token", func() bool { return second.ctl.store.Model().Tokens[tokenIDOf(token)] != nil })

	a := first.join("a", token)
	// One node, two streams, one state: what a node does with two controllers.
	there := &machine{d: second, name: "a", keys: a.keys, seen: make(chan *controlv1.ControllerMessage, 10)}
	eventually(t, "the second knows the node", func() bool { return second.ctl.store.Model().Nodes[1] != nil })
	there.use(a.leaf)
	a.sync()
	there.sync()
	b := second.join("b", token).sync()
	eventually(t, "the first knows it", func() bool { return first.ctl.store.Model().Nodes[b.id] != nil })
	first.grant("label:a=b", "segment:lan")
	eventually(t, "all see each other", func() bool {
		return len(a.contents().Peers) == 1 && len(there.contents().Peers) == 1 && len(b.contents().Peers) == 1
	})
	eventually(t, "both controllers say the same", func() bool {
		x, y := a.holds(), there.holds()
		return string(x.Header.GetHash()) == string(y.Header.GetHash()) && x.Header.GetVersion() == y.Header.GetVersion()
	})
	// What the one has signed, the node may have from the other.
	a.mu.Lock()
	there.mu.Lock()
	a.held, there.held = there.held, a.held
	there.mu.Unlock()
	a.mu.Unlock()
	second.setStatus("b", controlv1.NodeStatus_NODE_STATUS_LOCKED, "")
	eventually(t, "both tell of the lock", func() bool {
		return a.contents().Revocations[b.id] != nil && there.contents().Revocations[b.id] != nil
	})
	for _, m := range []*machine{a, there} {
		if err := m.failed(); err != nil {
			t.Errorf("a node of both controllers: %v", err)
		}
	}
	// An enrolment cannot begin here and end there.
	begin, err := first.enrolClient().Begin(t.Context(), &controlv1.BeginRequest{Secret: token.Secret[:]})
	must(t, err)
	keys := newKeys(t)
	proof, err := keys.Prove(token.Secret[:], "c", identity.Challenge{Opaque: begin.Challenge, Ephemeral: begin.Ephemeral})
	must(t, err)
	static := keys.StaticPublic()
	_, err = second.enrolClient().Enrol(t.Context(), &controlv1.EnrolRequest{
		Secret: token.Secret[:], Challenge: begin.Challenge, Name: "c", SignKey: keys.SignPublic(), StaticKey: static[:],
		Signature: proof.Signature, Mac: proof.MAC,
	})
	wantError(t, err, connect.CodeAborted, "another controller process: try again")
	must(t, auditWhole(t, first))
	must(t, auditWhole(t, second))
}

// TestBusyControllers: many changes at both at once all happen, in one unbroken log.
func TestBusyControllers(t *testing.T) {
	first := newDesk(t)
	second := beside(t, first)
	admin := controlv1connect.NewAdminServiceClient(second.client(first.cred.Certificate, first.cred.Key), second.url())
	var g errgroup.Group
	for i, api := range []controlv1connect.AdminServiceClient{first.admin, admin, first.admin, admin} {
		g.Go(func() error {
			for j := range 10 {
				from := fmt.Sprintf("label:a=%d-%d", i, j)
				if _, err := api.AddGrant(t.Context(), &controlv1.AddGrantRequest{From: from, To: "segment:lan"}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, g.Wait())
	eventually(t, "all grants are there", func() bool {
		return len(first.ctl.store.Model().Grants) == 40 && len(second.ctl.store.Model().Grants) == 40
	})
	must(t, auditWhole(t, first))
}

// TestStoreIsLost: a controller that is cut off from its store goes on with what it knows, prolongs nothing, says so,
// and lets nobody make changes.
func TestStoreIsLost(t *testing.T) {
	first := newDesk(t, func(o *Options) { o.Grace = 4 * time.Second })
	second := beside(t, first)
	token := first.token()
	eventually(t, "the second knows the token", func() bool { return second.ctl.store.Model().Tokens[tokenIDOf(token)] != nil })
	a := second.join("a", token).sync()
	eventually(t, "the node has its state", func() bool { return a.holds() != nil })
	admin := controlv1connect.NewAdminServiceClient(second.client(first.cred.Certificate, first.cred.Key), second.url())
	first.stop()
	stopped := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := admin.AddGrant(ctx, &controlv1.AddGrantRequest{From: "node:a", To: "segment:lan"})
	wantError(t, err, connect.CodeUnavailable, "cannot reach its store")
	if _, err := admin.ListNodes(t.Context(), &controlv1.ListNodesRequest{}); err != nil {
		t.Errorf("lists: %v", err)
	}
	time.Sleep(3 * time.Second)
	if err := a.failed(); err != nil {
		t.Errorf("the node's stream: %v", err)
	}
	if end := a.holds().Expires(); end.After(stopped.Add(4*time.Second + 500*time.Millisecond)) {
		t.Errorf("a state was prolonged to %v after the store was lost", end.Sub(stopped))
	}
	if !strings.Contains(second.logs.String(), "store does not answer") {
		t.Error("the log is silent")
	}
}

// TestWrongWrapForSecond: the second controller's first start without the right ca.wrap says which file to copy.
func TestWrongWrapForSecond(t *testing.T) {
	first := newDesk(t)
	opts := options(shortDir(t), first)
	opts.EtcdEndpoints = []string{"unix://" + filepath.Join(first.dir, "etcd", "client.sock")}
	if _, err := Open(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "copy ca.wrap") {
		t.Errorf("without ca.wrap: %v", err)
	}
	other := newDesk(t)
	wrap, err := os.ReadFile(filepath.Join(other.dir, "ca.wrap"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(opts.DataDir, "ca.wrap"), wrap, 0o600))
	if _, err := Open(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "does not open") {
		t.Errorf("with another network's ca.wrap: %v", err)
	}
	for _, name := range []string{"admin.json", "controller.key"} {
		if _, err := os.Stat(filepath.Join(opts.DataDir, name)); err == nil {
			t.Errorf("the failed start left %s", name)
		}
	}
}
