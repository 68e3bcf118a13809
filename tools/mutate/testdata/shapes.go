// Package shapes has conditions inside conditions, and some that begin or end at one place.
package shapes

import (
	"errors"
	"fmt"
	"strings"
)

type kind uint16

type frame struct {
	a, b, c bool
	n       kind
}

func both(f frame) bool {
	if f.a || f.b && (f.n == 2 || !(f.c && f.n >= 2)) {
		return true
	}
	return !f.b && f.c
}

func inside(f frame) error {
	if f.a {
		if f.b && f.c {
			return errors.New("inside")
		} else if f.n == 1 {
			return errors.New("else")
		}
	}
	switch {
	case f.n == 2 && f.b, f.c:
		return errors.New("case")
	}
	return nil
}

func values(f frame) bool {
	switch k := f.n + 1; k {
	case 1, 4:
		return f.a
	case 2, 1 + 2, 5:
		switch f.n {
		case 1, 2:
			return f.b
		default:
			return !f.b
		}
	default:
		return false
	}
}

func early(f frame, out *strings.Builder) {
	if f.a {
		out.WriteString("early ")
		return
	}
	if f.b || f.c {
		out.WriteString("done ")
	}
}

func last(f frame) (int, bool) {
	if f.n == 0 {
		return 1, true
	}
	return int(f.n), false
}

func never(f frame) bool { return f.a && f.b }

// Say is what each function but the last says of each input.
func Say() string {
	var out strings.Builder
	for i := range 48 {
		f := frame{i&1 != 0, i&2 != 0, i&4 != 0, kind(i >> 3)}
		early(f, &out)
		n, ok := last(f)
		fmt.Fprintln(&out, i, both(f), inside(f), values(f), n, ok)
	}
	return out.String()
}
