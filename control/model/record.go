package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Duration is a time.Duration that is written as text, such as "24h0m0s".
type Duration time.Duration

// MarshalText writes the duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads it.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// MAC is a station's MAC address.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText writes the address with colons.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads it.
func (m *MAC) UnmarshalText(b []byte) error {
	a, err := net.ParseMAC(string(b))
	if err != nil || len(a) != len(m) {
		return fmt.Errorf("%q is not a MAC address", b)
	}
	copy(m[:], a)
	return nil
}

// ErrUnknownFact means that a key is of a kind that this program does not know: a newer one wrote it.
var ErrUnknownFact = errors.New("fact of an unknown kind")

// Encode writes a fact as it is stored.
func Encode(f Fact) ([]byte, error) {
	b, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", f.Key(), err)
	}
	return b, nil
}

// Decode reads a stored fact and checks that it is well-formed and in its place.
func Decode(key string, value []byte) (Fact, error) {
	f := blank(key)
	if f == nil {
		return nil, fmt.Errorf("%w: %q", ErrUnknownFact, key)
	}
	if err := json.Unmarshal(value, f); err != nil {
		return nil, fmt.Errorf("stored fact %q cannot be read: %w", key, err)
	}
	if f.Key() != key {
		return nil, fmt.Errorf("stored fact %q holds %s", key, f.Key())
	}
	if err := checkSizes(f); err != nil {
		return nil, fmt.Errorf("stored fact %q: %w", key, err)
	}
	return f, nil
}

func blank(key string) Fact {
	kind, _, _ := strings.Cut(key, "/")
	switch kind {
	case "authority":
		return new(Authority)
	case "settings":
		return new(Settings)
	case "counters":
		return new(Counters)
	case "head":
		return new(Head)
	case "controller":
		return new(Controller)
	case "admin":
		return new(Admin)
	case "token":
		return new(Token)
	case "node":
		return new(Node)
	case "segment":
		return new(Segment)
	case "relay":
		return new(Relay)
	case "attachment":
		return new(Attachment)
	case "host":
		return new(Host)
	case "dhcp":
		return new(DHCP)
	case "lease":
		return new(Lease)
	}
	return blankPolicy(kind)
}

// blankPolicy is for what says who may do what.
func blankPolicy(kind string) Fact {
	switch kind {
	case "grant":
		return new(Grant)
	case "used":
		return new(Used)
	case "group":
		return new(Group)
	case "lock":
		return new(Lock)
	case "verdict":
		return new(Verdict)
	case "tests":
		return new(Tests)
	case "pending":
		return new(Pending)
	}
	return nil
}

// checkSizes holds fixed-size fields against their sizes, so that the code need not doubt them.
func checkSizes(f Fact) error {
	var fields [][]byte
	switch f := f.(type) {
	case *Head:
		fields = [][]byte{f.Hash}
	case *Controller:
		fields = [][]byte{f.Sign}
	case *Admin:
		fields = [][]byte{f.Sign}
	case *Token:
		fields = [][]byte{f.Hash}
	case *Node:
		fields = [][]byte{f.Sign, f.Static}
	}
	for _, b := range fields {
		if len(b) != 32 {
			return fmt.Errorf("a key or hash has %d bytes, expected 32", len(b))
		}
	}
	return nil
}

// Public returns what may be shown of a fact: the fact itself, or a copy without what is secret or no use to a reader.
func Public(f Fact) any {
	switch f := f.(type) {
	case *Authority:
		return &Authority{Certificate: f.Certificate}
	case *Relay:
		c := *f
		c.Wrapped = nil
		return &c
	case *Token:
		c := *f
		c.Hash = nil
		return &c
	}
	return f
}
