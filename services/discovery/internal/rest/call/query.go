package call

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Query is the query of a call, whose parameters are taken one by one; what is
// left at the end means nothing here.
type Query struct {
	// Faults is what is wrong with the call, and may be added to.
	Faults Faults
	values url.Values
}

// ReadQuery reads the query of a call.
func ReadQuery(r *http.Request) *Query {
	q := &Query{}
	if r.URL.RawQuery == "" {
		return q
	}
	var err error
	if q.values, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		q.Faults.Add("query", "%v", err)
	}
	return q
}

// End refuses the parameters that nobody took, and returns all that is wrong
// with the query as a *Refusal, or nil.
func (q *Query) End() error {
	if len(q.values) == 0 {
		return q.Faults.Refusal()
	}
	for _, name := range slices.Sorted(maps.Keys(q.values)) {
		q.Faults.Add(FieldName(name), "unknown")
	}
	return q.Faults.Refusal()
}

// All takes the values of a parameter.
func (q *Query) All(name string) []string {
	if len(q.values) == 0 {
		return nil
	}
	values := q.values[name]
	delete(q.values, name)
	for _, value := range values {
		if !utf8.ValidString(value) {
			q.Faults.Add(name, "%q is not UTF-8", value)
		}
	}
	return values
}

// Text takes a parameter that is there once at most.
func (q *Query) Text(name string) (value string, given bool) {
	values := q.All(name)
	if len(values) == 0 {
		return "", false
	}
	if len(values) > 1 {
		q.Faults.Add(name, "there %d times", len(values))
	}
	return values[0], true
}

// Checked is Text for one that check finds nothing wrong with.
func (q *Query) Checked(name string, check func(string) error) (value string, given bool) {
	value, given = q.Text(name)
	if given {
		if err := check(value); err != nil {
			q.Faults.Add(name, "%v", err)
		}
	}
	return value, given
}

// OneOf takes a parameter with few values; empty if it is not given.
func (q *Query) OneOf(name string, choices ...string) string {
	value, given := q.Text(name)
	if given && !slices.Contains(choices, value) {
		q.Faults.Add(name, "%q is not one of %s", value, strings.Join(choices, ", "))
	}
	return value
}

// Duration takes a duration above 0 and up to most; 0 if it is not given.
func (q *Query) Duration(name string, most time.Duration) time.Duration {
	value, given := q.Text(name)
	if !given {
		return 0
	}
	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 || d > most {
		q.Faults.Add(name, "%q is not a duration above 0 and up to %v, such as \"30s\"", value, most)
		return 0
	}
	return d
}

// Number takes a number from least to most; usual if it is not given.
func (q *Query) Number(name string, usual, least, most int) int {
	text, given := q.Text(name)
	if !given {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		q.Faults.Add(name, "%q is not a number from %d to %d", text, least, most)
		return usual
	}
	return n
}
