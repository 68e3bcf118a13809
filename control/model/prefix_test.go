package model

import (
	"net/netip"
	"testing"
)

// The last address of a prefix is within it, whichever bits the prefix itself has.
func TestLastOf(t *testing.T) {
	for prefix, want := range map[string]string{
		"192.0.2.0/24": "192.0.2.255", "198.51.101.0/24": "198.51.101.255", "10.64.16.0/20": "10.64.31.255", "10.64.32.0/20": "10.64.47.255",
		"192.0.2.4/30": "192.0.2.7", "10.0.0.0/8": "10.255.255.255",
	} {
		if got := lastOf(netip.MustParsePrefix(prefix)); got.String() != want {
			t.Errorf("of %s it is %s, want %s", prefix, got, want)
		}
	}
}
