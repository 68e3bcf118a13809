package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// RelaySecret is what a relay and the controllers share: with it the controllers mint TURN credentials for nodes, and
// the relay checks them without asking anybody. It never reaches a node.
type RelaySecret [32]byte

// turnDomain keeps these passwords apart from every other use of HMAC-SHA-256.
const turnDomain = "etherloom turn v1\x00"

// Credential mints the TURN credential of the node with this relay slot. It says nothing of who the node is:
//
//	username = SLOT "." EXPIRY           both decimal; EXPIRY in Unix seconds
//	password = base64url(HMAC-SHA-256(secret, "etherloom turn v1\0" + username))
func (s RelaySecret) Credential(slot uint32, expires time.Time) (username, password string) {
	username = fmt.Sprintf("%d.%d", slot, expires.Unix())
	return username, s.password(username)
}

func (s RelaySecret) password(username string) string {
	m := hmac.New(sha256.New, s[:])
	m.Write([]byte(turnDomain + username))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// Errors of Check.
var (
	ErrTURNName    = errors.New("TURN username is not SLOT.EXPIRY")
	ErrTURNExpired = errors.New("TURN credential has expired")
)

// Check is the relay's side: which slot a username stands for, and the password that its owner must know. TURN
// proves knowledge of the password itself (RFC 8489 section 9.2), so it is returned and never received.
func (s RelaySecret) Check(username string, now time.Time) (slot uint32, password string, err error) {
	left, right, ok := strings.Cut(username, ".")
	n, err1 := strconv.ParseUint(left, 10, 32)
	expires, err2 := strconv.ParseInt(right, 10, 64)
	// One spelling for each credential: no sign, no leading zero.
	if !ok || err1 != nil || err2 != nil || username != fmt.Sprintf("%d.%d", n, expires) {
		return 0, "", ErrTURNName
	}
	if now.Unix() >= expires {
		return 0, "", ErrTURNExpired
	}
	return uint32(n), s.password(username), nil
}
