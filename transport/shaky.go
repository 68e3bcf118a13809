package transport

// A path may answer now and then, and lose what is sent in between: a radio link, or a line that comes and goes faster than it is taken
// for dead. It is used only if no other is better. Both bounds are apart, so that data does not go to and fro (hysteresis).
const (
	lossGain = 1. / 8  // weight of a probe (exponential smoothing, as of the RTT)
	shakyAt  = 1. / 4  // of probes lost: three in a row, or of the last six or so
	steadyAt = 1. / 16 // eleven to sixteen probes in a row without a loss
)

// quality is what the probes of a path say of how many get lost.
type quality struct {
	loss  float64 // smoothed, 0 to 1
	shaky bool    // it is better to use another
}

// note counts a probe, and reports whether the path has become shaky or steady by it.
func (q *quality) note(lost bool) (changed bool) {
	was, x := q.shaky, 0.
	if lost {
		x = 1
	}
	q.loss += (x - q.loss) * lossGain
	switch {
	case q.loss > shakyAt:
		q.shaky = true
	case q.loss < steadyAt:
		q.shaky = false
	}
	return q.shaky != was
}
