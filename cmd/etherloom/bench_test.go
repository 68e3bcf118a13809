package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/internal/bench"
)

func TestFigure(t *testing.T) {
	for _, c := range []struct {
		v    float64
		want string
	}{
		{0, "0 x"},
		{0.012345, "0.0123 x"},
		{1.997, "2.00 x"},
		{42.42, "42.4 x"},
		{711.6, "712 x"},
		{999.9, "1000 x"},
		{12152.3, "12200 x"},
		{1234567, "1230000 x"},
	} {
		if got := figure(c.v, "x"); got != c.want {
			t.Errorf("%v: %q, want %q", c.v, got, c.want)
		}
	}
}

// Every figure of the result is on the screen, and so is why there are none over a network.
func TestShowBench(t *testing.T) {
	r := bench.Result{
		Processor: "Abacus", Cores: 3, Suite: "AES-256-GCM",
		Ciphers: []bench.Cipher{{Suite: "AES-256-GCM", SealNS: 101, OpenNS: 102, SealGB: 1.03, OpenGB: 1.04}},
		Frames:  []bench.Frames{{Bytes: 64, Out: 105, In: 106, Both: 107}},
		Stream:  bench.Stream{Out: 108, In: 109, Both: 110, Estimate: 111},
		Network: &bench.Network{Stream: 112, Datagrams: 113},
	}
	show := func() string {
		cmd, out := benchCommand(), new(bytes.Buffer)
		cmd.SetOut(out)
		if err := showBench(cmd, r); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	out := show()
	for _, want := range []string{
		"Abacus", "101 ns", "102 ns", "1.03 GB/s", "1.04 GB/s", "105 /s", "106 /s", "107 /s", "108 Mbit/s", "109 Mbit/s",
		"110 Mbit/s", "111 Mbit/s", "112 Mbit/s", "113 /s", "3 cores",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	r.Network, r.NoNetwork = nil, "it needs root"
	if out := show(); !strings.Contains(out, "it needs root") || strings.Contains(out, "ARRIVED") {
		t.Errorf("without a network:\n%s", out)
	}
}

// A measurement has bounds.
func TestBenchSeconds(t *testing.T) {
	for _, s := range []string{"0", "-1", "61", "much"} {
		cmd := root()
		cmd.SetArgs([]string{"bench", "--seconds", s})
		cmd.SetOut(new(bytes.Buffer))
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), "seconds") {
			t.Errorf("--seconds %s: %v", s, err)
		}
	}
}
