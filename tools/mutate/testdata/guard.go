package guard

type Verdict int

const (
	Pass Verdict = iota
	Short
	Long
	Odd
)

// check refuses most things; its tests notice every check but that of seven.
func check(n int, wide bool) Verdict {
	if n < 1 || n == 7 {
		return Short
	}
	if wide && even(n) {
		return Pass
	}
	switch n {
	case 20, 21:
		return Long
	}
	return Odd
}

func even(n int) bool { return n%2 == 0 }

// count judges nothing.
func count(n int) int {
	if n > 3 {
		return 3
	}
	return n
}
