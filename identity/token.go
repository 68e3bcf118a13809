package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Token is what a machine needs to enrol: where the controllers are, how to know them, and a secret that allows it.
// Role, site, labels, uses and expiry are not in it: the controller keeps them beside the hash of the secret.
type Token struct {
	URLs   []string // https://HOST:PORT of each controller
	Pin    [32]byte // fingerprint of the CA's key
	Secret [20]byte // random; the controller stores only its hash
}

// NewToken makes a token with a fresh secret.
func NewToken(urls []string, pin [32]byte) Token {
	t := Token{URLs: urls, Pin: pin}
	rand.Read(t.Secret[:])
	return t
}

// The written form: "loom1." + base64url(JSON) + "." + base64url(first 4 bytes of SHA-256 over the part before).
const tokenPrefix = "loom1."

type tokenJSON struct {
	URLs   []string `json:"u"`
	Pin    []byte   `json:"p"`
	Secret []byte   `json:"s"`
}

func (t Token) String() string {
	body, err := json.Marshal(tokenJSON{t.URLs, t.Pin[:], t.Secret[:]})
	if err != nil {
		panic("identity: a token that cannot be encoded: " + err.Error())
	}
	s := tokenPrefix + base64.RawURLEncoding.EncodeToString(body)
	return s + "." + tokenCheck(s)
}

func tokenCheck(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.RawURLEncoding.EncodeToString(sum[:4])
}

// Errors of ParseToken.
var (
	errTokenForm  = errors.New("this is not an Etherloom token: it must begin with \"" + tokenPrefix + "\"")
	errTokenCheck = errors.New("the token is damaged: copy it again, whole, or make a new one with `etherloom token create`")
)

// ParseToken reads what String wrote, and tells a token that was cut or changed from one that is none.
func ParseToken(s string) (Token, error) {
	s = strings.TrimSpace(s)
	if !strings.HasPrefix(s, tokenPrefix) {
		return Token{}, errTokenForm
	}
	dot := strings.LastIndexByte(s, '.')
	if dot < len(tokenPrefix) || s[dot+1:] != tokenCheck(s[:dot]) {
		return Token{}, errTokenCheck
	}
	body, err := base64.RawURLEncoding.DecodeString(s[len(tokenPrefix):dot])
	if err != nil {
		return Token{}, errTokenCheck
	}
	var j tokenJSON
	if err := json.Unmarshal(body, &j); err != nil {
		return Token{}, errTokenCheck
	}
	t := Token{URLs: j.URLs}
	if len(j.Pin) != len(t.Pin) || len(j.Secret) != len(t.Secret) || len(j.URLs) == 0 {
		return Token{}, errTokenCheck
	}
	copy(t.Pin[:], j.Pin)
	copy(t.Secret[:], j.Secret)
	for _, u := range t.URLs {
		if err := CheckControllerURL(u); err != nil {
			return Token{}, fmt.Errorf("token: %w", err)
		}
	}
	return t, nil
}

// CheckControllerURL reports whether u is https://HOST[:PORT] and nothing more.
func CheckControllerURL(u string) error {
	p, err := url.Parse(u)
	if err != nil || p.Scheme != "https" || p.Hostname() == "" || p.User != nil ||
		strings.Trim(p.Path, "/") != "" || p.RawQuery != "" || p.Fragment != "" {
		return fmt.Errorf("controller address %q is not https://HOST:PORT", u)
	}
	return nil
}

// HashSecret is what the controller stores of a token's secret: it is random, so a plain hash is enough.
func HashSecret(secret []byte) [32]byte {
	return sha256.Sum256(append([]byte("etherloom token v1\x00"), secret...))
}
