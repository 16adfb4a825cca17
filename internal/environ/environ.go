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
	"reflect"
	"strings"
	"text/tabwriter"

	"github.com/kelseyhightower/envconfig"
)

// Load fills *settings, a pointer to a struct, from the process' environment.
// The error names the variable, its value and what it should have been.
func Load(settings any) error {
	err := envconfig.Process("", settings)
	var parse *envconfig.ParseError
	if !errors.As(err, &parse) {
		return err
	}
	want := parse.TypeName
	for _, v := range Variables(settings) {
		if v.Name == parse.KeyName {
			want = v.Type
		}
	}
	return fmt.Errorf("environment variable %s=%q: want %s: %w", parse.KeyName, parse.Value, want, parse.Err)
}

// Variable is one setting as its tags describe it.
type Variable struct{ Name, Type, Default, Meaning string }

// Variables lists the settings of a struct, or a pointer to one, in the order
// of its fields; embedded structs stand where they are embedded.
func Variables(settings any) []Variable {
	t := reflect.TypeOf(settings)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var list []Variable
	for f := range t.Fields() {
		if f.Anonymous {
			list = append(list, Variables(reflect.New(f.Type).Interface())...)
			continue
		}
		if name := f.Tag.Get("envconfig"); name != "" {
			list = append(list, Variable{name, typeName(f.Type), f.Tag.Get("default"), f.Tag.Get("desc")})
		}
	}
	return list
}

func typeName(t reflect.Type) string {
	switch t.Kind() {
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
	for _, v := range Variables(settings) {
		known[v.Name] = true
	}
	var warnings []string
	for _, line := range environment {
		name, _, _ := strings.Cut(line, "=")
		if known[name] || name == "" {
			continue
		}
		best, distance := "", 1<<30
		for _, v := range Variables(settings) {
			if d := editDistance(name, v.Name); d < distance {
				best, distance = v.Name, d
			}
		}
		ours := false
		for _, p := range prefixes {
			ours = ours || strings.HasPrefix(name, p)
		}
		if ours || distance <= 2 && len(best) >= 8 {
			warnings = append(warnings, fmt.Sprintf("environment variable %s is not a setting; the nearest is %s", name, best))
		}
	}
	return warnings
}

// editDistance counts the letters to insert, delete or replace (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
