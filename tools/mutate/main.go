// Mutate deletes, one at a time, the checks that decide whether a frame or a datagram goes on, and shows that a test
// fails for each.
//
// What it deletes it finds in the syntax tree, in the files that targets names. A place where something is refused is a
// return of a Drop, a Verdict, an error or a false, a return without a value from a function that has none, or a receiver
// that is passed over. From each, these mutations are made:
//
//	if the condition before a refusal       never holds
//	if the condition before an acceptance   always holds; so does a condition that is returned
//	each operand of a disjunction           never holds
//	each operand of a conjunction           always holds
//	each value of a case                    is left out
//	a refusal without a condition           lets pass
//
// A changed file is given to the compiler in place of the true one (go test -overlay), so the tree is never touched. The
// tests of its package run over it: one that fails has killed the mutation. A mutation that survives is a check that
// nobody would miss, and makes mutate fail; so does one that a test kills although the table of those that none can
// notice names it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("mutate", flag.ContinueOnError)
	list := flags.Bool("list", false, "print the mutations and run nothing")
	which := flags.String("run", "", "only mutations whose `file function: change` matches this regular expression")
	workers := flags.Int("p", 1, "how many run at a time")
	timeout := flags.Duration("timeout", 30*time.Second, "how long the tests of one mutation may take")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	chosen, err := regexp.Compile(*which)
	if err != nil {
		return err
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	jobs, err := collect(root)
	if err != nil {
		return err
	}
	var todo []*job
	for _, j := range jobs {
		if chosen.MatchString(j.name) {
			todo = append(todo, j)
		}
	}
	if len(todo) == 0 {
		return fmt.Errorf("no mutation matches %q", *which)
	}
	if *list {
		for _, j := range todo {
			fmt.Println(j.where())
		}
		return nil
	}
	r := &runner{root: root, timeout: *timeout}
	if err := runAll(ctx, r, todo, max(1, *workers)); err != nil {
		return err
	}
	return report(todo)
}

// moduleRoot is the directory of the go.mod that rules here.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}
