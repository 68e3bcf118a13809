// Package settings reads a configuration once, into one struct: flags over environment over file over defaults.
//
// The struct's yaml tags name the keys of the file; sections are structs in it. Every leaf has a flag (tap.name becomes
// --tap-name) and a variable (ETHERLOOM_TAP_NAME); its usage tag explains it. A list of sections can be set in the file
// alone. The file is first held against the struct,
// so that an unknown or misspelt key is named with its line, and only then layered.
package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// delimiter separates sections in viper's keys; a dot may be part of a name.
const delimiter = "::"

// leaf is one setting.
type leaf struct {
	key   string // section::name
	usage string
	value reflect.Value
}

func (l leaf) flag() string {
	return strings.NewReplacer(delimiter, "-", "_", "-").Replace(l.key)
}

// sections reports whether a setting is a list of sections, which neither a flag nor a variable can set.
func (l leaf) sections() bool {
	t := l.value.Type()
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
}

func (l leaf) env() string {
	return "ETHERLOOM_" + strings.ToUpper(strings.ReplaceAll(l.key, delimiter, "_"))
}

// leaves lists the settings of a struct in its order.
func leaves(v reflect.Value, prefix string) []leaf {
	var out []leaf
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key := prefix + f.Tag.Get("yaml")
		if f.Type.Kind() == reflect.Struct {
			out = append(out, leaves(v.Field(i), key+delimiter)...)
			continue
		}
		out = append(out, leaf{key, f.Tag.Get("usage"), v.Field(i)})
	}
	return out
}

// Flags defines a flag for every setting of a struct, whose present values are the defaults.
func Flags(fs *pflag.FlagSet, into any) {
	for _, l := range leaves(reflect.ValueOf(into).Elem(), "") {
		if l.sections() {
			continue
		}
		switch v := l.value.Interface().(type) {
		case string:
			fs.String(l.flag(), v, l.usage)
		case bool:
			fs.Bool(l.flag(), v, l.usage)
		case int:
			fs.Int(l.flag(), v, l.usage)
		case time.Duration:
			fs.Duration(l.flag(), v, l.usage)
		case []string:
			fs.StringSlice(l.flag(), v, l.usage)
		default:
			panic(fmt.Sprintf("settings: %s has type %T, which no flag can set", l.key, v))
		}
	}
}

// Load fills a struct whose values are the defaults. file may be empty for none. fs must have been through Flags and
// parsed.
func Load(fs *pflag.FlagSet, file string, into any) error {
	v := viper.NewWithOptions(viper.KeyDelimiter(delimiter))
	v.SetConfigType("yaml")
	for _, l := range leaves(reflect.ValueOf(into).Elem(), "") {
		v.SetDefault(l.key, l.value.Interface())
		if l.sections() {
			continue
		}
		if err := errors.Join(v.BindEnv(l.key, l.env()), v.BindPFlag(l.key, fs.Lookup(l.flag()))); err != nil {
			return fmt.Errorf("setting %s: %w", l.key, err)
		}
	}
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("configuration: %w", err)
		}
		if err := check(file, data, into); err != nil {
			return err
		}
		if err := v.ReadConfig(bytes.NewReader(data)); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	if err := v.Unmarshal(into); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	for _, l := range leaves(reflect.ValueOf(into).Elem(), "") {
		if l.sections() && l.value.Len() == 0 {
			l.value.SetZero() // an empty list is none
		}
	}
	return nil
}

// check holds a file against the struct alone.
func check(file string, data []byte, into any) error {
	fresh := reflect.New(reflect.TypeOf(into).Elem()).Interface()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	err := dec.Decode(fresh)
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	var te *yaml.TypeError
	if !errors.As(err, &te) {
		return fmt.Errorf("%s: %w", file, err)
	}
	var errs []error
	for _, text := range te.Errors {
		errs = append(errs, fmt.Errorf("%s: %s", file, explain(text, leaves(reflect.ValueOf(fresh).Elem(), ""))))
	}
	return errors.Join(errs...)
}

// unknownKey is how go.yaml.in/yaml words an unknown key.
var unknownKey = regexp.MustCompile(`^(line \d+): field (\S+) not found in type .*$`)

// wrongType is how it words a value that does not fit.
var wrongType = regexp.MustCompile("^(line \\d+): cannot unmarshal (?:!!\\S+ )?`?([^`]*?)`? ?into (.+)$")

// typeName says in words what a setting of a Go type looks like.
func typeName(goType string) string {
	switch goType {
	case "string":
		return "a text"
	case "[]string":
		return "a list, such as [a, b]"
	case "int":
		return "a number"
	case "bool":
		return "true or false"
	case "time.Duration":
		return "a time, such as 500ms or 2m"
	}
	if strings.HasPrefix(goType, "[]") {
		return "a list of sections, such as [{name: x}]"
	}
	return "a section, with its settings indented below it"
}

func explain(text string, known []leaf) string {
	if m := unknownKey.FindStringSubmatch(text); m != nil {
		for _, l := range known {
			if section, name, ok := strings.Cut(l.key, delimiter); l.flag() == strings.NewReplacer("_", "-", ".", "-").Replace(m[2]) {
				if !ok {
					return fmt.Sprintf("%s: there is no setting %q here; did you mean %q, at the top?", m[1], m[2], l.key)
				}
				return fmt.Sprintf("%s: there is no setting %q here; did you mean %q in the section %q?", m[1], m[2], name, section)
			}
		}
		return fmt.Sprintf("%s: there is no setting %q here; is it misspelt, or in the wrong section? --print-config shows them all", m[1], m[2])
	}
	if m := wrongType.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("%s: %q does not fit: want %s", m[1], m[2], typeName(m[3]))
	}
	return text
}

// Print writes a configuration as a file that Load takes, each setting with its variable and what it means.
func Print(w io.Writer, from any) error {
	section := ""
	for _, l := range leaves(reflect.ValueOf(from).Elem(), "") {
		name, indent := l.key, ""
		if s, n, ok := strings.Cut(l.key, delimiter); ok {
			if s != section {
				if _, err := fmt.Fprintf(w, "%s:\n", s); err != nil {
					return err
				}
			}
			section, name, indent = s, n, "  "
		}
		value, err := yaml.Marshal(l.value.Interface())
		if d, ok := l.value.Interface().(time.Duration); ok {
			value, err = []byte(d.String()), nil
		}
		if list, ok := l.value.Interface().([]string); ok {
			value, err = []byte("["+strings.Join(list, ", ")+"]"), nil
		}
		where := l.env()
		if l.sections() {
			value, err = flow(l.value.Interface())
			where = "in the file alone"
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s%s: %s # %s: %s\n", indent, name, strings.TrimSpace(string(value)), where, l.usage)
		if err != nil {
			return err
		}
	}
	return nil
}

// flow writes a list on one line.
func flow(list any) ([]byte, error) {
	var n yaml.Node
	if err := n.Encode(list); err != nil {
		return nil, err
	}
	n.Style = yaml.FlowStyle
	return yaml.Marshal(&n)
}
