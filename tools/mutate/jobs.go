package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// job is one mutation and what became of it.
type job struct {
	mutation
	target  target
	number  int    // of its switch
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
			list, err := find(file, source, elsewhere())
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

// runAll runs the jobs, so many at a time, and prints each as it ends. Of every so many, one is also run by itself, compiled
// for it alone, and must end as it did among the others; 0 is none.
func runAll(ctx context.Context, r *runner, jobs []*job, workers, every int) error {
	if err := r.findConverter(ctx); err != nil {
		return err
	}
	for first, n := 0, 0; first < len(jobs); first += n {
		of := jobs[first].target
		n = 1
		for first+n < len(jobs) && jobs[first+n].target.dir == of.dir {
			n++
		}
		if err := runTarget(ctx, r, jobs[first:first+n], workers, every); err != nil {
			return err
		}
	}
	return nil
}

// runTarget runs the jobs of one target.
func runTarget(ctx context.Context, r *runner, jobs []*job, workers, every int) error {
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // the system empties it one day
	start := time.Now()
	b, err := r.build(ctx, dir, jobs[0].target, jobs)
	if err != nil {
		return err
	}
	if err := b.survey(ctx, len(jobs), workers); err != nil {
		return err
	}
	fmt.Printf("%s: %d mutations, %d tests (%.0f s)\n", b.target.dir, len(jobs), len(b.tests), time.Since(start).Seconds())
	if len(b.left) > 0 {
		fmt.Printf("%s: noticed the switches themselves, run only over what else survives: %s\n", b.target.dir, strings.Join(b.left, " "))
	}
	var mu sync.Mutex // guards done and the terminal
	done := 0
	return each(ctx, jobs, workers, func(j *job) error {
		start := time.Now()
		if err := j.run(ctx, b); err != nil {
			return err
		}
		took := time.Since(start).Seconds()
		if every > 0 && j.number%every == 0 {
			if err := j.compare(ctx, b); err != nil {
				return err
			}
		}
		mu.Lock()
		defer mu.Unlock()
		done++
		fmt.Printf("%3d/%d %s\n        %s (%.1f s)\n", done, len(jobs), j.where(), j.became(), took)
		return nil
	})
}

// run runs the job among the others, and by itself if nothing notices it so: only what survives both has survived. What the
// table says that none can notice is not asked twice.
func (j *job) run(ctx context.Context, b *binary) error {
	var err error
	if j.outcome, err = b.judge(ctx, j); err != nil || j.outcome.killer != "" || j.allowed != "" || b.runner.quick {
		return err
	}
	j.outcome, err = certain(func() (outcome, error) { return b.alone(ctx, j) })
	return err
}

// compare runs the job by itself, and says in its outcome if it ends otherwise.
func (j *job) compare(ctx context.Context, b *binary) error {
	o, err := certain(func() (outcome, error) { return b.alone(ctx, j) })
	if err == nil && (o.killer == "") != (j.outcome.killer == "") {
		j.outcome.broken = fmt.Sprintf("killed by %q behind a switch, and by %q when compiled alone", j.outcome.killer, o.killer)
	}
	return err
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
