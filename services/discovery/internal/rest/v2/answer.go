package v2

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/httpjson"
)

// fault is one thing that is wrong with a call.
type fault struct {
	// Field is a member of the body by its path, such as "ports.http", a
	// parameter by its name, or "body".
	Field  string `json:"field"`
	Reason string `json:"reason"`
}

// faults gathers what is wrong with a call, so that all is said at once.
type faults []fault

func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, fault{field, fmt.Sprintf(format, args...)})
}

// fieldName is a name of somebody else's as a field shows it: an empty one in
// quotes.
func fieldName(name string) string { return cmp.Or(name, `""`) }

// refusal returns nil if there are no faults.
func (f faults) refusal() error {
	if len(f) == 0 {
		return nil
	}
	reasons := make([]string, len(f))
	for i, fault := range f {
		reasons[i] = fault.Field + ": " + fault.Reason
	}
	return &refusal{status: http.StatusBadRequest, reason: strings.Join(reasons, "; "), fields: f}
}

// refusal is an answer to a call that is the caller's to mend, or to repeat.
type refusal struct {
	status int
	reason string
	fields faults
	// retryAfter is in seconds; empty where trying again would not help.
	retryAfter string
}

func (r *refusal) Error() string { return r.reason }

// refuse makes a refusal that is not of single fields.
func refuse(status int, format string, args ...any) error {
	return &refusal{status: status, reason: fmt.Sprintf(format, args...)}
}

// errorJSON is how a refusal is answered.
type errorJSON struct {
	Error  string `json:"error"`
	Fields faults `json:"fields,omitempty"`
}

// answer writes v as JSON, and returns the status.
func answer(w http.ResponseWriter, status int, v any) int {
	httpjson.Answer(w, status, v)
	return status
}

// answerNothing answers 204.
func answerNothing(w http.ResponseWriter) int {
	w.WriteHeader(http.StatusNoContent)
	return http.StatusNoContent
}

// timeForm is how times are written: RFC 3339 in UTC, to the millisecond.
const timeForm = "2006-01-02T15:04:05.000Z"

func stamp(t time.Time) string { return t.UTC().Format(timeForm) }

// hexDigits is how many digits a lease or an index has.
const hexDigits = 16

// appendHex appends a lease or an index in quotes, as JSON and ETags have it.
func appendHex(b []byte, number uint64) []byte {
	b = append(b, '"')
	for shift := 4 * (hexDigits - 1); shift >= 0; shift -= 4 {
		b = append(b, "0123456789abcdef"[number>>shift&0xf])
	}
	return append(b, '"')
}

func leaseText(l registry.Lease) string   { return fmt.Sprintf("%016x", uint64(l)) }
func indexText(v registry.Version) string { return fmt.Sprintf("%016x", uint64(v)) }

// readHex reads what appendHex writes between the quotes.
func readHex(text string) (number uint64, ok bool) {
	if len(text) != hexDigits || strings.ContainsAny(text, "ABCDEF") {
		return 0, false
	}
	number, err := strconv.ParseUint(text, 16, 64)
	return number, err == nil
}
