package call

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Refusal is an answer to a call that is the caller's to mend, or to repeat.
type Refusal struct {
	Status int
	Reason string
	// Fields are told beside the reason; nil where it is not of single fields.
	Fields Faults
	// RetryAfter is after how long to try again; 0 where that would not help.
	RetryAfter time.Duration
	// Cause is the error that the refusal comes of, so that a limit that is behind
	// it is counted; nil if there is none.
	Cause error
}

func (r *Refusal) Error() string { return r.Reason }

// Unwrap is for errors.Is.
func (r *Refusal) Unwrap() error { return r.Cause }

// Refuse makes a refusal that is not of single fields.
func Refuse(status int, format string, args ...any) error {
	return &Refusal{Status: status, Reason: fmt.Sprintf(format, args...)}
}

// Fault is one thing that is wrong with a call.
type Fault struct {
	// Field is a member of the body by its path, such as "ports.http", a
	// parameter by its name, or "body".
	Field  string `json:"field"`
	Reason string `json:"reason"`
}

// Faults gathers what is wrong with a call, so that all is said at once.
type Faults []Fault

// Add adds a fault of a field.
func (f *Faults) Add(field, format string, args ...any) {
	*f = append(*f, Fault{field, fmt.Sprintf(format, args...)})
}

// AddOnce is Add unless the same was added before: of a value that is there often
// once is enough.
func (f *Faults) AddOnce(field, format string, args ...any) {
	if fault := (Fault{field, fmt.Sprintf(format, args...)}); !slices.Contains(*f, fault) {
		*f = append(*f, fault)
	}
}

// FieldName is a name of somebody else's as a field shows it: an empty one in
// quotes.
func FieldName(name string) string { return cmp.Or(name, `""`) }

// Refusal is a *Refusal that tells the faults in its reason and field by field;
// nil if there are none.
func (f Faults) Refusal() error {
	if len(f) == 0 {
		return nil
	}
	return &Refusal{Status: http.StatusBadRequest, Reason: f.reason(), Fields: f}
}

// Line is a *Refusal that tells the faults in its reason alone; nil if there are
// none.
func (f Faults) Line() error {
	if len(f) == 0 {
		return nil
	}
	return &Refusal{Status: http.StatusBadRequest, Reason: f.reason()}
}

func (f Faults) reason() string {
	reasons := make([]string, len(f))
	for i, fault := range f {
		reasons[i] = fault.Field + ": " + fault.Reason
	}
	return strings.Join(reasons, "; ")
}
