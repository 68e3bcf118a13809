//go:build openbench

package vswitch

import (
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// This file makes a switch that judges nothing, so that a benchmark can say what judging costs. It is never shipped: only
// scripts/bench.sh asks for its build tag, and internal/arch checks that nothing else does.

// admit lets every frame in.
func (l *layout) admit(*Port, *ether.Frame, Tag, time.Time) Drop { return Forwarded }

// mayHave lets every receiver have every frame, under a grant that nobody looks at.
func (l *layout) mayHave(policy.Identity, policy.Identity, time.Time) (policy.GrantID, policy.Verdict) {
	return 1, policy.Pass
}
