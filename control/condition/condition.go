// Package condition judges whether a node meets a grant's condition: an expression of the Common Expression Language
// (https://cel.dev) that is compiled when the grant is made and evaluated at the controller, never for a frame.
//
//	posture.disk_encrypted && posture.files["/etc/approved"].exists
//	now.getDayOfWeek("Europe/Berlin") in [1, 2, 3, 4, 5] && now.getHours("Europe/Berlin") >= 8
//	"gateway" in node.roles || node.labels["team"] == "network"
//	posture.underlay.exists(a, inCIDR(a, "192.0.2.0/24"))
//
// An expression sees what the controllers know of the node (node.name, node.site, node.roles, node.labels), what the
// node says of itself (posture, a PostureReport), and the time (now). It is true or it is not: what cannot be
// evaluated, because the report lacks what it asks for or it takes too long, counts as not met.
package condition

import (
	"fmt"
	"strings"
	"time"

	"cel.dev/cel-go/cel"

	"github.com/etherloom/etherloom/control/controlv1"
)

// MaxLength is how long an expression may be, in bytes.
const MaxLength = 2048

// maxCost is how much work one evaluation may be, in CEL's units: about one for each step and each ten bytes compared.
// A condition that looks at every file of the largest report takes less than a thousand.
const maxCost = 10_000

// Node is what the controllers know of a node.
type Node struct {
	Name   string
	Site   string
	Roles  []string
	Labels map[string]string
}

// Condition is a compiled expression. It may be used from several goroutines.
type Condition struct {
	program cel.Program
	posture bool
	now     bool
}

// Compiler compiles expressions. It may be used from several goroutines.
type Compiler struct{ env *cel.Env }

// NewCompiler returns a Compiler.
func NewCompiler() (*Compiler, error) {
	env, err := cel.NewEnv(
		cel.Types(&controlv1.PostureReport{}),
		cel.Variable("node.name", cel.StringType),
		cel.Variable("node.site", cel.StringType),
		cel.Variable("node.roles", cel.ListType(cel.StringType)),
		cel.Variable("node.labels", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable("posture", cel.ObjectType(string((&controlv1.PostureReport{}).ProtoReflect().Descriptor().FullName()))),
		cel.Variable("now", cel.TimestampType),
		inCIDR(),
		// What a few hundred bytes could otherwise grow into.
		cel.ParserExpressionSizeLimit(MaxLength), cel.ParserRecursionLimit(50), cel.ParserErrorRecoveryLimit(4),
		cel.ASTValidators(
			cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals(),
			cel.ValidateComprehensionNestingLimit(2), literals{},
		),
	)
	if err != nil {
		return nil, fmt.Errorf("conditions: %w", err)
	}
	return &Compiler{env}, nil
}

// variables names what an expression may ask for, for who got it wrong.
const variables = "an expression may use node.name, node.site, node.roles, node.labels[KEY], now, and posture: os, os_version, kernel, " +
	"arch, agent, hostname, disk_encrypted, underlay, files[PATH] (exists, regular, sha256, mode, uid, gid, size), " +
	"processes[PATH] (running, sha256, uid), commands[NAME] (ran, exit, line)"

// Compile reads an expression. The error says where it is wrong and what an expression may use.
func (c *Compiler) Compile(expression string) (*Condition, error) {
	if len(expression) > MaxLength {
		return nil, fmt.Errorf("condition has %d bytes, expected at most %d", len(expression), MaxLength)
	}
	checked, issues := c.env.Compile(expression)
	if issues.Err() != nil {
		var faults []string
		for _, e := range issues.Errors() {
			// CEL counts columns from 0, people from 1.
			faults = append(faults, fmt.Sprintf("line %d, column %d: %s", e.Location.Line(), e.Location.Column()+1, e.Message))
		}
		return nil, fmt.Errorf("condition does not compile: %s; %s", strings.Join(faults, "; "), variables)
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) {
		return nil, fmt.Errorf("condition is of type %s, expected one that is true or false, such as posture.disk_encrypted", t)
	}
	program, err := c.env.Program(checked, cel.CostLimit(maxCost))
	if err != nil {
		return nil, fmt.Errorf("condition: %w", err)
	}
	out := &Condition{program: program}
	for _, name := range idents(checked) {
		out.posture = out.posture || name == "posture"
		out.now = out.now || name == "now"
	}
	return out, nil
}

// UsesPosture reports whether the condition asks what the node says of itself.
func (c *Condition) UsesPosture() bool { return c.posture }

// UsesNow reports whether time alone can change what Met says.
func (c *Condition) UsesNow() bool { return c.now }

// Met reports whether a node meets the condition. Without a report, which is nil then, it does not meet one that asks
// for posture.
func (c *Condition) Met(n *Node, report *controlv1.PostureReport, now time.Time) bool {
	if c.posture && report == nil {
		return false
	}
	if report == nil {
		report = &controlv1.PostureReport{}
	}
	value, _, err := c.program.Eval(map[string]any{
		"node.name": n.Name, "node.site": n.Site, "node.roles": n.Roles, "node.labels": n.Labels,
		"posture": report, "now": now,
	})
	if err != nil {
		return false
	}
	met, ok := value.Value().(bool)
	return ok && met
}
