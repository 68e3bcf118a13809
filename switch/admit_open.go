//go:build openswitch

package vswitch

import "github.com/etherloom/etherloom/policy"

// This file makes a switch that judges nothing, so that a benchmark can say what judging costs, and so that a test has a node
// that sends what it likes, whose peers must refuse it. It is never shipped: only scripts/bench.sh and internal/e2e ask for its
// build tag, and internal/arch checks that nothing else does.

// admit lets every frame in.
func (l *layout) admit(*carriage, Tag) Drop { return Forwarded }

// seek lets every question go on.
func (l *layout) seek(*policy.Passage, [16]byte) (policy.Identity, policy.Verdict) {
	return 0, policy.Pass
}

// mayHave lets every receiver have every frame, and always names grant 1: the true one of a node that was granted first, and a
// forged one of any other.
func (l *layout) mayHave(*policy.Passage, policy.Identity) (policy.GrantID, policy.Verdict) {
	return 1, policy.Pass
}
