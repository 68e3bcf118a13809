package main

import (
	"io"
	"strings"
	"testing"
)

// A grant is never wider than who asks for it believes: what would narrow it is not passed over if it is empty.
func TestGrantAddRefuses(t *testing.T) {
	to := []string{"--from", "node:a", "--to", "node:b"}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"--when is empty", append(to, "--when", "")},
		{"--when is empty", append(to, "--when", " \n")},
		{"--expires is empty", append(to, "--expires=")},
		{"--mode is enforce or observe, found \"\"", append(to, "--mode", "")},
		{"--direction is out or both, found \"\"", append(to, "--direction", "")},
		{"expires: \"-1h\" is not in the future", append(to, "--expires=-1h")},
		{"say who with --from", to[:2]},
	} {
		cmd := grantAdd(new(admin))
		cmd.SetArgs(c.args)
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: found %v, want %q", c.args, err, c.want)
		}
	}
}
