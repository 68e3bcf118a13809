package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "github.com/etherloom/etherloom/control/controlv1"
	rpc "github.com/etherloom/etherloom/control/controlv1/controlv1connect"
)

func policyCommand(a *admin) *cobra.Command {
	cmd := group("policy", "The whole policy as one document: groups, grants, tests",
		policyShow(a), policyCheck(a), policyDiff(a), policyApply(a), policyConfirm(a), policyUndo(a), policyUnused(a))
	cmd.Example = "  etherloom policy show > policy.yaml      # then edit it\n" +
		"  etherloom policy diff policy.yaml\n" +
		"  etherloom policy apply policy.yaml --confirm 60s && etherloom policy confirm"
	return cmd
}

// readDocument reads a file, or standard input for "-".
func readDocument(cmd *cobra.Command, name string) (string, error) {
	var data []byte
	var err error
	if name == "-" {
		data, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), 16<<20))
	} else {
		data, err = os.ReadFile(name)
	}
	if err != nil {
		return "", fmt.Errorf("read the policy document: %w", err)
	}
	if len(data) == 0 {
		return "", fmt.Errorf("%s is empty: `etherloom policy show` prints a document to start from", name)
	}
	return string(data), nil
}

func policyShow(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Print the policy as YAML", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.GetPolicy, &v1.GetPolicyRequest{})
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error {
				if p := r.GetPending(); p != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "a change waits to be confirmed, and is taken back at %s otherwise\n", until(p.GetUntil().AsTime()))
				}
				_, err := fmt.Fprint(cmd.OutOrStdout(), r.GetDocument())
				return err
			})
		},
	}
}

func policyCheck(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "check [FILE]", Short: "Run the tests of a document, as if it were applied, or those of the policy there is",
		Long: "Run the tests of a document as if it were applied, or without FILE those of the policy there is.\n\n" +
			"FILE may be - for standard input. The exit code is 1 if a test fails. A test is void, and fails nothing, while no two active\n" +
			"nodes are there that it is about.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &v1.CheckPolicyRequest{}
			if len(args) > 0 {
				var err error
				if req.Document, err = readDocument(cmd, args[0]); err != nil {
					return err
				}
			}
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.CheckPolicy, req)
			if err != nil {
				return err
			}
			failed := 0
			for _, t := range r.GetTests() {
				if t.GetOutcome() == v1.PolicyOutcome_POLICY_OUTCOME_FAILED {
					failed++
				}
			}
			if err := a.show(cmd, r, func() error { return printTests(cmd, r.GetTests()) }); err != nil {
				return err
			}
			if failed > 0 {
				return errSilent // the tests were printed
			}
			return nil
		},
	}
}

// printTests prints what failed and what is void, and how many held.
func printTests(cmd *cobra.Command, tests []*v1.PolicyTest) error {
	counts := map[v1.PolicyOutcome]int{}
	for _, t := range tests {
		counts[t.GetOutcome()]++
		if t.GetOutcome() == v1.PolicyOutcome_POLICY_OUTCOME_PASSED {
			continue
		}
		word, expected := "void", ""
		if t.GetOutcome() == v1.PolicyOutcome_POLICY_OUTCOME_FAILED {
			word, expected = "FAILED", "expected deny, "
			if t.GetAllow() {
				expected = "expected allow, "
			}
		}
		where := ""
		if t.GetLine() > 0 {
			where = fmt.Sprintf(" line %d:", t.GetLine())
		}
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s%s %s: %s%s\n", word, where, t.GetTest(), expected, t.GetFound()); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %d passed, %d failed, %d void\n", counted(len(tests), "test", "tests"), counts[v1.PolicyOutcome_POLICY_OUTCOME_PASSED],
		counts[v1.PolicyOutcome_POLICY_OUTCOME_FAILED], counts[v1.PolicyOutcome_POLICY_OUTCOME_VOID])
	return err
}

func policyDiff(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "diff FILE", Short: "Say what a document would change, and who would gain and lose what", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readDocument(cmd, args[0])
			if err != nil {
				return err
			}
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.CheckPolicy, &v1.CheckPolicyRequest{Document: text})
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error {
				if _, err := fmt.Fprint(cmd.OutOrStdout(), r.GetDifference().GetText()); err != nil {
					return err
				}
				if r.GetBasedOn() != r.GetVersion() && !r.GetDifference().GetEmpty() {
					fmt.Fprintf(cmd.ErrOrStderr(), "the policy is at version %d, the document is made from %d: `policy apply` wants `version: %d` in it\n",
						r.GetVersion(), r.GetBasedOn(), r.GetVersion())
				}
				return nil
			})
		},
	}
}

func policyApply(a *admin) *cobra.Command {
	req := new(v1.ApplyPolicyRequest)
	var confirm time.Duration
	cmd := &cobra.Command{
		Use: "apply FILE", Short: "Make the policy be what a document says", Args: cobra.ExactArgs(1),
		Long: "Make the policy be what a document says: groups, grants and tests that are not in it go. Segments stay.\n\n" +
			"It is refused if one of its tests fails, or if the policy is at another version than the document names. With --confirm it is\n" +
			"taken back after that time unless `policy confirm` comes first: so nobody locks himself out for good.",
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if req.Document, err = readDocument(cmd, args[0]); err != nil {
				return err
			}
			if cmd.Flags().Changed("confirm") {
				if confirm <= 0 {
					return errors.New("--confirm is a time such as 60s")
				}
				req.Confirm = durationpb.New(confirm)
			}
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.ApplyPolicy, req)
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error { return printApplied(cmd, r) })
		},
	}
	cmd.Flags().DurationVar(&confirm, "confirm", 0, "take it back after this time unless policy confirm comes first, such as 60s")
	cmd.Flags().BoolVar(&req.Force, "force", false, "apply it also if tests fail")
	cmd.Flags().BoolVar(&req.AnyVersion, "any-version", false, "apply it also if it is made from another version, or names none")
	return cmd
}

func printApplied(cmd *cobra.Command, r *v1.ApplyPolicyResponse) error {
	out := cmd.OutOrStdout()
	if _, err := fmt.Fprint(out, r.GetDifference().GetText()); err != nil || r.GetDifference().GetEmpty() {
		return err
	}
	if n := len(r.GetFailed()); n > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s of the policy failed: `etherloom policy check` shows more\n", counted(n, "test", "tests"))
	}
	if p := r.GetPending(); p != nil {
		_, err := fmt.Fprintf(out, "the policy is at version %d; it is taken back at %s unless you say `etherloom policy confirm`\n", r.GetVersion(),
			until(p.GetUntil().AsTime()))
		return err
	}
	_, err := fmt.Fprintf(out, "the policy is at version %d; a document made from it says `version: %d`\n", r.GetVersion(), r.GetVersion())
	return err
}

func policyConfirm(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "confirm", Short: "Let a change stay that was applied with --confirm", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.ConfirmPolicy, &v1.ConfirmPolicyRequest{})
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "version %d of the policy stays\n", r.GetVersion())
				return err
			})
		},
	}
}

func policyUndo(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "undo", Short: "Take back a change that waits to be confirmed", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.UndoPolicy, &v1.UndoPolicyRequest{})
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "the policy is as before; it is at version %d\n", r.GetVersion())
				return err
			})
		},
	}
}
