package server

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

func newKeys(t testing.TB) identity.NodeKeys {
	t.Helper()
	keys, err := identity.NewNodeKeys()
	must(t, err)
	return keys
}

// TestEnrol: what a machine gets for its token.
func TestEnrol(t *testing.T) {
	d := newDesk(t)
	token := d.token(func(r *controlv1.CreateTokenRequest) {
		r.Role, r.Site, r.Labels, r.Uses = "gateway", "north", []string{"site=north", "a/b=c"}, 2
	})
	if len(token.URLs) != 1 || token.URLs[0] != d.url() || token.Pin != d.ctl.ca.Pin() {
		t.Errorf("token is %+v", token)
	}
	keys := newKeys(t)
	resp, err := d.enrol(token.Secret[:], "a", keys)
	must(t, err)
	must(t, identity.CheckPin(resp.Ca, token.Pin))
	v, err := identity.NewVerifier(resp.Ca)
	must(t, err)
	leaf, err := v.Verify([][]byte{resp.Certificate}, identity.KindNode, time.Now())
	must(t, err)
	if leaf.Name.ID != 1 || leaf.Static != keys.StaticPublic() || !leaf.Sign.Equal(keys.SignPublic()) || !leaf.HasRole(identity.RoleGateway) ||
		!leaf.HasRole(identity.RoleMember) || leaf.HasRole(identity.RoleConnector) || len(leaf.Labels) != 2 {
		t.Errorf("leaf is %+v", leaf)
	}
	if resp.Zone != "etherloom.internal" || resp.Status != controlv1.NodeStatus_NODE_STATUS_ACTIVE || len(resp.Controllers) != 1 {
		t.Errorf("answer is %v", resp)
	}
	list, err := d.admin.ListNodes(t.Context(), &controlv1.ListNodesRequest{})
	must(t, err)
	if n := list.Nodes[0]; len(list.Nodes) != 1 || n.Name != "a" || n.Site != "north" || n.CertificateSerial != leaf.Serial || n.Online {
		t.Errorf("nodes are %v", list.Nodes)
	}
	tokens, err := d.admin.ListTokens(t.Context(), &controlv1.ListTokensRequest{})
	must(t, err)
	if tok := tokens.Tokens[0]; tok.Used != 1 || tok.Uses != 2 || tok.Site != "north" || tok.Role != "gateway" {
		t.Errorf("token is %v", tok)
	}
}

// TestEnrolRefuses: each misuse has its own message, uses nothing up and leaves no node.
func TestEnrolRefuses(t *testing.T) {
	d := newDesk(t)
	good := d.token()
	first := d.join("first", good)
	single := d.token(func(r *controlv1.CreateTokenRequest) { r.Uses = 1 })
	d.join("single", single)
	short := d.token(func(r *controlv1.CreateTokenRequest) { r.Ttl = durationpb.New(time.Second) })
	revoked := d.token()
	list, err := d.admin.ListTokens(t.Context(), &controlv1.ListTokensRequest{})
	must(t, err)
	hash := identity.HashSecret(revoked.Secret[:])
	for _, tok := range list.Tokens {
		if tok.Id == tokenID(hash[:]) {
			_, err := d.admin.RevokeToken(t.Context(), &controlv1.RevokeTokenRequest{Id: tok.Id})
			must(t, err)
		}
	}
	removed := d.join("removed", good)
	d.setStatus("removed", controlv1.NodeStatus_NODE_STATUS_REMOVED, "")
	d.clock.advance(2 * time.Second)
	nodes := len(d.ctl.store.Model().Nodes)
	other, other2 := newKeys(t), d.token()

	mixed := func(sign, static identity.NodeKeys) identity.NodeKeys {
		return identity.NodeKeys{Sign: sign.Sign, Static: static.Static}
	}
	for _, c := range []struct {
		name   string
		secret []byte
		host   string
		keys   identity.NodeKeys
		edit   func(*controlv1.EnrolRequest)
		code   connect.Code
		text   string
	}{
		{"unknown token", make([]byte, 20), "x", newKeys(t), nil, connect.CodeNotFound, "does not know the token"},
		{"empty token", nil, "x", newKeys(t), nil, connect.CodeNotFound, "does not know the token"},
		{"used up", single.Secret[:], "x", newKeys(t), nil, connect.CodeFailedPrecondition, "has been used up (1 of 1)"},
		{"expired", short.Secret[:], "x", newKeys(t), nil, connect.CodeFailedPrecondition, "expired at"},
		{"revoked", revoked.Secret[:], "x", newKeys(t), nil, connect.CodeFailedPrecondition, "was revoked"},
		{"name in use", good.Secret[:], "first", newKeys(t), nil, connect.CodeAlreadyExists, "choose another name with --name"},
		{"name with a dot", good.Secret[:], "a.b", newKeys(t), nil, connect.CodeInvalidArgument, "not a DNS label"},
		{"name in capitals", good.Secret[:], "A", newKeys(t), nil, connect.CodeInvalidArgument, "not a DNS label"},
		{"no name", good.Secret[:], "", newKeys(t), nil, connect.CodeInvalidArgument, "not a DNS label"},
		{"keys in use", good.Secret[:], "x", first.keys, nil, connect.CodeAlreadyExists, "registered before"},
		{"Ed25519 key in use", good.Secret[:], "x", mixed(first.keys, newKeys(t)), nil, connect.CodeAlreadyExists, "registered before"},
		{"X25519 key in use", good.Secret[:], "x", mixed(newKeys(t), first.keys), nil, connect.CodeAlreadyExists, "registered before"},
		{"a removed node's keys", good.Secret[:], "removed", removed.keys, nil, connect.CodeAlreadyExists, "registered before"},
		{"the administrator's key", good.Secret[:], "x", identity.NodeKeys{Sign: d.cred.Key, Static: newKeys(t).Static}, nil, connect.CodeAlreadyExists, "registered before"},
		{"proof for another name", good.Secret[:], "x", newKeys(t), func(r *controlv1.EnrolRequest) { r.Name = "y" }, connect.CodeUnauthenticated, "did not prove"},
		{"proof for another token", good.Secret[:], "x", newKeys(t), func(r *controlv1.EnrolRequest) { r.Secret = other2.Secret[:] }, connect.CodeUnauthenticated, "did not prove"},
		{"another's Ed25519 key", good.Secret[:], "x", newKeys(t), func(r *controlv1.EnrolRequest) { r.SignKey = other.SignPublic() }, connect.CodeUnauthenticated, "did not prove"},
		{"another's X25519 key", good.Secret[:], "x", newKeys(t), func(r *controlv1.EnrolRequest) {
			k := other.StaticPublic()
			r.StaticKey = k[:]
		}, connect.CodeUnauthenticated, "did not prove"},
		{"low-order X25519 key", good.Secret[:], "x", newKeys(t), func(r *controlv1.EnrolRequest) { r.StaticKey = make([]byte, 32) }, connect.CodeUnauthenticated, "did not prove"},
		{"signature missing", good.Secret[:], "x", newKeys(t), func(r *controlv1.EnrolRequest) { r.Signature = nil }, connect.CodeUnauthenticated, "did not prove"},
		{"MAC missing", good.Secret[:], "x", newKeys(t), func(r *controlv1.EnrolRequest) { r.Mac = nil }, connect.CodeUnauthenticated, "did not prove"},
		{"short key", good.Secret[:], "x", newKeys(t), func(r *controlv1.EnrolRequest) { r.SignKey = r.SignKey[:31] }, connect.CodeInvalidArgument, "32 bytes"},
		{"challenge forged", good.Secret[:], "x", newKeys(t), func(r *controlv1.EnrolRequest) { r.Challenge[30] ^= 1 }, connect.CodeAborted, "try again"},
		{"challenge missing", good.Secret[:], "x", newKeys(t), func(r *controlv1.EnrolRequest) { r.Challenge = nil }, connect.CodeAborted, "try again"},
		{"challenge too old", good.Secret[:], "x", newKeys(t), func(*controlv1.EnrolRequest) { d.clock.advance(time.Hour) }, connect.CodeAborted, "took too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			edit := c.edit
			if edit == nil {
				edit = func(*controlv1.EnrolRequest) {}
			}
			_, err := d.enrol(c.secret, c.host, c.keys, edit)
			wantError(t, err, c.code, c.text)
		})
	}
	m := d.ctl.store.Model()
	if len(m.Nodes) != nodes || m.Tokens[tokenIDOf(good)].Used != 2 {
		t.Errorf("refused machines left %d nodes and used the token %d times", len(m.Nodes)-nodes, m.Tokens[tokenIDOf(good)].Used-2)
	}
	// The name of a removed node is free again, for a machine with keys of its own.
	d.clock.advance(-time.Hour)
	d.join("removed", good)
}

func tokenIDOf(t identity.Token) string {
	hash := identity.HashSecret(t.Secret[:])
	return tokenID(hash[:])
}

// TestEnrolOnce: many machines with one single-use token at the same moment; exactly one comes in.
func TestEnrolOnce(t *testing.T) {
	d := newDesk(t)
	token := d.token(func(r *controlv1.CreateTokenRequest) { r.Uses = 1 })
	var in, out atomic.Int32
	var g errgroup.Group
	for i := range 8 {
		keys := newKeys(t)
		g.Go(func() error {
			_, err := d.enrol(token.Secret[:], string(rune('a'+i)), keys)
			switch {
			case err == nil:
				in.Add(1)
			case strings.Contains(err.Error(), "used up"):
				out.Add(1)
			default:
				return err
			}
			return nil
		})
	}
	must(t, g.Wait())
	if in.Load() != 1 || out.Load() != 7 {
		t.Errorf("%d came in, %d were refused", in.Load(), out.Load())
	}
}

// TestApproval: a node whose token asks for approval learns its own name and nothing else until it is approved.
func TestApproval(t *testing.T) {
	d := newDesk(t)
	d.grant("label:a=b", "segment:lan")
	active := d.join("active", d.token(func(r *controlv1.CreateTokenRequest) { r.Labels = []string{"a=b"} })).sync()
	waits := d.join("waits", d.token(func(r *controlv1.CreateTokenRequest) { r.Approve, r.Labels = true, []string{"a=b"} })).sync()
	eventually(t, "the node is told its name", func() bool { return waits.contents().Self.GetName() == "waits" })
	eventually(t, "the other is on the segment", func() bool { return len(active.contents().Segments) == 1 })
	if c := waits.contents(); len(c.Segments)+len(c.Peers)+len(c.Grants)+len(c.Relays) != 0 || len(active.contents().Peers) != 0 {
		t.Errorf("before approval: %v and %v", c, active.contents())
	}
	d.setStatus("waits", controlv1.NodeStatus_NODE_STATUS_ACTIVE, "")
	eventually(t, "after approval the two see each other", func() bool {
		return len(waits.contents().Peers) == 1 && len(active.contents().Peers) == 1
	})
}

func TestTokenRequests(t *testing.T) {
	d := newDesk(t)
	many := make([]string, maxLabels+1)
	for i := range many {
		many[i] = "a=b"
	}
	for _, c := range []struct {
		name string
		r    *controlv1.CreateTokenRequest
		text string
	}{
		{"role", &controlv1.CreateTokenRequest{Role: "king"}, "one of member, gateway, connector"},
		{"label", &controlv1.CreateTokenRequest{Labels: []string{"x"}}, "KEY=VALUE"},
		{"labels", &controlv1.CreateTokenRequest{Labels: many}, "at most 32"},
		{"uses", &controlv1.CreateTokenRequest{Uses: maxUses + 1}, "at most 100000"},
		{"ttl too short", &controlv1.CreateTokenRequest{Ttl: durationpb.New(time.Millisecond)}, "expected between 1s"},
		{"ttl negative", &controlv1.CreateTokenRequest{Ttl: durationpb.New(-time.Hour)}, "expected between 1s"},
		{"ttl too long", &controlv1.CreateTokenRequest{Ttl: durationpb.New(10000 * time.Hour)}, "expected between 1s"},
		{"site", &controlv1.CreateTokenRequest{Site: strings.Repeat("x", 300)}, "at most 256"},
	} {
		_, err := d.admin.CreateToken(t.Context(), c.r)
		t.Run(c.name, func(t *testing.T) { wantError(t, err, connect.CodeInvalidArgument, c.text) })
	}
	_, err := d.admin.RevokeToken(t.Context(), &controlv1.RevokeTokenRequest{Id: "nope"})
	wantError(t, err, connect.CodeNotFound, "nope")
	resp, err := d.admin.CreateToken(t.Context(), &controlv1.CreateTokenRequest{})
	must(t, err)
	if desc := resp.Description; desc.Role != "member" || desc.Uses != 1 || desc.Expires.AsTime().Sub(desc.Created.AsTime()) != 3*time.Hour {
		t.Errorf("defaults of a token: %v", desc)
	}
	if _, err := identity.ParseToken(resp.Token + "x"); err == nil || errors.Is(err, nil) {
		t.Error("a token with a letter more is one")
	}
}
