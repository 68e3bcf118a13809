package identity

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestTURNVector pins the form of credentials: relays and controllers of different versions must agree.
func TestTURNVector(t *testing.T) {
	var s RelaySecret
	for i := range s {
		s[i] = byte(i)
	}
	user, password := s.Credential(7, time.Unix(1_800_000_000, 0))
	if user != "7.1800000000" || password != "rQjnWGv3X9v4pzKmJfuU5Q6GPS_nsLCPcICHkBSq-jA" {
		t.Errorf("credential is %s %s", user, password)
	}
}

func TestTURNCheck(t *testing.T) {
	s, now := RelaySecret{1}, time.Unix(1000, 0)
	user, password := s.Credential(65535, now.Add(time.Minute))
	slot, got, err := s.Check(user, now)
	if err != nil || slot != 65535 || got != password {
		t.Errorf("Check(%q) = %d, %q, %v", user, slot, got, err)
	}
	if _, other, _ := (RelaySecret{2}).Check(user, now); other == password {
		t.Error("another relay's secret gives the same password")
	}
	for _, c := range []struct {
		name, user string
		want       error
	}{
		{"expired", "1.1000", ErrTURNExpired},
		{"long expired", "1.-5", ErrTURNExpired},
		{"empty", "", ErrTURNName},
		{"no expiry", "1", ErrTURNName},
		{"leading zero", "01.2000", ErrTURNName},
		{"plus", "+1.2000", ErrTURNName},
		{"slot too large", "4294967296.2000", ErrTURNName},
		{"third part", "1.2000.1", ErrTURNName},
		{"space", "1.2000 ", ErrTURNName},
	} {
		if _, pw, err := s.Check(c.user, now); !errors.Is(err, c.want) || pw != "" {
			t.Errorf("%s: Check(%q) = %q, %v, want %v", c.name, c.user, pw, err, c.want)
		}
	}
}

func FuzzTURNCheck(f *testing.F) {
	f.Add("7.1800000000")
	f.Add("-1.1")
	f.Fuzz(func(t *testing.T, user string) {
		s := RelaySecret{3}
		slot, password, err := s.Check(user, time.Unix(0, 0))
		if err != nil {
			return
		}
		// What is accepted is exactly what is minted.
		_, right, _ := strings.Cut(user, ".")
		expires, err := strconv.ParseInt(right, 10, 64)
		if err != nil {
			t.Fatalf("accepted %q, whose expiry is no number", user)
		}
		if u, p := s.Credential(slot, time.Unix(expires, 0)); u != user || p != password {
			t.Fatalf("accepted %q, minted %q", user, u)
		}
	})
}
