package transport

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/etherloom/etherloom/identity"
)

var update = flag.Bool("update", false, "write docs/vectors.json anew")

// vectors is the shape of docs/vectors.json. All values are hex, but for numbers and suites.
type vectors struct {
	Comment string `json:"comment"`
	Network string `json:"network"`
	NodeA   party1 `json:"node_1"`
	NodeB   party1 `json:"node_2"`

	Handshakes []handshakeVector `json:"handshakes"`
	Data       []dataVector      `json:"data"`
	Signal     signalVector      `json:"signal"`
	ICE        []iceVector       `json:"ice"`
}

type party1 struct {
	StaticPrivate string `json:"static_private"`
	StaticPublic  string `json:"static_public"`
	Ephemeral     string `json:"ephemeral_private"`
}

type handshakeVector struct {
	Suite            string `json:"suite"`
	HandshakeNonce   uint64 `json:"handshake_nonce"`
	Timestamp        uint64 `json:"timestamp"`
	CertificateOne   string `json:"certificate_1"`
	CertificateTwo   string `json:"certificate_2"`
	IndexOne         uint32 `json:"index_1"`
	IndexTwo         uint32 `json:"index_2"`
	Initiation       string `json:"initiation"`
	Response         string `json:"response"`
	SecretOneToTwo   string `json:"secret_1_to_2"`
	SecretTwoToOne   string `json:"secret_2_to_1"`
	InitiationCookie string `json:"initiation_with_cookie_of_16_ff"`
}

type dataVector struct {
	Suite    string `json:"suite"`
	Secret   string `json:"secret"`
	Path     uint8  `json:"path"`
	Shard    uint8  `json:"shard"`
	Index    uint32 `json:"index"`
	Counter  uint64 `json:"counter"`
	Records  string `json:"records"`
	Datagram string `json:"datagram"`
}

type signalVector struct {
	Nonce     string `json:"nonce"`
	Plaintext string `json:"plaintext"`
	Sealed    string `json:"sealed_by_1_for_2"`
}

type iceVector struct {
	Attempt  uint64 `json:"attempt"`
	Side     uint32 `json:"side"`
	Fragment string `json:"fragment"`
	Password string `json:"password"`
}

func fixedKeys(t *testing.T, fill byte) identity.NodeKeys {
	t.Helper()
	static, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return identity.NodeKeys{Sign: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{fill}, 32)), Static: static}
}

// TestVectors computes every vector anew. It fails when the wire has changed: then the version must, too.
func TestVectors(t *testing.T) {
	const file = "../docs/vectors.json"
	got, err := json.MarshalIndent(computeVectors(t), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the wire is not what %s says; if that is meant, run go test ./transport -run TestVectors -update", file)
	}
}

func computeVectors(t *testing.T) vectors {
	a, b := fixedKeys(t, 0x11), fixedKeys(t, 0x22)
	network := identity.NetworkID(bytes.Repeat([]byte{0x77}, 16))
	describe := func(k identity.NodeKeys, e byte) party1 {
		pub := k.StaticPublic()
		return party1{hex.EncodeToString(k.Static.Bytes()), hex.EncodeToString(pub[:]), hex.EncodeToString(bytes.Repeat([]byte{e}, 32))}
	}
	v := vectors{
		Comment: "Etherloom wire protocol, version 1. Computed and checked by transport/vectors_test.go.",
		Network: network.String(), NodeA: describe(a, 0x33), NodeB: describe(b, 0x44),
	}
	for _, suite := range []Suite{AES256GCM, ChaCha20Poly1305} {
		v.Handshakes = append(v.Handshakes, handshake1(t, network, suite, a, b))
		v.Data = append(v.Data, data1(t, suite))
	}
	pa, err := newPair(network, a, 1, 2, b.StaticPublic())
	if err != nil {
		t.Fatal(err)
	}
	plain := append([]byte{0, 0, 0, 0, 0, 0, 0, 9, signalOffer, byte(MappingIndependent), 0, 0, 0, 0, 0, 0, 0, 5, 1},
		appendCandidate(nil, Candidate{Addr: netip.MustParseAddrPort("192.0.2.1:5000"), Reflexive: true})...)
	nonce := bytes.Repeat([]byte{0x55}, chacha20poly1305.NonceSizeX)
	sealed := pa.signalOut.Seal(bytes.Clone(nonce), nonce, plain, nil)
	v.Signal = signalVector{hex.EncodeToString(nonce), hex.EncodeToString(plain), hex.EncodeToString(sealed)}
	for _, attempt := range []uint64{0, 5} {
		for _, side := range []identity.ID{1, 2} {
			u, p, err := pa.iceCredentials(side, attempt)
			if err != nil {
				t.Fatal(err)
			}
			v.ICE = append(v.ICE, iceVector{attempt, uint32(side), u, p})
		}
	}
	return v
}

func handshake1(t *testing.T, network identity.NetworkID, suite Suite, a, b identity.NodeKeys) handshakeVector {
	ephemeral := func(fill byte) *bytes.Reader { return bytes.NewReader(bytes.Repeat([]byte{fill}, 32)) }
	pa := party{network, suite, a, b.StaticPublic(), ephemeral(0x33)}
	pb := party{network, suite, b, a.StaticPublic(), ephemeral(0x44)}
	h := handshakeVector{
		Suite: suite.String(), HandshakeNonce: 3, Timestamp: 1_700_000_000_000_000_000, IndexOne: 0x01020304,
		IndexTwo: 0x05060708, CertificateOne: hex.EncodeToString([]byte("leaf of node 1")), CertificateTwo: hex.EncodeToString([]byte("leaf of node 2")),
	}
	init, msg, err := pa.initiate(h.IndexOne, stamp{h.HandshakeNonce, h.Timestamp}, []byte("leaf of node 1"))
	if err != nil {
		t.Fatal(err)
	}
	first := appendMACs(bytes.Clone(msg), b.StaticPublic(), nil)
	h.Initiation = hex.EncodeToString(first)
	h.InitiationCookie = hex.EncodeToString(appendMACs(bytes.Clone(msg), b.StaticPublic(), bytes.Repeat([]byte{0xff}, 16)))
	o, err := pb.readInitiation(first)
	if err != nil {
		t.Fatal(err)
	}
	reply, send, recv, err := pb.respond(o, h.IndexTwo, []byte("leaf of node 2"))
	if err != nil {
		t.Fatal(err)
	}
	second := appendMACs(reply, a.StaticPublic(), nil)
	h.Response = hex.EncodeToString(second)
	h.SecretOneToTwo, h.SecretTwoToOne = hex.EncodeToString(recv[:]), hex.EncodeToString(send[:])
	got, err := init.readResponse(second)
	if err != nil || got.send != recv || got.recv != send {
		t.Fatalf("the initiator does not agree: %v", err)
	}
	return h
}

func data1(t *testing.T, suite Suite) dataVector {
	secret := [32]byte(bytes.Repeat([]byte{0x66}, 32))
	d := dataVector{Suite: suite.String(), Secret: hex.EncodeToString(secret[:]), Path: 3, Shard: 4, Index: 0x0a0b0c0d, Counter: 0x0102030405}
	records := appendRecord(nil, recordMessage, []byte("head"), []byte("body"))
	records = appendRecord(records, recordProbe, nil, []byte{0, 0, 0, 0, 0, 0, 0, 1})
	d.Records = hex.EncodeToString(records)
	aead, err := suite.dataKey(secret, d.Path, d.Shard)
	if err != nil {
		t.Fatal(err)
	}
	k := &sendKey{aead: aead, epoch: &epoch{}, counter: d.Counter, head: header{suite: suite, path: d.Path, shard: d.Shard, index: d.Index}}
	buf := append(make([]byte, headerLen, 200), records...)
	out, err := k.seal(buf)
	if err != nil {
		t.Fatal(err)
	}
	d.Datagram = hex.EncodeToString(out)
	return d
}
