package condition

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a controller's image may have no time zones of its own

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// inCIDR adds inCIDR(ADDRESS, PREFIX), which reports whether an address is in a prefix. An address with a port, as
// underlay addresses have none, is no address. IPv4 in IPv6 (RFC 4291 section 2.5.5.2) is IPv4.
func inCIDR() cel.EnvOption {
	return cel.Function("inCIDR", cel.Overload("in_cidr_string_string", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType,
		cel.BinaryBinding(func(address, prefix ref.Val) ref.Val {
			a, err := netip.ParseAddr(text(address))
			if err != nil {
				return types.NewErr("%q is not an address", text(address))
			}
			p, err := netip.ParsePrefix(text(prefix))
			if err != nil {
				return types.NewErr("%q is not a prefix", text(prefix))
			}
			return types.Bool(p.Contains(a.Unmap()))
		})))
}

func text(v ref.Val) string {
	s, _ := v.Value().(string)
	return s
}

// idents lists the variables that an expression names.
func idents(checked *cel.Ast) []string {
	var out []string
	root := ast.NavigateAST(checked.NativeRep())
	for _, e := range ast.MatchDescendants(root, ast.KindMatcher(ast.IdentKind)) {
		out = append(out, e.AsIdent())
	}
	return out
}

// literals finds time zones and prefixes that there are not. Left to the evaluation they would only ever be errors, and
// so a grant that nobody holds without anybody being told why.
type literals struct{}

// Name is the validator's.
func (literals) Name() string { return "etherloom.literals" }

// Validate reports every literal that is wrong.
func (literals) Validate(_ *cel.Env, _ cel.ValidatorConfig, a *ast.AST, issues *cel.Issues) {
	for _, call := range ast.MatchDescendants(ast.NavigateAST(a), ast.KindMatcher(ast.CallKind)) {
		name, args := call.AsCall().FunctionName(), call.AsCall().Args()
		var check func(string) error
		switch {
		case name == "inCIDR" && len(args) == 2:
			check = checkPrefix
		case strings.HasPrefix(name, "get") && call.AsCall().IsMemberFunction() && len(args) == 1:
			check = checkZone
		default:
			continue
		}
		arg := args[len(args)-1]
		if arg.Kind() != ast.LiteralKind {
			continue
		}
		if err := check(text(arg.AsLiteral())); err != nil {
			issues.ReportErrorAtID(arg.ID(), "%s", err.Error())
		}
	}
}

func checkPrefix(s string) error {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return fmt.Errorf("%q is not ADDRESS/LENGTH, such as 192.0.2.0/24", s)
	}
	if p != p.Masked() {
		return fmt.Errorf("%s has bits beyond its length, expected %s", s, p.Masked())
	}
	return nil
}

// checkZone accepts what CEL takes for a time zone: a name of the tz database, or an offset such as "+02:00".
func checkZone(s string) error {
	if h, m, ok := strings.Cut(strings.TrimLeft(s, "+-"), ":"); ok {
		hours, err := strconv.ParseUint(h, 10, 8)
		minutes, err2 := strconv.ParseUint(m, 10, 8)
		if err == nil && err2 == nil && hours <= 14 && minutes < 60 {
			return nil
		}
	} else if _, err := time.LoadLocation(s); err == nil && s != "Local" && s != "" {
		return nil // Local would be each controller's own
	}
	return fmt.Errorf("%q is not a time zone such as Europe/Berlin, UTC or +02:00", s)
}
