// Mutate deletes, one at a time, the checks that decide whether a frame or a datagram goes on, and shows that a test
// fails for each.
//
// What it deletes it finds in the syntax tree, in the files that targets names. A place where something is refused is a
// return of a Drop, a Verdict, an error or a false, a return without a value from a function that has none, or a receiver
// that is passed over. From each, these mutations are made:
//
//	if the condition before a refusal       never holds
//	if the condition before an acceptance   always holds; so does a condition that is returned
//	if in a function that says yes or no    never and always holds, for either may be what refuses
//	each operand of a disjunction           never holds
//	each operand of a conjunction           always holds
//	each value of a case                    is left out
//	a refusal without a condition           lets pass
//
// All mutations of a package are compiled at once into its tests, each behind a switch (schema.go); the files stand in for
// the true ones (go test -overlay), so the tree is never touched. First each test runs alone with no switch on, and what it
// reaches is written down (survey.go). Then each mutation's switch is turned on for the tests that reach it (verdict.go). A
// test that fails, and fails again, has killed the mutation; so has one that does not end. What nothing kills so is compiled
// by itself and asked of all the package's tests (run.go) before it has survived. With -check N, every Nth is compiled by
// itself anyway, and must end the same.
//
// A mutation that survives is a check that nobody would miss, and makes mutate fail; so does one that a test kills although
// the table of those that none can notice names it.
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
	every := flags.Int("check", 0, "of every so many mutations, compile and run one by itself too; it must end the same")
	quick := flags.Bool("quick", false, "do not compile what survives by itself to ask all tests again")
	timeout := flags.Duration("timeout", 30*time.Second, "how long one test may take while nothing is changed; over a mutation it has many times what it took then")
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
	r := &runner{root: root, timeout: *timeout, quick: *quick}
	if err := runAll(ctx, r, todo, max(1, *workers), *every); err != nil {
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
