package v2

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// query is the query of a call, whose parameters are taken one by one; what is
// left at the end means nothing here.
type query struct {
	values url.Values
	faults faults
}

func readQuery(r *http.Request) *query {
	q := &query{}
	if r.URL.RawQuery == "" {
		return q
	}
	var err error
	if q.values, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		q.faults.add("query", "%v", err)
	}
	return q
}

// end refuses the parameters that nobody took, and returns all that is wrong
// with the query as a *refusal, or nil.
func (q *query) end() error {
	if len(q.values) == 0 {
		return q.faults.refusal()
	}
	for _, name := range slices.Sorted(maps.Keys(q.values)) {
		q.faults.add(fieldName(name), "unknown")
	}
	return q.faults.refusal()
}

// all takes the values of a parameter.
func (q *query) all(name string) []string {
	if len(q.values) == 0 {
		return nil
	}
	values := q.values[name]
	delete(q.values, name)
	for _, value := range values {
		if !utf8.ValidString(value) {
			q.faults.add(name, "%q is not UTF-8", value)
		}
	}
	return values
}

// text takes a parameter that is there once at most.
func (q *query) text(name string) (value string, given bool) {
	values := q.all(name)
	if len(values) == 0 {
		return "", false
	}
	if len(values) > 1 {
		q.faults.add(name, "there %d times", len(values))
	}
	return values[0], true
}

// checked is text for one that check finds nothing wrong with.
func (q *query) checked(name string, check func(string) error) (value string, given bool) {
	value, given = q.text(name)
	if given {
		if err := check(value); err != nil {
			q.faults.add(name, "%v", err)
		}
	}
	return value, given
}

// oneOf takes a parameter with few values; empty if it is not given.
func (q *query) oneOf(name string, choices ...string) string {
	value, given := q.text(name)
	if given && !slices.Contains(choices, value) {
		q.faults.add(name, "%q is not one of %s", value, strings.Join(choices, ", "))
	}
	return value
}

// duration takes a duration above 0 and up to most; 0 if it is not given.
func (q *query) duration(name string, most time.Duration) time.Duration {
	value, given := q.text(name)
	if !given {
		return 0
	}
	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 || d > most {
		q.faults.add(name, "%q is not a duration above 0 and up to %v, such as \"30s\"", value, most)
		return 0
	}
	return d
}
