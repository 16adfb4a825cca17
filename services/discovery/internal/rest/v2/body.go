package v2

import (
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	"github.com/weirproxy/weir/services/discovery/internal/rest/jsontext"
	"github.com/weirproxy/weir/services/discovery/internal/rule"
)

// readBody reads a JSON body of limit bytes at most, within the time that the
// listener gives. The error is a *call.Refusal. A body whose text some readers would
// take for another is a fault, beside those of what it says.
func readBody(w http.ResponseWriter, r *http.Request, limit int64, f *call.Faults) ([]byte, error) {
	given := r.Header.Get("Content-Type")
	switch media, parameters, err := mime.ParseMediaType(given); {
	case err != nil || media != "application/json":
		return nil, call.Refuse(http.StatusUnsupportedMediaType, "content-type %q: the body must be application/json", given)
	case !call.IsUTF8(parameters):
		return nil, call.Refuse(http.StatusUnsupportedMediaType, "content-type %q: JSON is read as UTF-8 alone", given)
	}
	body, err := call.ReadBody(w, r, limit)
	if err != nil {
		return nil, err
	}
	if err := jsontext.CheckText(body); err != nil {
		f.Add("body", "%v", err)
	}
	return body, nil
}

// object is a JSON object whose members are taken one by one, by what they must
// be; what is left at the end means nothing here. Faults go to one list.
type object struct {
	path    string // of the object, with a dot at its end; "" for the body
	members map[string]json.RawMessage
	faults  *call.Faults
}

// readObject reads a JSON object at a path of the body; "" is the body itself.
// Of what is no object no member is there.
func readObject(text []byte, path string, f *call.Faults) *object {
	members, twice, err := jsontext.ReadObject(text)
	o := &object{members: members, faults: f}
	place := "body"
	if path != "" {
		o.path, place = path+".", path
	}
	if err != nil {
		f.Add(place, "%v", err)
	}
	for _, name := range twice {
		o.fault(name, "there twice")
	}
	if len(twice) == jsontext.MaxTwice {
		f.Add(place, "more names may be there twice: %d are told", len(twice))
	}
	return o
}

func (o *object) fault(name, format string, args ...any) {
	o.faults.Add(o.path+call.FieldName(name), format, args...)
}

// take removes a member from o.
func (o *object) take(name string) (value json.RawMessage, given bool) {
	value, given = o.members[name]
	delete(o.members, name)
	return value, given
}

// end refuses the members that nobody took.
func (o *object) end() {
	for _, name := range slices.Sorted(maps.Keys(o.members)) {
		o.fault(name, "unknown")
	}
}

// missing refuses that a member is not given, unless all of o is.
func (o *object) missing(name string) {
	if o.members != nil {
		o.fault(name, "missing")
	}
}

// text takes a string that check finds nothing wrong with; empty if it is not
// given.
func (o *object) text(name string, check func(string) error) (text string, given bool) {
	value, given := o.take(name)
	if !given {
		return "", false
	}
	text, ok := readString(value)
	if !ok {
		o.fault(name, "%s is not a string", short(value))
	} else if err := check(text); err != nil {
		o.fault(name, "%v", err)
	}
	return text, true
}

// atMost checks that a text has most bytes at most, and no control characters.
func atMost(most int) func(string) error {
	return func(text string) error {
		if len(text) > most {
			return fmt.Errorf("has %d bytes, of %d at most", len(text), most)
		}
		return rule.Text(text)
	}
}

// integer takes an integer from 1 to most; 0 if it is not given.
func (o *object) integer(name string, most uint64) (number uint64, given bool) {
	value, given := o.take(name)
	if !given {
		return 0, false
	}
	number, err := strconv.ParseUint(string(value), 10, 64)
	if err != nil || number < 1 || number > most {
		o.fault(name, "%s is not an integer from 1 to %d", short(value), most)
		return 0, true
	}
	return number, true
}

// boolean takes true or false; nil if it is not given.
func (o *object) boolean(name string) *bool {
	value, given := o.take(name)
	if !given {
		return nil
	}
	truth := string(value) == "true"
	if !truth && string(value) != "false" {
		o.fault(name, "%s is not true or false", short(value))
	}
	return &truth
}

// duration takes a duration in whole seconds, from 1 s to most; 0 if it is not
// given.
func (o *object) duration(name string, most time.Duration) time.Duration {
	value, given := o.take(name)
	if !given {
		return 0
	}
	text, isString := readString(value)
	d, err := time.ParseDuration(text)
	if !isString || err != nil || d < time.Second || d > most || d%time.Second != 0 {
		o.fault(name, "%s is not a duration from 1s to %v in whole seconds, such as \"30s\"", short(value), most)
		return 0
	}
	return d
}

// list takes an array of most elements at most.
func (o *object) list(name string, most int) []json.RawMessage {
	value, given := o.take(name)
	if !given {
		return nil
	}
	var elements []json.RawMessage
	if json.Unmarshal(value, &elements) != nil || elements == nil {
		o.fault(name, "%s is not an array", short(value))
		return nil
	}
	if len(elements) > most {
		o.fault(name, "has %d elements, of %d at most", len(elements), most)
		return nil
	}
	return elements
}

// object takes an object; one without members if it is not given.
func (o *object) object(name string) *object {
	value, given := o.take(name)
	if !given {
		return &object{faults: o.faults}
	}
	return readObject(value, o.path+name, o.faults)
}

// names are those of the members, in order.
func (o *object) names() []string { return slices.Sorted(maps.Keys(o.members)) }

// readString returns what a JSON string says. null is none.
func readString(value json.RawMessage) (text string, ok bool) {
	if len(value) == 0 {
		return "", false
	}
	return jsontext.Text(string(value))
}

// short is a JSON value as a reason shows it.
func short(value json.RawMessage) string {
	const most = 64
	if len(value) <= most {
		return string(value)
	}
	cut := most
	for !utf8.RuneStart(value[cut]) {
		cut--
	}
	return string(value[:cut]) + "…"
}
