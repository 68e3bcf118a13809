package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/node"
)

func postureCommand() *cobra.Command {
	return asking("posture", "What this node says of itself, by which the conditions of grants are judged", "posture", showPosture)
}

func showPosture(cmd *cobra.Command, s node.PostureStatus) error {
	if s.Report == nil {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "nothing yet: the first look at this machine is not complete")
		return err
	}
	sent := "never"
	if !s.Sent.IsZero() {
		sent = until(s.Sent)
	}
	if !s.Connected {
		sent += "; no controller is connected that would be told of a change"
	}
	rows := [][]string{{"sent", sent}, {"changed", until(s.Report.Changed)}, {"interval", s.Interval.String()}}
	return table(cmd, "WHAT VALUE", append(rows, postureRows(node.PostureProto(s.Report), "")...))
}

// postureRows are the lines of a report, each beginning with a prefix.
func postureRows(r *v1.PostureReport, prefix string) [][]string {
	encrypted := "root file system is not on dm-crypt"
	if r.GetDiskEncrypted() {
		encrypted = "root file system is on dm-crypt"
	}
	rows := [][]string{
		{"os", dash(strings.TrimSpace(r.GetOs() + " " + r.GetOsVersion()))},
		{"kernel", dash(r.GetKernel())},
		{"arch", dash(r.GetArch())},
		{"agent", dash(r.GetAgent())},
		{"hostname", dash(r.GetHostname())},
		{"disk", encrypted},
		{"underlay", dash(strings.Join(r.GetUnderlay(), " "))},
	}
	for _, path := range slices.Sorted(maps.Keys(r.GetFiles())) {
		rows = append(rows, []string{"file " + path, fileText(r.GetFiles()[path])})
	}
	for _, path := range slices.Sorted(maps.Keys(r.GetProcesses())) {
		p := r.GetProcesses()[path]
		text := "does not run"
		if p.GetRunning() {
			text = "runs"
		}
		rows = append(rows, []string{"process " + path, withFault(text+", SHA-256 "+dash(p.GetSha256()), p.GetFault())})
	}
	for _, name := range slices.Sorted(maps.Keys(r.GetCommands())) {
		c := r.GetCommands()[name]
		text := "did not run to its end"
		if c.GetRan() {
			text = fmt.Sprintf("exit %d: %s", c.GetExit(), dash(c.GetLine()))
		}
		rows = append(rows, []string{"command " + name, withFault(text, c.GetFault())})
	}
	for _, row := range rows {
		row[0] = prefix + row[0]
	}
	return rows
}

func fileText(f *v1.PostureFile) string {
	text := "is not there"
	switch {
	case f.GetRegular():
		text = fmt.Sprintf("mode %s, owner %d:%d, %s, SHA-256 %s", f.GetMode(), f.GetUid(), f.GetGid(), counted(f.GetSize(), "byte", "bytes"), dash(f.GetSha256()))
	case f.GetExists():
		text = fmt.Sprintf("mode %s, owner %d:%d, not a regular file", f.GetMode(), f.GetUid(), f.GetGid())
	case f.GetFault() != "":
		text = "could not be looked at"
	}
	return withFault(text, f.GetFault())
}

func withFault(text, fault string) string {
	if fault == "" {
		return text
	}
	return text + " (" + fault + ")"
}
