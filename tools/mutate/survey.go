package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// test is a test of a binary, as it is while no switch is on.
type test struct {
	name    string
	takes   time.Duration
	reaches []bool // by number
}

// survey runs each test by itself with no switch on. What it does not reach, it cannot notice. A test that fails although
// nothing is changed says nothing: it is left out if the switches themselves are what it notices, by what they cost.
func (b *binary) survey(ctx context.Context, mutations, workers int) error {
	names, err := b.list(ctx)
	if err != nil {
		return err
	}
	var mu sync.Mutex // guards the binary
	return each(ctx, names, workers, func(name string) error {
		t := &test{name: name, reaches: make([]bool, mutations+1)}
		reached := filepath.Join(filepath.Dir(b.path), name)
		start := time.Now()
		o, err := b.run(ctx, []string{name}, 0, reached, b.runner.timeout)
		if err != nil {
			return err
		}
		t.takes = time.Since(start)
		left := false
		if o != (outcome{}) {
			if left, err = b.disturbed(ctx, name); err != nil {
				return err
			}
		}
		if err := t.read(reached); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if left {
			b.left = append(b.left, name)
		} else {
			b.tests = append(b.tests, t)
		}
		return nil
	})
}

// disturbed says whether a test that has just failed with no switch on fails by the switches; it is an error if it fails
// without them too.
func (b *binary) disturbed(ctx context.Context, name string) (bool, error) {
	o, err := b.run(ctx, []string{name}, 0, "", b.runner.timeout)
	if err != nil || o == (outcome{}) {
		return false, err
	}
	t := b.target
	t.tests = "^" + name + "$"
	if o, err = b.runner.alone(ctx, t, nil); err != nil {
		return false, err
	} else if o != (outcome{}) {
		return false, fmt.Errorf("the tests of %s fail without a mutation: %s%s %s", t.dir, o.killer, o.broken, o.detail)
	}
	return true, nil
}

// read takes what the test reached from the file that the binary has written, if it reached anything.
func (t *test) read(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, line := range strings.Fields(string(text)) {
		n, err := strconv.Atoi(line)
		if err != nil || n < 1 || n >= len(t.reaches) {
			return fmt.Errorf("%s reached mutation %q, of %d", t.name, line, len(t.reaches)-1)
		}
		t.reaches[n] = true
	}
	return nil
}

// each calls do with every value, so many at a time, until one is an error.
func each[T any](ctx context.Context, values []T, workers int, do func(T) error) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards errs
		errs  []error
		queue = make(chan T)
	)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range workers {
		wg.Go(func() {
			for v := range queue {
				if err := do(v); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
					cancel()
				}
			}
		})
	}
	for _, v := range values {
		if ctx.Err() != nil {
			break
		}
		queue <- v
	}
	close(queue)
	wg.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}
