package main

import (
	"fmt"
	"os"
	"text/tabwriter"
)

// count is a line of the summary.
type count struct{ all, killed, allowed, bad int }

// report prints what survived and the summary, and returns an error if anything is not as it must be.
func report(jobs []*job) error {
	var names []string
	counts := make(map[string]*count)
	total := &count{}
	for _, j := range jobs {
		c := counts[j.target.dir]
		if c == nil {
			c = &count{}
			counts[j.target.dir], names = c, append(names, j.target.dir)
		}
		for _, c := range []*count{c, total} {
			c.add(j)
		}
		if !j.fine() {
			fmt.Printf("\n%s\n    %s\n    %s\n", j.where(), j.became(), j.hint())
		}
	}
	counts["all"], names = total, append(names, "all")
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "package\tmutations\tkilled\tallowed\tsurvived\t")
	for _, name := range names {
		c := counts[name]
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t\n", name, c.all, c.killed, c.allowed, c.bad)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if total.bad > 0 {
		return fmt.Errorf("%d of %d checks can be deleted without any test failing for it", total.bad, total.all)
	}
	return nil
}

func (c *count) add(j *job) {
	c.all++
	switch {
	case !j.fine():
		c.bad++
	case j.allowed != "":
		c.allowed++
	default:
		c.killed++
	}
}

// hint says what to do about a mutation that is not as it must be.
func (j *job) hint() string {
	switch {
	case j.outcome.broken != "":
		return "the mutation must compile, and a test must be named: see tools/mutate/edit.go"
	case j.allowed != "":
		return "take it out of allowed, in tools/mutate/targets.go"
	default:
		return fmt.Sprintf("add a row to a test of %s that only this check refuses, or lets pass", j.target.dir)
	}
}
