package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newCA(t testing.TB, now time.Time) *CA {
	t.Helper()
	ca, err := NewCA(NewNetworkID(), now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newKeys(t testing.TB) NodeKeys {
	t.Helper()
	k, err := NewNodeKeys()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func nodeLeaf(t testing.TB, ca *CA, k NodeKeys, life time.Duration, now time.Time) *Certificate {
	t.Helper()
	c, err := ca.Issue(Certificate{
		Name: Name{Kind: KindNode, ID: 7}, Sign: k.SignPublic(), Static: k.StaticPublic(),
		Roles: []Role{RoleMember, RoleGateway}, Labels: []Label{{"team", "x"}, {"site", "a.b/c"}},
	}, life, now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNames(t *testing.T) {
	n := Name{Network: NewNetworkID(), Kind: KindNode, ID: 42}
	if got, err := ParseName(n.URL()); err != nil || got != n {
		t.Errorf("ParseName(%s) = %v, %v", n, got, err)
	}
	hex := n.Network.String()
	for _, bad := range []string{
		"https://" + hex + "/node/1", "spiffe://" + hex + "/node", "spiffe://" + hex + "/node/0", "spiffe://" + hex + "/node/01",
		"spiffe://" + hex + "/node/-1", "spiffe://" + hex + "/node/4294967296", "spiffe://" + hex + "/user/1", "spiffe://x/node/1",
		"spiffe://" + strings.ToUpper(hex) + "/node/1", "spiffe://" + hex + "/node/1/2", "spiffe://" + hex + "/node/1?x=1",
		"spiffe://u@" + hex + "/node/1", "spiffe://" + hex + ":5/node/1", "spiffe://" + hex + "//node/1", "spiffe://" + hex + "/node/1/",
	} {
		u, err := url.Parse(bad)
		if err != nil {
			continue
		}
		if got, err := ParseName(u); err == nil {
			t.Errorf("ParseName(%s) = %v", bad, got)
		}
	}
}

func TestLabelsRolesHostNames(t *testing.T) {
	for s, ok := range map[string]bool{
		"a=b": true, "team=net/core.x-1_2": true, "a": false, "=b": false, "a=": false, "a b=c": false, "a=b=c": false,
		strings.Repeat("k", 64) + "=v": false,
	} {
		if l, err := ParseLabel(s); (err == nil) != ok || ok && l.String() != s {
			t.Errorf("ParseLabel(%q) = %v, %v", s, l, err)
		}
	}
	for s, ok := range map[string]bool{
		"a": true, "a-1": true, "-a": false, "a-": false, "A": false, "a.b": false, "": false, "a_b": false,
		strings.Repeat("a", 63): true, strings.Repeat("a", 64): false, "ä": false,
	} {
		if err := CheckHostName(s); (err == nil) != ok {
			t.Errorf("CheckHostName(%q) = %v", s, err)
		}
	}
	if _, err := ParseRole("root"); err == nil {
		t.Error("role root accepted")
	}
}

func TestCertificate(t *testing.T) {
	ca, k := newCA(t, t0), newKeys(t)
	leaf := nodeLeaf(t, ca, k, time.Hour, t0)
	v, err := NewVerifier(ca.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.Verify([][]byte{leaf.DER}, KindNode, t0)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != (Name{ca.Network, KindNode, 7}) || got.Static != k.StaticPublic() || !got.Sign.Equal(k.SignPublic()) ||
		!got.HasRole(RoleGateway) || got.HasRole(RoleConnector) || len(got.Labels) != 2 || got.Labels[1].String() != "site=a.b/c" {
		t.Errorf("%+v", got)
	}
	if second := nodeLeaf(t, ca, k, time.Hour, t0); second.Serial == leaf.Serial {
		t.Error("two certificates have one serial")
	}
}

// Every way in which what was presented is not what it must be.
func TestVerifyRefuses(t *testing.T) {
	ca, k := newCA(t, t0), newKeys(t)
	v, _ := NewVerifier(ca.Certificate())
	leaf := nodeLeaf(t, ca, k, time.Hour, t0)
	otherCA, err := NewCA(ca.Network, t0) // the same network's name, another key
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(leaf.DER)
	changed[len(changed)/2] ^= 1
	// A leaf that signs another leaf: the chain is not followed.
	below := func() []byte {
		template, _ := x509.ParseCertificate(leaf.DER)
		template.IsCA, template.BasicConstraintsValid = true, true
		other := newKeys(t)
		der, err := x509.CreateCertificate(rand.Reader, template, template, other.SignPublic(), k.Sign)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}()
	for name, c := range map[string]struct {
		presented [][]byte
		kind      Kind
		at        time.Time
		want      error
	}{
		"nothing":                     {nil, KindNode, t0, errOneLeaf},
		"a second certificate":        {[][]byte{leaf.DER, ca.Certificate()}, KindNode, t0, errOneLeaf},
		"a good one behind a bad one": {[][]byte{nodeLeaf(t, otherCA, k, time.Hour, t0).DER, leaf.DER}, KindNode, t0, errOneLeaf},
		"another CA":                  {[][]byte{nodeLeaf(t, otherCA, k, time.Hour, t0).DER}, KindNode, t0, ErrIssuer},
		"signed by a leaf":            {[][]byte{below}, KindNode, t0, ErrIssuer},
		"the CA itself":               {[][]byte{ca.Certificate()}, KindNode, t0, errNotALeaf},
		"another kind":                {[][]byte{leaf.DER}, KindController, t0, ErrKind},
		"expired":                     {[][]byte{leaf.DER}, KindNode, t0.Add(time.Hour + time.Second), ErrExpired},
		"not yet valid":               {[][]byte{leaf.DER}, KindNode, t0.Add(-6 * time.Minute), ErrNotYet},
		"a changed byte":              {[][]byte{changed}, KindNode, t0, nil},
		"garbage":                     {[][]byte{[]byte("garbage")}, KindNode, t0, nil},
		"a network of the same key":   {[][]byte{otherNetwork(t, ca, k)}, KindNode, t0, errNetwork},
		"trailing bytes":              {[][]byte{append(bytes.Clone(leaf.DER), 0)}, KindNode, t0, nil},
	} {
		_, err := v.Verify(c.presented, c.kind, c.at)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	v.Revoked = func(c *Certificate) bool { return c.Name.ID == 7 }
	if _, err := v.Verify([][]byte{leaf.DER}, KindNode, t0); !errors.Is(err, ErrRevoked) {
		t.Errorf("revoked: %v", err)
	}
}

// otherNetwork issues with the CA's key for a network that it is not the CA of.
func otherNetwork(t *testing.T, ca *CA, k NodeKeys) []byte {
	t.Helper()
	forged := *ca
	forged.Network = NewNetworkID()
	return nodeLeaf(t, &forged, k, time.Hour, t0).DER
}

func TestGrace(t *testing.T) {
	ca, k := newCA(t, t0), newKeys(t)
	leaf := nodeLeaf(t, ca, k, time.Hour, t0)
	end := leaf.NotAfter
	for name, c := range map[string]struct {
		grace time.Duration
		last  time.Time // controller
		at    time.Time
		ok    bool
	}{
		"in time":                                  {0, end, end, true},
		"ended, no grace":                          {0, t0, end.Add(time.Second), false},
		"ended, no controller since before":        {time.Minute, end.Add(-time.Second), end.Add(30 * time.Second), true},
		"ended, a controller was there at its end": {time.Minute, end, end.Add(30 * time.Second), false},
		"ended, a controller came since":           {time.Minute, end.Add(time.Second), end.Add(30 * time.Second), false},
		"past the grace":                           {time.Minute, t0, end.Add(61 * time.Second), false},
	} {
		v, _ := NewVerifier(ca.Certificate())
		v.Grace, v.LastController = c.grace, func() time.Time { return c.last }
		if _, err := v.Verify([][]byte{leaf.DER}, KindNode, c.at); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	v, _ := NewVerifier(ca.Certificate())
	v.Grace = time.Hour // and nobody to ask: a controller is always heard
	if _, err := v.Verify([][]byte{leaf.DER}, KindNode, end.Add(time.Second)); err == nil {
		t.Error("a verifier that always hears a controller honours an expired certificate")
	}
}

func TestKeys(t *testing.T) {
	k := newKeys(t)
	data, err := k.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseNodeKeys(data)
	if err != nil || !got.Sign.Equal(k.Sign) || got.StaticPublic() != k.StaticPublic() {
		t.Errorf("ParseNodeKeys: %v", err)
	}
	first, rest := pem.Decode(data)
	for name, bad := range map[string][]byte{
		"nothing": nil, "one key": pem.EncodeToMemory(first), "the other": rest, "garbage": []byte("garbage"), "cut": data[:len(data)/2],
	} {
		if _, err := ParseNodeKeys(bad); err == nil {
			t.Errorf("%s accepted", name)
		}
	}
	other := newKeys(t)
	a, err1 := k.SharedSecret(other.StaticPublic())
	b, err2 := other.SharedSecret(k.StaticPublic())
	if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
		t.Error("the two sides do not share a secret")
	}
	if _, err := k.SharedSecret(StaticPublicKey{}); err == nil {
		t.Error("a low-order key gives a secret")
	}
}

func TestToken(t *testing.T) {
	in := NewToken([]string{"https://controller.example.com", "https://192.0.2.1:8443"}, [32]byte{1, 2})
	s := in.String()
	got, err := ParseToken(" " + s + "\n")
	if err != nil || got.Secret != in.Secret || got.Pin != in.Pin || len(got.URLs) != 2 {
		t.Fatalf("ParseToken = %+v, %v", got, err)
	}
	for i := range s {
		bad := []byte(s)
		bad[i] ^= 1
		if _, err := ParseToken(string(bad)); err == nil {
			t.Fatalf("with byte %d changed the token is accepted", i)
		}
	}
	for i := range len(s) {
		if _, err := ParseToken(s[:i]); err == nil {
			t.Fatalf("cut at %d the token is accepted", i)
		}
	}
	for _, u := range []string{"http://a.example", "https://", "https://u@a.example", "https://a.example/x", "https://a.example?x", "ftp://a"} {
		if _, err := ParseToken(NewToken([]string{u}, in.Pin).String()); err == nil {
			t.Errorf("a token with %s is accepted", u)
		}
	}
	if NewToken(nil, in.Pin).Secret == in.Secret {
		t.Error("two tokens have one secret")
	}
}

func TestProof(t *testing.T) {
	c, k, other := NewChallenger(), newKeys(t), newKeys(t)
	secret := []byte("secret of a token...")
	ch, err := c.New(t0)
	if err != nil {
		t.Fatal(err)
	}
	e := Enrolment{Secret: secret, Name: "a", Sign: k.SignPublic(), Static: k.StaticPublic()}
	p, err := k.Prove(secret, "a", ch)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(ch.Opaque, e, p, t0.Add(time.Minute)); err != nil {
		t.Errorf("an honest proof: %v", err)
	}
	stolenSign, stolenStatic, renamed, otherToken := e, e, e, e
	stolenSign.Sign, stolenStatic.Static, renamed.Name, otherToken.Secret = other.SignPublic(), other.StaticPublic(), "b", []byte("another")
	// Whoever holds only one of the two keys cannot prove both.
	half := NodeKeys{Sign: k.Sign, Static: other.Static}
	halfProof, _ := half.Prove(secret, "a", ch)
	lowOrder := e
	lowOrder.Static = StaticPublicKey{}
	for name, bad := range map[string]struct {
		e  Enrolment
		p  Proof
		ch []byte
		at time.Time
		c  *Challenger
	}{
		"another's signing key": {stolenSign, p, ch.Opaque, t0, c},
		"another's static key":  {stolenStatic, p, ch.Opaque, t0, c},
		"another name":          {renamed, p, ch.Opaque, t0, c},
		"another token":         {otherToken, p, ch.Opaque, t0, c},
		"a static key not held": {e, halfProof, ch.Opaque, t0, c},
		"a key of low order":    {lowOrder, p, ch.Opaque, t0, c},
		"too late":              {e, p, ch.Opaque, t0.Add(challengeLife + time.Second), c},
		"before the challenge":  {e, p, ch.Opaque, t0.Add(-time.Second), c},
		"another controller":    {e, p, ch.Opaque, t0, NewChallenger()},
		"a changed challenge":   {e, p, append([]byte{ch.Opaque[0] ^ 1}, ch.Opaque[1:]...), t0, c},
		"a short challenge":     {e, p, ch.Opaque[:39], t0, c},
		"no signature":          {e, Proof{MAC: p.MAC}, ch.Opaque, t0, c},
		"no MAC":                {e, Proof{Signature: p.Signature}, ch.Opaque, t0, c},
	} {
		if err := bad.c.Check(bad.ch, bad.e, bad.p, bad.at); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestWrap(t *testing.T) {
	k := NewWrapKey()
	sealed, err := k.Seal([]byte("the CA's key"), "ca")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Open(sealed, "ca"); err != nil || string(got) != "the CA's key" {
		t.Errorf("Open = %q, %v", got, err)
	}
	if bytes.Contains(sealed, []byte("CA's key")) {
		t.Error("the secret is in clear")
	}
	for name, f := range map[string]func() ([]byte, error){
		"another key":   func() ([]byte, error) { return NewWrapKey().Open(sealed, "ca") },
		"another label": func() ([]byte, error) { return k.Open(sealed, "relay") },
		"cut":           func() ([]byte, error) { return k.Open(sealed[:5], "ca") },
		"changed":       func() ([]byte, error) { b := bytes.Clone(sealed); b[20] ^= 1; return k.Open(b, "ca") },
	} {
		if _, err := f(); !errors.Is(err, ErrWrapKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// tlsPair runs a TLS handshake and returns what both sides say.
func tlsPair(t *testing.T, server, client *tls.Config) (state tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	s := tls.Server(a, server)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		done <- err
	}()
	c := tls.Client(b, client)
	clientErr = c.Handshake()
	if clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	} else {
		b.Close()
	}
	serverErr = <-done
	return s.ConnectionState(), serverErr, clientErr
}

func TestTLS(t *testing.T) {
	now := time.Now()
	ca, other := newCA(t, now), newCA(t, now)
	k := newKeys(t)
	_, ctlKey, _ := ed25519.GenerateKey(rand.Reader)
	issue := func(ca *CA, kind Kind, key ed25519.PrivateKey) *tls.Certificate {
		c, err := ca.Issue(Certificate{Name: Name{Kind: kind, ID: 1}, Sign: key.Public().(ed25519.PublicKey)}, time.Hour, now)
		if err != nil {
			t.Fatal(err)
		}
		return TLSCertificate(c.DER, key, ca.Certificate())
	}
	v, _ := NewVerifier(ca.Certificate())
	leaf := nodeLeaf(t, ca, k, time.Hour, now)
	node := func() *tls.Certificate { return TLSCertificate(leaf.DER, k.Sign) }
	good := ServerTLS(func() *tls.Certificate { return issue(ca, KindController, ctlKey) })

	state, serverErr, clientErr := tlsPair(t, good, ClientTLS(v, node))
	if serverErr != nil || clientErr != nil {
		t.Fatalf("%v, %v", serverErr, clientErr)
	}
	if got, err := v.Verify(PeerLeaf(&state), KindNode, now); err != nil || got.Name.ID != 7 {
		t.Errorf("the server sees %v, %v", got, err)
	}
	if state.Version != tls.VersionTLS13 {
		t.Errorf("version %x", state.Version)
	}
	if _, _, clientErr := tlsPair(t, good, PinnedTLS(ca.Pin())); clientErr != nil {
		t.Errorf("the right pin: %v", clientErr)
	}
	if _, _, clientErr := tlsPair(t, good, PinnedTLS(other.Pin())); !errors.Is(clientErr, ErrPin) {
		t.Errorf("the wrong pin: %v", clientErr)
	}
	// A server of another network that appends our CA's certificate to its own leaf.
	liar := issue(other, KindController, ctlKey)
	liar.Certificate = append(liar.Certificate[:1:1], ca.Certificate())
	for name, cert := range map[string]*tls.Certificate{
		"another CA": issue(other, KindController, ctlKey), "another CA that shows ours": liar, "a node": issue(ca, KindNode, ctlKey),
		"an administrator": issue(ca, KindAdmin, ctlKey),
	} {
		server := ServerTLS(func() *tls.Certificate { return cert })
		if _, _, clientErr := tlsPair(t, server, ClientTLS(v, node)); clientErr == nil {
			t.Errorf("%s is taken for a controller", name)
		}
		if _, _, clientErr := tlsPair(t, server, PinnedTLS(ca.Pin())); clientErr == nil {
			t.Errorf("%s is taken for a controller by a machine that joins", name)
		}
	}
	old := ClientTLS(v, node)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, serverErr, _ := tlsPair(t, good, old); serverErr == nil {
		t.Error("TLS 1.2 is accepted")
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(NewToken([]string{"https://a.example"}, [32]byte{}).String())
	f.Add("loom1.e30.AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		if tok, err := ParseToken(s); err == nil {
			again, err := ParseToken(tok.String())
			if err != nil || again.Secret != tok.Secret {
				t.Fatalf("%q: %v", s, err)
			}
		}
	})
}

// FuzzVerify presents arbitrary bytes, and the CA's own signature over arbitrary claims.
func FuzzVerify(f *testing.F) {
	now := time.Now()
	ca := newCA(f, now)
	v, _ := NewVerifier(ca.Certificate())
	k := newKeys(f)
	f.Add(nodeLeaf(f, ca, k, time.Hour, now).DER)
	f.Add([]byte{0x30, 0x82})
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := v.Verify([][]byte{b}, KindNode, now); err == nil && c.Name.Network != ca.Network {
			t.Fatal("a certificate of another network")
		}
		var c Certificate
		_ = c.readClaims(b)
		_, _ = ParseNodeKeys(b)
	})
}
