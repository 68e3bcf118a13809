package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

// judge turns one switch on and runs the tests that reach it, a few fast ones first.
func (b *binary) judge(ctx context.Context, j *job) (outcome, error) {
	rest := b.reaching(j)
	for budget := 50 * time.Millisecond; len(rest) > 0; budget *= 4 {
		n, takes := 1, rest[0].takes
		for n < len(rest) && takes+rest[n].takes <= budget {
			takes += rest[n].takes
			n++
		}
		if o, err := b.try(ctx, j.number, rest[:n]); err != nil || o != (outcome{}) {
			b.remember(j, o.killer)
			return o, err
		}
		rest = rest[n:]
	}
	return outcome{}, nil
}

// try runs tests with a switch on. A test that fails has noticed only if it fails again: the machine may have held it up, or
// it may draw its cases by lot.
func (b *binary) try(ctx context.Context, on int, tests []*test) (outcome, error) {
	takes := make(map[string]time.Duration)
	for _, t := range tests {
		takes[t.name] = t.takes
	}
	for len(takes) > 0 {
		o, err := b.with(ctx, on, takes)
		if err != nil || o == (outcome{}) {
			return o, err
		}
		name, _, _ := strings.Cut(o.killer, "/")
		again := map[string]time.Duration{name: takes[name]}
		if _, ran := takes[name]; !ran {
			again = takes // nothing that can be told apart
		}
		if o, err = b.with(ctx, on, again); err != nil || o != (outcome{}) {
			return o, err
		}
		for name := range again {
			delete(takes, name)
		}
	}
	return outcome{}, nil
}

// with runs tests once.
func (b *binary) with(ctx context.Context, on int, takes map[string]time.Duration) (outcome, error) {
	var sum time.Duration
	for _, d := range takes {
		sum += d
	}
	return b.run(ctx, slices.Sorted(maps.Keys(takes)), on, "", limit(sum))
}

// limit is how long tests may take that took so long with no switch on: many times that, so that one that does not end is told
// from a machine that is busy.
func limit(takes time.Duration) time.Duration { return 5*time.Second + 20*takes }

// alone runs all tests of the package over a job that is compiled by itself.
func (b *binary) alone(ctx context.Context, j *job) (outcome, error) {
	r := *b.runner
	for _, t := range b.tests {
		r.timeout += 20 * t.takes
	}
	return r.alone(ctx, j.target, &j.mutation)
}

// certain calls a run again that has killed, for the same reason.
func certain(run func() (outcome, error)) (outcome, error) {
	o, err := run()
	if err != nil || o.killer == "" {
		return o, err
	}
	return run()
}

// reaching lists the tests that reach a mutation: those first that noticed others in its function, then the fastest.
func (b *binary) reaching(j *job) []*test {
	var list []*test
	for _, t := range b.tests {
		if t.reaches[j.number] {
			list = append(list, t)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	last := b.noticed[j.file+j.fn]
	slices.SortFunc(list, func(x, y *test) int {
		switch {
		case x.name == last:
			return -1
		case y.name == last:
			return 1
		default:
			return int(x.takes - y.takes)
		}
	})
	return list
}

// remember keeps which test has noticed a mutation in a function.
func (b *binary) remember(j *job, killer string) {
	name, _, _ := strings.Cut(killer, "/")
	b.mu.Lock()
	defer b.mu.Unlock()
	b.noticed[j.file+j.fn] = name
}
