package main

import (
	"regexp"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// What stands between backquotes in a flag's description is shown as what it takes, so that must be one word.
func TestFlagsTake(t *testing.T) {
	word := regexp.MustCompile(`^[\w:/=|.-]*$`)
	var each func(c *cobra.Command)
	each = func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if takes, _ := pflag.UnquoteUsage(f); !word.MatchString(takes) {
				t.Errorf("%s --%s takes %q", c.CommandPath(), f.Name, takes)
			}
		})
		for _, sub := range c.Commands() {
			each(sub)
		}
	}
	each(root())
}
