// Package environ reads a service's settings from environment variables into
// a struct, prints the table of them for --help, and finds misspelt names. The
// struct's tags are the only source of names, defaults and meanings:
//
//	HTTPAddress string `envconfig:"DISCOVERY_HTTP_ADDRESS" default:"0.0.0.0:8090" desc:"where REST is served"`
//
// It wraps envconfig; it reads no file and keeps nothing.
package environ

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"reflect"
	"regexp"
	"strings"
	"text/tabwriter"

	"github.com/kelseyhightower/envconfig"

	"github.com/weirproxy/weir/internal/nearest"
	"github.com/weirproxy/weir/internal/setting"
)

// Load fills *settings, a pointer to a struct, from the process' environment.
// A variable that is set but empty counts as unset where text is not wanted.
// The error names every bad variable, its value and what it should have been;
// their settings have the defaults, so that others can be checked all the same. It
// joins a setting.Fault for each.
func Load(settings any) error {
	var errs []error
	for f, v := range fields(reflect.ValueOf(settings).Elem()) {
		if err := load(f, v); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// load fills one field.
func load(f reflect.StructField, v reflect.Value) error {
	name := f.Tag.Get("envconfig")
	value := os.Getenv(name)
	tag := f.Tag
	if value == "" && f.Type.Kind() != reflect.String {
		tag = defaultTag(name, f.Tag.Get("default"))
	}
	read, err := process(f, tag)
	if err != nil {
		err := fmt.Errorf("environment variable %s=%q: want %s", name, value, typeName(f.Type))
		if wrong := wrongItems(f, value); len(wrong) > 0 {
			err = fmt.Errorf("%w: %s", err, strings.Join(wrong, "; "))
		}
		if read, other := process(f, defaultTag(name, f.Tag.Get("default"))); other == nil {
			v.Set(read)
		}
		return &setting.Fault{Names: []string{name}, Err: err}
	}
	v.Set(read)
	return nil
}

// process reads one field, by way of a struct that has no other: envconfig stops
// at the first fault.
func process(f reflect.StructField, tag reflect.StructTag) (reflect.Value, error) {
	alone := reflect.New(reflect.StructOf([]reflect.StructField{{Name: f.Name, Type: f.Type, Tag: tag}}))
	err := envconfig.Process("", alone.Interface())
	return alone.Elem().Field(0), err
}

// defaultTag has a field take value whatever the environment is: no variable has
// such a name.
func defaultTag(name, value string) reflect.StructTag {
	return reflect.StructTag(fmt.Sprintf(`envconfig:"%s=" default:%q`, name, value))
}

// wrongItems says what is wrong with each item of a list, and names it.
func wrongItems(f reflect.StructField, list string) (wrong []string) {
	if kind := f.Type.Kind(); kind != reflect.Slice && kind != reflect.Map {
		return nil
	}
	for item := range strings.SplitSeq(list, ",") {
		_, err := process(f, defaultTag(f.Tag.Get("envconfig"), item))
		if fault, ok := errors.AsType[*envconfig.ParseError](err); ok {
			wrong = append(wrong, fault.Err.Error())
		}
	}
	return wrong
}

// fields yields the settings among the fields of a struct in their order;
// embedded structs stand where they are embedded.
func fields(s reflect.Value) iter.Seq2[reflect.StructField, reflect.Value] {
	return func(yield func(reflect.StructField, reflect.Value) bool) {
		for i := range s.NumField() {
			f := s.Type().Field(i)
			if f.Anonymous {
				for f, v := range fields(s.Field(i)) {
					if !yield(f, v) {
						return
					}
				}
			} else if f.Tag.Get("envconfig") != "" && !yield(f, s.Field(i)) {
				return
			}
		}
	}
}

// Variable is one setting as its tags describe it.
type Variable struct{ Name, Type, Default, Meaning string }

// Variables lists the settings of a struct, or a pointer to one, in the order
// of its fields.
func Variables(settings any) []Variable {
	s := reflect.Indirect(reflect.ValueOf(settings))
	var list []Variable
	for f := range fields(s) {
		list = append(list, Variable{f.Tag.Get("envconfig"), typeName(f.Type), f.Tag.Get("default"), f.Tag.Get("desc")})
	}
	return list
}

func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer: // nil where nothing is set
		return typeName(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Int64:
		if t.String() == "time.Duration" {
			return "duration"
		}
		return "integer"
	case reflect.Int, reflect.Int32, reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "integer"
	case reflect.Slice:
		return "comma list"
	case reflect.Map:
		return "k:v,… list"
	default:
		return "text"
	}
}

// Help writes the table of variables: name, type, default, meaning.
func Help(w io.Writer, settings any) {
	table := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(table, "VARIABLE\tTYPE\tDEFAULT\tMEANING")
	for _, v := range Variables(settings) {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", v.Name, v.Type, v.Default, v.Meaning)
	}
	_ = table.Flush() // a failed write means that the reader has gone
}

// Misspelt returns a warning for each variable of environment ("NAME=value"
// lines, as os.Environ gives them) that is no setting but begins with one of
// prefixes, or is one or two letters away from a setting of at least eight;
// it names the nearest setting.
func Misspelt(settings any, prefixes, environment []string) []string {
	known := map[string]bool{}
	var names []string
	for _, v := range Variables(settings) {
		known[v.Name] = true
		names = append(names, v.Name)
	}
	var warnings []string
	for _, line := range environment {
		name, value, _ := strings.Cut(line, "=")
		if known[name] || name == "" || isServiceLink(name, value) {
			continue
		}
		best, edits := nearest.Of(name, names)
		ours := false
		for _, p := range prefixes {
			ours = ours || strings.HasPrefix(name, p)
		}
		if ours || edits <= 2 && len(best) >= 8 {
			warnings = append(warnings, fmt.Sprintf("environment variable %s is not a setting; the nearest is %s", name, best))
		}
	}
	return warnings
}

// serviceLink matches the names by which Kubernetes tells every container of
// the services in its namespace.
var serviceLink = regexp.MustCompile(`_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`)

// isServiceLink says whether a variable is one of those.
func isServiceLink(name, value string) bool {
	return serviceLink.MatchString(name) || strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://")
}
