package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The audit log tells every change; one that was changed, cut or reordered is found.
func TestAudit(t *testing.T) {
	r := newRig(t)
	id, err := r.Grant(r.ctx, "label:team=x", "segment:lan")
	r.ok(err)
	_, err = r.Admin(r.ctx, "token", "create", "--label", "team=x")
	r.ok(err)
	out, err := r.Admin(r.ctx, "audit", "verify")
	r.ok(err)
	head := strings.TrimSpace(out[strings.LastIndex(strings.TrimSpace(out), " ")+1:])
	_, err = r.Admin(r.ctx, "grant", "remove", id)
	r.ok(err)
	_, err = r.Admin(r.ctx, "audit", "verify", "--head", head)
	r.ok(err)

	log, err := r.Admin(r.ctx, "audit", "list", "--json")
	r.ok(err)
	lines := strings.SplitAfter(strings.TrimRight(log, "\n"), "\n")
	find := func(word string) int {
		return slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, word) })
	}
	token := find("token.")
	if find("grant.") < 0 || token < 0 || len(lines) < 4 {
		t.Fatalf("the log does not tell what happened:\n%s", log)
	}
	file := filepath.Join(t.TempDir(), "audit.json")
	verify := func(lines []string, args ...string) (string, error) {
		r.ok(os.WriteFile(file, []byte(strings.Join(lines, "")), 0o600))
		return r.Admin(r.ctx, append([]string{"audit", "verify", "--file", file}, args...)...)
	}
	if out, err := verify(lines, "--head", head); err != nil {
		t.Errorf("the log as it is: %v: %s", err, out)
	}
	changed, removed, swapped := slices.Clone(lines), slices.Clone(lines), slices.Clone(lines)
	changed[token] = strings.Replace(changed[token], "token.", "grant.", 1)
	removed = slices.Delete(removed, token, token+1)
	swapped[1], swapped[2] = swapped[2], swapped[1]
	for name, bad := range map[string][]string{"changed": changed, "removed": removed, "reordered": swapped, "first gone": lines[1:]} {
		if out, err := verify(bad); err == nil || !strings.Contains(out, "NOT whole") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	if out, err := verify(lines[:2], "--head", head); err == nil || !strings.Contains(out, "cut") {
		t.Errorf("cut: %v: %s", err, out)
	}
}
