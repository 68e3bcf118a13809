package cputime

import (
	"testing"
	"time"
)

// To compute counts, and to wait does not.
func TestTook(t *testing.T) {
	const long = 50 * time.Millisecond
	if d := Took(func() { time.Sleep(long) }); d >= long/2 {
		t.Errorf("to sleep for %v took %v", long, d)
	}
	began := time.Now()
	spun := Took(func() {
		for start := clock(); clock()-start < long; {
		}
	})
	if spun < long || spun > time.Since(began)+time.Millisecond {
		t.Errorf("to compute for %v took %v", long, spun)
	}
}
