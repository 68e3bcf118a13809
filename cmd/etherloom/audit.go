package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/etherloom/etherloom/control/audit"
	v1 "github.com/etherloom/etherloom/control/controlv1"
	rpc "github.com/etherloom/etherloom/control/controlv1/controlv1connect"
)

func unmarshalJSON(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(into)
}

func auditCommand(a *admin) *cobra.Command {
	return group("audit", "The log of every change, by persons and nodes", auditList(a), auditVerify(a))
}

// auditAll fetches the log from an entry on, page by page, with the head that the controller signed last.
func auditAll(ctx context.Context, a *admin, after uint64) (list []*v1.AuditEntry, last *v1.ListAuditResponse, err error) {
	for {
		r, err := call(ctx, a, rpc.AdminServiceClient.ListAudit, &v1.ListAuditRequest{After: after})
		if err != nil {
			return nil, nil, err
		}
		list, last = append(list, r.GetEntries()...), r
		if len(r.GetEntries()) == 0 || list[len(list)-1].GetSequence() >= r.GetHead().GetSequence() {
			return list, last, nil
		}
		after = list[len(list)-1].GetSequence()
	}
}

func auditList(a *admin) *cobra.Command {
	var after uint64
	cmd := &cobra.Command{
		Use: "list", Short: "List the log; with --json one entry on a line, which `audit verify --file` reads", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, _, err := auditAll(cmd.Context(), a, after)
			if err != nil {
				return err
			}
			if a.json {
				for _, e := range list {
					data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(e)
					if err != nil {
						return fmt.Errorf("encode entry %d: %w", e.GetSequence(), err)
					}
					fmt.Fprintln(cmd.OutOrStdout(), string(data))
				}
				return nil
			}
			var rows [][]string
			for _, e := range list {
				rows = append(rows, []string{
					fmt.Sprint(e.GetSequence()), until(e.GetTime().AsTime()), e.GetActor(), dash(e.GetSource()), e.GetAction(), e.GetObject(),
				})
			}
			return table(cmd, "NUMBER TIME ACTOR FROM ACTION OBJECT", rows)
		},
	}
	cmd.Flags().Uint64Var(&after, "after", 0, "only entries with a greater number")
	return cmd
}

func auditVerify(a *admin) *cobra.Command {
	var file, seen string
	cmd := &cobra.Command{
		Use: "verify", Short: "Check that no entry was changed, removed or reordered", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, head, err := auditSource(cmd, a, file)
			if err != nil {
				return err
			}
			if err := audit.Verify(list, head); err != nil {
				return fmt.Errorf("the audit log is NOT whole: %w", err)
			}
			if hash, err := hex.DecodeString(seen); err != nil || seen != "" && len(hash) != len(head.Hash) {
				return fmt.Errorf("--head %q is not a head: want the %d hexadecimal digits that audit verify prints", seen, 2*len(head.Hash))
			}
			if seen != "" && !slices.ContainsFunc(list, func(e *v1.AuditEntry) bool { return hex.EncodeToString(e.GetHash()) == seen }) {
				return fmt.Errorf("the audit log is NOT whole: it was cut or written anew, for it does not contain the head %s", seen)
			}
			if a.json {
				return printJSON(cmd, map[string]any{"schema": 1, "whole": true, "entries": len(list), "head": hex.EncodeToString(head.Hash[:])})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "the audit log is whole: %s, head %x\n", counted(len(list), "entry", "entries"), head.Hash)
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "check this `FILE`, written by audit list --json, instead of asking the controller")
	cmd.Flags().StringVar(&seen, "head", "", "a head that was printed earlier, in `HEX`, which the log must still contain")
	return cmd
}

// auditSource gets the log and the head to hold it against.
func auditSource(cmd *cobra.Command, a *admin, file string) ([]*v1.AuditEntry, audit.Head, error) {
	if file != "" {
		list, err := readAudit(file)
		if err != nil || len(list) == 0 {
			return nil, audit.Head{}, errors.Join(err, errIf(len(list) == 0 && err == nil, "the file holds no entry"))
		}
		last := list[len(list)-1]
		return list, audit.HeadOf(&v1.AuditHead{Sequence: last.GetSequence(), Hash: last.GetHash()}), nil
	}
	c, err := a.open()
	if err != nil {
		return nil, audit.Head{}, err
	}
	list, last, err := auditAll(cmd.Context(), a, 0)
	if err != nil {
		return nil, audit.Head{}, err
	}
	head := audit.HeadOf(last.GetHead())
	return list, head, head.CheckSignature(c.Verifier(), last.GetHeadSignature(), last.GetSigner(), time.Now())
}

func errIf(cond bool, text string) error {
	if cond {
		return errors.New(text)
	}
	return nil
}

func readAudit(file string) ([]*v1.AuditEntry, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("audit file: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	var list []*v1.AuditEntry
	r := bufio.NewReader(f)
	for line := 1; ; line++ {
		text, err := r.ReadBytes('\n')
		if len(bytes.TrimSpace(text)) > 0 {
			e := new(v1.AuditEntry)
			if err := protojson.Unmarshal(text, e); err != nil {
				return nil, fmt.Errorf("%s: line %d is not an audit entry: %w", file, line, err)
			}
			list = append(list, e)
		}
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("audit file: %w", err)
		}
	}
}
