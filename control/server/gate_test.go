package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

// issue makes a key and a leaf of this desk's CA, past all rules.
func (d *desk) issue(ca *identity.CA, kind identity.Kind, id identity.ID, life time.Duration) ([]byte, ed25519.PrivateKey) {
	d.t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	must(d.t, err)
	leaf, err := ca.Issue(identity.Certificate{Name: identity.Name{Kind: kind, ID: id}, Sign: pub}, life, d.clock.now())
	must(d.t, err)
	return leaf.DER, key
}

// post calls a method with an empty JSON body, as curl would, and returns the Connect code of the answer.
func post(t testing.TB, c *http.Client, url, method string, header ...string) (string, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/"+method, strings.NewReader("{}"))
	must(t, err)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode == http.StatusOK {
		return "ok", string(body)
	}
	for code := connect.Code(1); code <= connect.CodeUnauthenticated; code++ {
		if strings.Contains(string(body), `"code":"`+code.String()+`"`) {
			return code.String(), string(body)
		}
	}
	return resp.Status, string(body)
}

// methods lists all methods of a service, from the description that the API is made of.
func methods(service protoreflect.Name) []string {
	var out []string
	s := controlv1.File_controlv1_control_proto.Services().ByName(service)
	for i := range s.Methods().Len() {
		out = append(out, string(s.FullName())+"/"+string(s.Methods().Get(i).Name()))
	}
	return out
}

// TestWhoMayCall calls every method of every service as everybody: the answer depends on who the leaf proves one to be,
// and lists are refused like everything else.
func TestWhoMayCall(t *testing.T) {
	d := newDesk(t)
	token := d.token()
	a, locked := d.join("a", token), d.join("locked", token)
	d.setStatus("locked", controlv1.NodeStatus_NODE_STATUS_LOCKED, "")
	second, secondKey := newAdmin(t, d, "second")
	short, shortKey := newAdmin(t, d, "short")
	_, err := d.admin.RevokeAdmin(t.Context(), &controlv1.RevokeAdminRequest{Id: 2})
	must(t, err)

	stranger := newDesk(t)
	foreign, foreignKey := stranger.issue(stranger.ctl.ca, identity.KindAdmin, 1, time.Hour)
	forged, forgedKey := d.issue(d.ctl.ca, identity.KindAdmin, 1, time.Hour) // signed by the CA, but not the registered key
	forgedNode, forgedNodeKey := d.issue(d.ctl.ca, identity.KindNode, a.id, time.Hour)
	mixed, err := d.ctl.ca.Issue(identity.Certificate{ // its own Ed25519 key, another's X25519 key
		Name: identity.Name{Kind: identity.KindNode, ID: a.id}, Sign: a.keys.SignPublic(), Static: locked.keys.StaticPublic(),
	}, time.Hour, time.Now())
	must(t, err)
	unknown, unknownKey := d.issue(d.ctl.ca, identity.KindNode, 77, time.Hour)
	expired, expiredKey := d.issue(d.ctl.ca, identity.KindAdmin, 1, -time.Minute)

	who := map[string]*http.Client{
		"nobody":                        d.client(nil, nil),
		"node":                          a.http,
		"locked node":                   locked.http,
		"administrator":                 d.client(d.cred.Certificate, d.cred.Key),
		"revoked administrator":         d.client(second, secondKey),
		"administrator elsewhere":       d.client(foreign, foreignKey),
		"administrator with other key":  d.client(forged, forgedKey),
		"administrator of yesterday":    d.client(expired, expiredKey),
		"node with other keys":          d.client(forgedNode, forgedNodeKey),
		"node with another X25519 key":  d.client(mixed.DER, a.keys.Sign),
		"node that does not exist":      d.client(unknown, unknownKey),
		"controller":                    d.client(d.ctl.self.Load().cert.DER, d.ctl.self.Load().signer.Key),
		"administrator of another name": d.client(short, shortKey),
	}
	allowed := map[string]map[string]bool{
		"node":                          {"NodeService": true},
		"administrator":                 {"AdminService": true},
		"administrator of another name": {"AdminService": true},
	}
	for _, service := range []protoreflect.Name{"NodeService", "AdminService"} {
		for _, method := range methods(service) {
			if strings.HasSuffix(method, "/Sync") {
				continue // needs a stream; its gate is the same, and sync_test.go tries it
			}
			for name, client := range who {
				code, body := post(t, client, d.url(), method)
				refused := code == "unauthenticated" || code == "permission_denied"
				if refused == allowed[name][string(service)] {
					t.Errorf("%s calls %s: %s %s", name, method, code, body)
				}
			}
		}
	}
	// The services' names are all that there is.
	for _, path := range []string{"", "x", "etherloom.control.v1.NodeService", "etherloom.control.v1.OtherService/List", "debug/pprof/", "metrics"} {
		if code, _ := post(t, who["administrator"], d.url(), path); code != "404 Not Found" {
			t.Errorf("/%s: %s", path, code)
		}
	}
	if code, _ := post(t, who["administrator"], d.url(), "etherloom.control.v1.AdminService/NoSuchMethod"); code != "404 Not Found" {
		t.Errorf("a method that does not exist: %s", code)
	}
}

// newAdmin adds an administrator over the API.
func newAdmin(t testing.TB, d *desk, name string) ([]byte, ed25519.PrivateKey) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	must(t, err)
	r, err := d.admin.AddAdmin(t.Context(), &controlv1.AddAdminRequest{Name: name, SignKey: pub})
	must(t, err)
	return r.Certificate, key
}

// TestExpiredAdmin: an administrator's certificate ends, and so does the right; also if only the record says so.
func TestExpiredAdmin(t *testing.T) {
	d := newDesk(t)
	d.clock.advance(91 * 24 * time.Hour)
	_, err := d.admin.ListNodes(t.Context(), &controlv1.ListNodesRequest{})
	wantError(t, err, connect.CodeUnauthenticated, "certificate has expired")
	m := d.ctl.store.Model()
	leaf, err := d.ctl.verifier.Verify([][]byte{d.cred.Certificate}, identity.KindAdmin, time.Now())
	must(t, err)
	wantError(t, checkAdmin(m, leaf, d.clock.now()), connect.CodePermissionDenied, "--new-admin")
}

// TestRevokedMeanwhile: an administrator who is revoked while a change of theirs is under way changes nothing any more.
func TestRevokedMeanwhile(t *testing.T) {
	d := newDesk(t)
	second, _ := newAdmin(t, d, "second")
	leaf, err := d.ctl.verifier.Verify([][]byte{second}, identity.KindAdmin, time.Now())
	must(t, err)
	ctx := context.WithValue(t.Context(), callerKey{}, &caller{leaf: leaf, source: "192.0.2.1:1", request: "x"})
	service := &adminService{d.ctl}
	_, err = service.AddSegment(ctx, &controlv1.AddSegmentRequest{Name: "dmz"})
	must(t, err)
	_, err = d.admin.RevokeAdmin(t.Context(), &controlv1.RevokeAdminRequest{Id: 2})
	must(t, err)
	_, err = service.AddSegment(ctx, &controlv1.AddSegmentRequest{Name: "lab"})
	wantError(t, err, connect.CodePermissionDenied, `administrator "second" was revoked`)
	_, err = service.ApplyPolicy(ctx, &controlv1.ApplyPolicyRequest{Document: "grants: []\n", AnyVersion: true})
	wantError(t, err, connect.CodePermissionDenied, `administrator "second" was revoked`)
	if m := d.ctl.store.Model(); m.SegmentNamed("dmz") == nil || m.SegmentNamed("lab") != nil {
		t.Errorf("segments are %v", m.Segments)
	}
}

// TestIdentityIsTheLeafAlone: what a caller writes into headers, and further certificates that it presents, change
// nothing (ziti GHSA-7868-235p-7497, GHSA-mrpr-756c-xm47).
func TestIdentityIsTheLeafAlone(t *testing.T) {
	d := newDesk(t)
	token := d.token()
	a, b := d.join("a", token), d.join("b", token)
	const list = "etherloom.control.v1.AdminService/ListNodes"
	admin := "spiffe://" + d.ctl.ca.Network.String() + "/admin/1"
	for _, header := range [][]string{
		{"X-Forwarded-Client-Cert", admin},
		{"X-SSL-Client-Cert", admin},
		{"Authorization", "Bearer " + admin},
		{"Etherloom-Identity", admin},
		{"X-Forwarded-For", "127.0.0.1"},
		{"X-Real-Ip", "127.0.0.1"},
	} {
		if code, body := post(t, a.http, d.url(), list, header...); code != "unauthenticated" {
			t.Errorf("with header %v: %s %s", header, code, body)
		}
	}
	// A node that presents the administrator's certificate behind, or before, its own.
	v, err := identity.NewVerifier(d.ctl.CA())
	must(t, err)
	chain := identity.TLSCertificate(a.leaf, a.keys.Sign, d.cred.Certificate, b.leaf)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: identity.ClientTLS(v, func() *tls.Certificate { return chain })}}
	if code, body := post(t, client, d.url(), list); code != "unauthenticated" || !strings.Contains(body, "expected a admin") && !strings.Contains(body, "another kind") {
		t.Errorf("an administrator's certificate behind the node's own: %s %s", code, body)
	}
	if code, _ := post(t, client, d.url(), "etherloom.control.v1.NodeService/RaiseHandshakeNonce"); code != "ok" {
		t.Errorf("the same as the node that it is: %s", code)
	}
	if m := d.ctl.store.Model(); m.Nodes[a.id].HandshakeNonce != 1 || m.Nodes[b.id].HandshakeNonce != 0 {
		t.Error("a certificate behind the leaf was taken for the caller")
	}
	first := identity.TLSCertificate(d.cred.Certificate, a.keys.Sign, a.leaf) // whose key it does not hold
	liar := &http.Client{Transport: &http.Transport{TLSClientConfig: identity.ClientTLS(v, func() *tls.Certificate { return first })}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url()+"/"+list, strings.NewReader("{}"))
	must(t, err)
	if resp, err := liar.Do(req); err == nil {
		resp.Body.Close()
		t.Errorf("a certificate without its key: %s", resp.Status)
	}
	// The source in the audit log is the connection's, whatever the headers say.
	post(t, d.client(d.cred.Certificate, d.cred.Key), d.url(), "etherloom.control.v1.AdminService/RaiseEpoch", "X-Forwarded-For", "203.0.113.9")
	entries, _ := auditEntries(t, d)
	if last := entries[len(entries)-1]; !strings.HasPrefix(last.Source, "127.0.0.1:") {
		t.Errorf("entry is %v", last)
	}
}

// TestRateLimit: strangers are limited by source before a body is read; whoever has a good certificate is not.
func TestRateLimit(t *testing.T) {
	d := newDesk(t, func(o *Options) { o.Limits.Calls, o.Limits.CallBurst = 0.001, 5 })
	begin := "etherloom.control.v1.EnrolService/Begin"
	count := map[string]int{}
	nobody := d.client(nil, nil)
	for i := range 12 {
		method := begin
		if i%2 == 1 {
			method = "etherloom.control.v1.AdminService/ListNodes"
		}
		code, _ := post(t, nobody, d.url(), method)
		count[code]++
	}
	if count["resource_exhausted"] != 7 {
		t.Errorf("answers to 12 calls with a burst of 5: %v", count)
	}
	for range 20 {
		if _, err := d.admin.ListNodes(t.Context(), &controlv1.ListNodesRequest{}); err != nil {
			t.Fatalf("the administrator is limited too: %v", err)
		}
	}
	// Refused means unread: a body that never comes does not keep the answer back.
	pr, pw := io.Pipe()
	defer pw.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url()+"/"+begin, pr)
	must(t, err)
	req.Header.Set("Content-Type", "application/json")
	start := time.Now()
	resp, err := nobody.Do(req)
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusTooManyRequests || time.Since(start) > promptly {
		t.Errorf("answer %s after %v", resp.Status, time.Since(start))
	}
}

func TestBuckets(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newBuckets[int](1, 2, 3)
	for i := range 3 {
		for n, want := range []bool{true, true, false} {
			if b.allow(i, now) != want {
				t.Fatalf("party %d, act %d: allowed is not %v", i, n, want)
			}
		}
	}
	// All three are busy, so newcomers share one bucket.
	if !b.allow(10, now) || !b.allow(11, now) || b.allow(12, now) || len(b.each) != 3 {
		t.Errorf("newcomers when all is full: %d parties are known", len(b.each))
	}
	later := now.Add(3 * time.Second)
	if !b.allow(13, later) || len(b.each) != 1 {
		t.Errorf("quiet parties are kept: %d", len(b.each))
	}
}

// TestBodies: a body is bounded, whole and by the message, compressed or not, and must come in time.
func TestBodies(t *testing.T) {
	d := newDesk(t)
	send := func(body io.Reader, header ...string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url()+"/etherloom.control.v1.EnrolService/Begin", body)
		must(t, err)
		req.Header.Set("Content-Type", "application/json")
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := d.client(nil, nil).Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	big := `{"secret":"` + strings.Repeat("A", 1<<20) + `"}`
	if status, body := send(strings.NewReader(big)); status == 200 || strings.Contains(body, "does not know the token") {
		t.Errorf("a body of 1 MiB: %d %s", status, body)
	}
	if status, body := send(io.LimitReader(endless{}, 1<<30)); status == 200 || strings.Contains(body, "does not know the token") {
		t.Errorf("a body without end: %d %s", status, body)
	}
	if status, body := send(bytes.NewReader(gzipped(t, bytes.Repeat([]byte(" "), 64<<20))), "Content-Encoding", "gzip"); status == 200 || strings.Contains(body, "does not know the token") {
		t.Errorf("a body that grows: %d %s", status, body)
	}
	small := gzipped(t, []byte(`{"secret":"AAAA"}`))
	if status, body := send(bytes.NewReader(small), "Content-Encoding", "gzip"); status == 200 || strings.Contains(body, "does not know the token") {
		t.Errorf("a small compressed body: %d %s", status, body)
	}
	if status, body := send(strings.NewReader(`{"secret":"AAAA"}`)); status != http.StatusNotFound || !strings.Contains(body, "does not know the token") {
		t.Errorf("a small body: %d %s", status, body)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestSlowCallers: who opens a connection and says nothing, or little by little, is cut off, and does not keep others
// out.
func TestSlowCallers(t *testing.T) {
	d := newDesk(t, func(o *Options) { o.Limits.ConnectionsPerSource, o.Patience = 20, time.Second })
	var idle []net.Conn
	for range 40 {
		conn, err := net.Dial("tcp", d.ctl.Addr().String())
		must(t, err)
		defer conn.Close()
		idle = append(idle, conn)
	}
	eventually(t, "connections beyond the limit are closed", func() bool { return d.ctl.Stats().ConnectionsRefused >= 20 })
	start := time.Now()
	for _, conn := range idle {
		must(t, conn.SetReadDeadline(start.Add(promptly)))
		if _, err := conn.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Fatalf("a silent connection lives for more than %v", promptly)
		}
	}
	if _, err := d.admin.ListNodes(t.Context(), &controlv1.ListNodesRequest{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	// A body that comes a byte at a time.
	pr, pw := io.Pipe()
	go func() {
		for {
			if _, err := pw.Write([]byte(" ")); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url()+"/etherloom.control.v1.EnrolService/Begin", pr)
	must(t, err)
	req.Header.Set("Content-Type", "application/json")
	start = time.Now()
	resp, err := d.client(nil, nil).Do(req)
	if err == nil {
		resp.Body.Close()
	}
	pr.Close()
	if took := time.Since(start); took > promptly {
		t.Errorf("a trickling body was read for %v", took)
	}
}

// TestJSON: the API can be used by hand, over HTTP/1.1 too.
func TestJSON(t *testing.T) {
	d := newDesk(t)
	v, err := identity.NewVerifier(d.ctl.CA())
	must(t, err)
	cert := identity.TLSCertificate(d.cred.Certificate, d.cred.Key)
	config := identity.ClientTLS(v, func() *tls.Certificate { return cert })
	config.NextProtos = []string{"http/1.1"}
	old := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	if code, body := post(t, old, d.url(), "etherloom.control.v1.AdminService/ListSegments"); code != "ok" || !strings.Contains(body, `"name":"lan"`) {
		t.Errorf("%s %s", code, body)
	}
	config.MaxVersion = tls.VersionTLS12
	config.MinVersion = tls.VersionTLS12
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url(), nil)
	must(t, err)
	if resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: config}}).Do(req); err == nil {
		resp.Body.Close()
		t.Error("TLS 1.2 is spoken")
	}
}
