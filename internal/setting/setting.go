// Package setting says what is wrong with settings of a program, and of which, be they
// variables of its environment or flags. Services check theirs with it, and command
// lines, which tell all that is wrong at once, leave out what is said of values that
// could not be read. It reads no setting itself.
package setting

import (
	"errors"
	"fmt"
	"slices"
)

// Value is a setting with its value, as it stands in errors.
type Value struct{ name, text string }

// Variable is one of the environment: PORT=70000.
func Variable(name string, value any) Value { return Value{name, fmt.Sprintf("%s=%v", name, value)} }

// Flag is one of the command line: --port 70000.
func Flag(name string, value any) Value { return Value{name, fmt.Sprintf("--%s %v", name, value)} }

// String is the setting as the user would write it.
func (v Value) String() string { return v.text }

// Fault is what is wrong with settings.
type Fault struct {
	// Names are those of the settings, without the hyphens of flags.
	Names []string
	Err   error
}

// Faultf is a Fault with the text of fmt.Errorf, of the settings that are Values among
// args.
func Faultf(format string, args ...any) *Fault {
	f := &Fault{Err: fmt.Errorf(format, args...)}
	for _, arg := range args {
		if v, ok := arg.(Value); ok {
			f.Names = append(f.Names, v.name)
		}
	}
	return f
}

// Error implements error.
func (f *Fault) Error() string { return f.Err.Error() }

// Unwrap is for package errors.
func (f *Fault) Unwrap() error { return f.Err }

// Names are those of all settings that err is about: one Fault, or several joined.
func Names(err error) (names []string) {
	for _, one := range parts(err) {
		if fault, ok := errors.AsType[*Fault](one); ok {
			names = append(names, fault.Names...)
		}
	}
	return names
}

// Without is err but for each Fault, of those joined in it, of a setting of these names.
func Without(err error, names []string) error {
	return errors.Join(slices.DeleteFunc(parts(err), func(one error) bool {
		return slices.ContainsFunc(Names(one), func(name string) bool { return slices.Contains(names, name) })
	})...)
}

// parts are the errors that are joined in err, or err alone.
func parts(err error) (list []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	switch {
	case err == nil:
		return nil
	case !ok:
		return []error{err}
	}
	for _, one := range joined.Unwrap() {
		list = append(list, parts(one)...)
	}
	return list
}
