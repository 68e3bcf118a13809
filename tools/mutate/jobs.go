package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"
)

// job is one mutation and what became of it.
type job struct {
	mutation
	target  target
	allowed string // why no test can notice; empty if one must
	outcome outcome
}

func (j *job) where() string {
	return fmt.Sprintf("%s:%d %s", j.file, j.line, j.name[len(j.file)+1:])
}

// collect makes every mutation there is.
func collect(root string) ([]*job, error) {
	var jobs []*job
	excused := allowed()
	for _, t := range targets() {
		for _, name := range t.files {
			file := path.Join(t.dir, name)
			source, err := os.ReadFile(filepath.Join(root, file))
			if err != nil {
				return nil, err
			}
			list, err := find(file, source, elsewhere(), reversed())
			if err != nil {
				return nil, err
			}
			for _, m := range list {
				jobs = append(jobs, &job{mutation: m, target: t, allowed: excused[m.name]})
				delete(excused, m.name)
			}
		}
	}
	for name := range excused {
		return nil, fmt.Errorf("the table of what no test can notice names %q, which is no mutation", name)
	}
	return jobs, nil
}

// runAll runs the jobs, so many at a time, and prints each as it ends.
func runAll(ctx context.Context, r *runner, jobs []*job, workers int) error {
	if err := sound(ctx, r, jobs); err != nil {
		return err
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards done, errs and the terminal
		done  int
		errs  []error
		queue = make(chan *job)
	)
	for range workers {
		wg.Go(func() {
			for j := range queue {
				start := time.Now()
				err := j.run(ctx, r)
				mu.Lock()
				if done++; err != nil {
					errs = append(errs, err)
				} else {
					fmt.Printf("%3d/%d %s\n        %s (%.1f s)\n", done, len(jobs), j.where(), j.became(), time.Since(start).Seconds())
				}
				mu.Unlock()
			}
		})
	}
	for _, j := range jobs {
		if ctx.Err() != nil {
			break
		}
		queue <- j
	}
	close(queue)
	wg.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

// sound checks that the tests pass as long as nothing is changed; if they do not, their failing says nothing.
func sound(ctx context.Context, r *runner, jobs []*job) error {
	seen := make(map[string]bool)
	for _, j := range jobs {
		if seen[j.target.dir] {
			continue
		}
		seen[j.target.dir] = true
		o, err := r.test(ctx, j.target, nil)
		if err != nil {
			return err
		}
		if o != (outcome{}) {
			return fmt.Errorf("the tests of %s fail without a mutation: %s%s %s", j.target.dir, o.killer, o.broken, o.detail)
		}
	}
	return nil
}

func (j *job) run(ctx context.Context, r *runner) error {
	var err error
	// Tests that do not end may have been held up by the machine, so they have a second chance.
	for range 2 {
		if j.outcome, err = r.test(ctx, j.target, &j.mutation); err != nil || !j.outcome.slow {
			return err
		}
	}
	return nil
}

// fine says whether the outcome is the one that the mutation must have.
func (j *job) fine() bool {
	return (j.outcome.killer != "") == (j.allowed == "") && j.outcome.broken == ""
}

func (j *job) became() string {
	o := j.outcome
	switch {
	case o.broken != "":
		return "NO ANSWER: " + o.broken
	case o.killer != "" && j.allowed != "":
		return "KILLED by " + o.killer + ", although the table says that no test can notice"
	case o.killer != "":
		return fmt.Sprintf("killed by %s: %.120s", o.killer, o.detail)
	case j.allowed != "":
		return "allowed: " + j.allowed
	default:
		return "SURVIVED"
	}
}
