package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	v1 "github.com/etherloom/etherloom/control/controlv1"
)

func TestCounted(t *testing.T) {
	for n, want := range map[int]string{0: "0 entries", 1: "1 entry", 2: "2 entries"} {
		if got := counted(n, "entry", "entries"); got != want {
			t.Errorf("found %q, want %q", got, want)
		}
	}
}

func TestPrintTests(t *testing.T) {
	passed := &v1.PolicyTest{Outcome: v1.PolicyOutcome_POLICY_OUTCOME_PASSED}
	failed := &v1.PolicyTest{Outcome: v1.PolicyOutcome_POLICY_OUTCOME_FAILED, Line: 3, Allow: true, Test: "a to b on lan: icmp", Found: "denied"}
	for want, tests := range map[string][]*v1.PolicyTest{
		"1 test: 1 passed, 0 failed, 0 void\n": {passed},
		"FAILED line 3: a to b on lan: icmp: expected allow, denied\n2 tests: 1 passed, 1 failed, 0 void\n": {passed, failed},
	} {
		var out bytes.Buffer
		cmd := new(cobra.Command)
		cmd.SetOut(&out)
		if err := printTests(cmd, tests); err != nil || strings.TrimSpace(out.String()) != strings.TrimSpace(want) {
			t.Errorf("found %q, %v; want %q", out.String(), err, want)
		}
	}
}
