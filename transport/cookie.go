package transport

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/etherloom/etherloom/identity"
)

// Both handshake messages end in two MACs of 16 bytes (keyed BLAKE2s, as WireGuard has them):
//
//	mac1  over the message before it, keyed by the receiver's static public key: who does not know the key gets no
//	      answer, and costs one hash
//	mac2  over the message and mac1, keyed by a cookie; zero without one
//
// A responder under load answers a message with a good mac1 and no good mac2 by a cookie, bound to the sender's
// transport address, and does nothing else. The cookie message is never longer than what it answers:
//
//	first byte, 3 zero bytes
//	receiver's index (32), of the message that it answers
//	nonce (24), cookie (16+16): XChaCha20-Poly1305 under a hash of the responder's static key, AAD: that message's mac1
const (
	macLen    = 16
	cookieLen = 16

	cookieMessage = 8 + chacha20poly1305.NonceSizeX + cookieLen + chacha20poly1305.Overhead

	// cookieLife is how long an initiator uses a cookie; the responder's secret lasts as long, and one change more.
	cookieLife = 120 * time.Second
)

var errCookie = errors.New("transport: not a cookie for this message")

func macKey(label string, static identity.StaticPublicKey) [32]byte {
	return blake2s.Sum256(append([]byte("etherloom "+label+" v1"), static[:]...))
}

func mac(key []byte, parts ...[]byte) (out [macLen]byte) {
	h, err := blake2s.New128(key)
	if err != nil {
		panic("transport: BLAKE2s refuses a key of at most 32 bytes: " + err.Error())
	}
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(out[:0])
	return out
}

// appendMACs ends a handshake message for the holder of static. cookie is nil or what its cookie message gave.
func appendMACs(msg []byte, static identity.StaticPublicKey, cookie []byte) []byte {
	key := macKey("mac1", static)
	mac1 := mac(key[:], msg)
	msg = append(msg, mac1[:]...)
	var mac2 [macLen]byte
	if cookie != nil {
		mac2 = mac(cookie, msg)
	}
	return append(msg, mac2[:]...)
}

// goodMAC1 checks a handshake message that was sent to the holder of static.
func goodMAC1(msg []byte, static identity.StaticPublicKey) bool {
	if len(msg) < macsLen {
		return false
	}
	key := macKey("mac1", static)
	want := mac(key[:], msg[:len(msg)-macsLen])
	return subtle.ConstantTimeCompare(want[:], msg[len(msg)-macsLen:len(msg)-macLen]) == 1
}

// cookieJar makes the cookies of a responder.
type cookieJar struct {
	now, before [32]byte
	changed     time.Time
}

func (j *cookieJar) rotate(now time.Time) {
	if now.Sub(j.changed) < cookieLife {
		return
	}
	j.before = j.now
	rand.Read(j.now[:])
	if j.changed.IsZero() || now.Sub(j.changed) >= 2*cookieLife {
		rand.Read(j.before[:])
	}
	j.changed = now
}

// cookie is bound to the transport address, so that it proves that the sender is there.
func cookieFor(secret [32]byte, from netip.AddrPort) [cookieLen]byte {
	addr := from.Addr().As16()
	return mac(secret[:], addr[:], binary.BigEndian.AppendUint16(nil, from.Port()))
}

// goodMAC2 checks that a message was made with a cookie of this jar.
func (j *cookieJar) goodMAC2(msg []byte, from netip.AddrPort, now time.Time) bool {
	j.rotate(now)
	for _, secret := range [][32]byte{j.now, j.before} {
		c := cookieFor(secret, from)
		want := mac(c[:], msg[:len(msg)-macLen])
		if subtle.ConstantTimeCompare(want[:], msg[len(msg)-macLen:]) == 1 {
			return true
		}
	}
	return false
}

// reply makes the cookie message for a handshake message.
func (j *cookieJar) reply(msg []byte, from netip.AddrPort, s Suite, own identity.StaticPublicKey, now time.Time) []byte {
	j.rotate(now)
	key := macKey("cookie", own)
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic("transport: XChaCha20-Poly1305 refuses a key of 32 bytes: " + err.Error())
	}
	out := append([]byte{firstByte(typeCookie, s), 0, 0, 0}, msg[4:8]...)
	nonce := make([]byte, chacha20poly1305.NonceSizeX)
	rand.Read(nonce)
	out = append(out, nonce...)
	c := cookieFor(j.now, from)
	return aead.Seal(out, nonce, c[:], msg[len(msg)-macsLen:len(msg)-macLen])
}

// readCookie opens the cookie message of the holder of static, in answer to sent, a whole handshake message.
func readCookie(b []byte, static identity.StaticPublicKey, sent []byte) ([]byte, error) {
	if len(b) != cookieMessage || len(sent) < macsLen {
		return nil, errCookie
	}
	key := macKey("cookie", static)
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return nil, err
	}
	nonce := b[8 : 8+chacha20poly1305.NonceSizeX]
	cookie, err := aead.Open(nil, nonce, b[8+len(nonce):], sent[len(sent)-macsLen:len(sent)-macLen])
	if err != nil {
		return nil, errCookie
	}
	return cookie, nil
}
