//go:build openswitch

package vswitch

import "github.com/etherloom/etherloom/policy"

// This file makes a switch that judges nothing, so that a benchmark can say what judging costs, and so that a test has a node
// that sends what it likes, whose peers must refuse it. It is never shipped: only scripts/bench.sh and internal/e2e ask for its
// build tag, and internal/arch checks that nothing else does.

// admit lets every frame in.
func (l *layout) admit(c *carriage) Drop {
	if c.in.Kind != Link {
		c.Source = c.in.Identity
	}
	return Forwarded
}

// seek lets every question go on.
func (l *layout) seek(*policy.Passage, [16]byte) (policy.Identity, policy.Verdict) {
	return 0, policy.Pass
}

// meter counts nothing.
func (l *layout) meter(*carriage) Drop { return Forwarded }

// byItself is true where nothing is judged.
func (l *layout) byItself(*carriage, policy.Identity) bool { return true }

// everybodyHears is of no interest where everybody hears everything.
func (l *layout) everybodyHears(*carriage, *Port) bool { return false }

// mayHave lets every receiver have every frame, and always names grant 1: the true one of a node that was granted first, and a
// forged one of any other.
func (l *layout) mayHave(*carriage, policy.Identity) (policy.GrantID, policy.Verdict) {
	return 1, policy.Pass
}
