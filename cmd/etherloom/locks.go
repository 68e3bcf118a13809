package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "github.com/etherloom/etherloom/control/controlv1"
	rpc "github.com/etherloom/etherloom/control/controlv1/controlv1connect"
)

// target is what a lock is on, as the command line says it.
type target struct{ label, token string }

func (t *target) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.label, "label", "", "KEY=VALUE: every machine with this label, also those that join later")
	cmd.Flags().StringVar(&t.token, "token", "", "ID: every machine that joined with this token, and the token itself")
}

// text is the target as the controller reads it, which is one of three.
func (t *target) text(args []string) (string, error) {
	var found []string
	if len(args) > 0 {
		found = append(found, "node:"+args[0])
	}
	if t.label != "" {
		found = append(found, "label:"+t.label)
	}
	if t.token != "" {
		found = append(found, "token:"+t.token)
	}
	if len(found) != 1 {
		return "", fmt.Errorf("expected one of NAME, --label KEY=VALUE and --token ID, found %d", len(found))
	}
	return found[0], nil
}

func nodeLock(a *admin) *cobra.Command {
	t, message, ttl := new(target), "", time.Duration(0)
	cmd := &cobra.Command{
		Use: "lock NAME | --label KEY=VALUE | --token ID", Short: "Cut machines off at once, until they are unlocked or a time is over",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := t.text(args)
			if err != nil {
				return err
			}
			req := &v1.AddLockRequest{Target: text, Message: message}
			if cmd.Flags().Changed("ttl") {
				if ttl <= 0 {
					return fmt.Errorf("--ttl is %v, expected a time such as 2h", ttl)
				}
				req.Ttl = durationpb.New(ttl)
			}
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.AddLock, req)
			if err != nil {
				return err
			}
			return a.show(cmd, r, func() error {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), lockSummary(r.GetLock()))
				return err
			})
		},
	}
	t.flags(cmd)
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "how long, such as 2h; default: until somebody unlocks")
	cmd.Flags().StringVar(&message, "message", "", "why; the machines are told")
	return cmd
}

// lockSummary says what a lock does now.
func lockSummary(l *v1.Lock) string {
	who := strings.Join(l.GetNodes(), ", ")
	if who == "" {
		who = "it selects no machine now; one that joins and is selected will be locked"
	} else {
		who = "locked: " + who
	}
	return fmt.Sprintf("lock %d on %s, %s; %s", l.GetId(), l.GetTarget(), expiryOf(l), who)
}

func expiryOf(l *v1.Lock) string {
	if l.GetExpires() == nil {
		return lockEnd(time.Time{})
	}
	return lockEnd(l.GetExpires().AsTime())
}

// lockEnd says until when a lock lasts.
func lockEnd(t time.Time) string {
	if t.IsZero() {
		return "until it is lifted"
	}
	return "until " + until(t)
}

func nodeUnlock(a *admin) *cobra.Command {
	t, number := new(target), ""
	cmd := &cobra.Command{
		Use: "unlock NAME | --label KEY=VALUE | --token ID | --lock NUMBER", Short: "Lift a lock",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := unlockRequest(t, number, args)
			if err != nil {
				return err
			}
			r, err := call(cmd.Context(), a, rpc.AdminServiceClient.RemoveLock, req)
			if err != nil {
				return err
			}
			if len(args) > 0 && len(r.GetLifted()) == 0 {
				return a.show(cmd, r, func() error { return showUnlocked(cmd, r.GetNode()) })
			}
			return a.show(cmd, r, func() error { return showLifted(cmd, r) })
		},
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&number, "lock", "", "the lock of this number; etherloom node locks shows them")
	return cmd
}

func unlockRequest(t *target, number string, args []string) (*v1.RemoveLockRequest, error) {
	if number == "" {
		text, err := t.text(args)
		if err != nil {
			return nil, errors.New(err.Error() + ", or --lock NUMBER")
		}
		return &v1.RemoveLockRequest{Target: text}, nil
	}
	if len(args) > 0 || *t != (target{}) {
		return nil, errors.New("--lock names a lock by itself: leave out NAME, --label and --token")
	}
	id, err := strconv.ParseUint(strings.TrimPrefix(number, "lock/"), 10, 32)
	if err != nil || id == 0 {
		return nil, fmt.Errorf("%q is not a lock's number: `etherloom node locks` shows them", number)
	}
	return &v1.RemoveLockRequest{Id: uint32(id)}, nil
}

// showUnlocked says how a machine is on whose name there was no lock.
func showUnlocked(cmd *cobra.Command, n *v1.Node) error {
	text := fmt.Sprintf("there is no lock on %s itself; it is %s", n.GetName(), statusName(n.GetStatus()))
	if len(n.GetLocks()) > 0 {
		text += ", by " + lockNames(n.GetLocks())
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}

func showLifted(cmd *cobra.Command, r *v1.RemoveLockResponse) error {
	held := map[string]bool{}
	for _, n := range r.GetHeld() {
		held[n.GetName()] = true
	}
	out := cmd.OutOrStdout()
	for _, l := range r.GetLifted() {
		free := []string{}
		for _, name := range l.GetNodes() {
			if !held[name] {
				free = append(free, name)
			}
		}
		fmt.Fprintf(out, "%s is lifted; unlocked: %s\n", lockName(l), dash(strings.Join(free, ", ")))
	}
	for _, n := range r.GetHeld() {
		fmt.Fprintf(out, "%s is still locked, by %s\n", n.GetName(), lockNames(n.GetLocks()))
	}
	return nil
}

// lockName names a lock; one without a number is in the machine's record, from an older controller.
func lockName(l *v1.Lock) string {
	if l.GetId() == 0 {
		return "the lock on " + l.GetTarget()
	}
	return fmt.Sprintf("lock %d on %s", l.GetId(), l.GetTarget())
}

func lockNames(list []*v1.Lock) string {
	var out []string
	for _, l := range list {
		out = append(out, lockName(l)+" ("+expiryOf(l)+")")
	}
	return strings.Join(out, ", ")
}

func nodeLocks(a *admin) *cobra.Command {
	cmd := lists(a, "List the locks", rpc.AdminServiceClient.ListLocks, func(cmd *cobra.Command, r *v1.ListLocksResponse) error {
		var rows [][]string
		for _, l := range r.GetLocks() {
			rows = append(rows, []string{
				fmt.Sprint(l.GetId()), l.GetTarget(), expiryOf(l), dash(strings.Join(l.GetNodes(), ",")),
				until(l.GetCreated().AsTime()), dash(adminOf(l.GetBy())), dash(l.GetMessage()),
			})
		}
		return table(cmd, "LOCK ON ENDS LOCKED SINCE BY MESSAGE", rows)
	})
	cmd.Use = "locks"
	return cmd
}

// adminOf is the short form of an administrator's SPIFFE id: admin/1.
func adminOf(id string) string {
	if _, rest, ok := strings.Cut(strings.TrimPrefix(id, "spiffe://"), "/"); ok {
		return rest
	}
	return id
}
