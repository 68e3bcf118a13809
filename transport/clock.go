package transport

import "time"

// monotone is a clock for ordering what this node says over its whole life, restarts included: nanoseconds that follow
// the wall clock but never go back. A ceiling that no value has passed is remembered on disk ahead of time; a process
// that finds the wall clock below the ceiling of the one before goes on from there.
type monotone struct {
	last    uint64
	ceiling uint64 // as remembered
}

// clockReserve is how far ahead the ceiling is set, so that it is written seldom.
const clockReserve = 10 * time.Minute

// next returns a value greater than every one before, and whether the ceiling has risen and must be remembered.
func (m *monotone) next(now time.Time) (value uint64, raised bool) {
	m.last = max(m.last+1, uint64(max(0, now.UnixNano())))
	if m.last >= m.ceiling {
		m.ceiling = m.last + uint64(clockReserve)
		raised = true
	}
	return m.last, raised
}

// resumeClock goes on from a remembered ceiling.
func resumeClock(ceiling uint64) monotone { return monotone{last: ceiling, ceiling: ceiling} }
