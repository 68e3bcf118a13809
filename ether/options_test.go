package ether

import (
	"slices"
	"testing"
)

// Of options of other kinds than link-layer addresses there may be any number (RFC 4861 section 4.6), whatever kind they are of.
func TestNDOtherOptions(t *testing.T) {
	head := append([]byte{NeighborSolicitation}, make([]byte, 23)...)
	mac := []byte{1, 1, 2, 0, 0, 0, 0, 1}
	for _, kind := range []byte{0, 3, 5, 14, 255} {
		option := []byte{kind, 1, 0, 0, 0, 0, 0, 0}
		nd, is, ok := ParseND(slices.Concat(head, option, mac, option))
		if !is || !ok || nd.SourceMAC != MAC(mac[2:]) {
			t.Errorf("two of kind %d: ParseND = %+v, %v, %v", kind, nd, is, ok)
		}
	}
}
