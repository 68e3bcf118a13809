//go:build openswitch

package vswitch

import (
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// This file makes a switch that judges nothing, so that a benchmark can say what judging costs, and so that a test has a node
// that sends what it likes, whose peers must refuse it. It is never shipped: only scripts/bench.sh and internal/e2e ask for its
// build tag, and internal/arch checks that nothing else does.

// admit lets every frame in.
func (l *layout) admit(*Port, *ether.Frame, ether.Offload, Tag, time.Time, bool) Drop {
	return Forwarded
}

// mayHave lets every receiver have every frame, and always names grant 1: the true one of a node that was granted first, and a
// forged one of any other.
func (l *layout) mayHave(policy.Identity, policy.Identity, time.Time) (policy.GrantID, policy.Verdict) {
	return 1, policy.Pass
}
