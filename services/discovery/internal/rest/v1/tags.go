package v1

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// The tags that mean something here; all others are kept as they are.
const (
	tagZone       = "az"
	tagRegion     = "region"
	tagInstanceID = "instance_id"
	tagCanary     = "canary"
	tagWeight     = "load_balancing_weight"
)

// readTags reads the tags field of a form, a JSON object, and adds to faults
// what is wrong with it. Text is taken for canary and weight too, if it says
// what a boolean or an integer would.
func readTags(text string, faults *faults) registry.Tags {
	var values map[string]json.RawMessage
	if text == "" {
		text = "{}"
	}
	if !utf8.ValidString(text) { // a value is kept as written, and would spoil lists
		faults.add("tags: not UTF-8")
		return registry.Tags{}
	}
	if err := json.Unmarshal([]byte(text), &values); err != nil {
		faults.add("tags: not a JSON object: %v", err)
		return registry.Tags{}
	}
	if values == nil {
		faults.add("tags: not a JSON object: null")
		return registry.Tags{}
	}
	if members(text) != len(values) {
		for _, name := range repeated(text) {
			faults.add("tags: %q is there twice", name)
		}
	}
	tags := registry.Tags{
		Zone:       takeText(values, tagZone, faults),
		Region:     takeText(values, tagRegion, faults),
		InstanceID: takeText(values, tagInstanceID, faults),
		Canary:     takeCanary(values, faults),
		Weight:     takeWeight(values, faults),
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		var compact bytes.Buffer
		// Cannot fail: the value was part of a JSON text that was read.
		_ = json.Compact(&compact, values[name])
		values[name] = compact.Bytes()
	}
	if len(values) > 0 {
		tags.Other = values
	}
	return tags
}

// members counts the members of a JSON object, which must be one. Of those with
// one name, Unmarshal keeps the last alone.
func members(object string) int {
	count, depth, quoted := 0, 0, false
	for i := 0; i < len(object); i++ {
		switch c := object[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		case c == ':' && depth == 1:
			count++
		}
	}
	return count
}

// repeated are the names that a JSON object has more than once, in order.
func repeated(object string) []string {
	decoder := json.NewDecoder(strings.NewReader(object))
	_, err := decoder.Token() // the brace; nothing fails here, since the object was read before
	times := map[string]int{}
	for err == nil && decoder.More() {
		var name json.Token
		if name, err = decoder.Token(); err == nil {
			times[fmt.Sprint(name)]++
			err = decoder.Decode(new(json.RawMessage))
		}
	}
	maps.DeleteFunc(times, func(_ string, n int) bool { return n == 1 })
	return slices.Sorted(maps.Keys(times))
}

// take removes a tag from values; a tag of null counts as not given.
func take(values map[string]json.RawMessage, name string) (json.RawMessage, bool) {
	value, ok := values[name]
	delete(values, name)
	return value, ok && string(value) != "null"
}

func takeText(values map[string]json.RawMessage, name string, faults *faults) string {
	value, given := take(values, name)
	if !given {
		faults.add("tags.%s: missing", name)
		return ""
	}
	var text string
	if json.Unmarshal(value, &text) != nil {
		faults.add("tags.%s: %s is not a string", name, value)
	}
	return text
}

func takeCanary(values map[string]json.RawMessage, faults *faults) *bool {
	value, given := take(values, tagCanary)
	if !given {
		return nil
	}
	canary := false
	switch unquote(value) {
	case "true":
		canary = true
	case "false":
	default:
		faults.add("tags.%s: %s is not true or false", tagCanary, value)
	}
	return &canary
}

func takeWeight(values map[string]json.RawMessage, faults *faults) uint8 {
	value, given := take(values, tagWeight)
	if !given {
		return 0
	}
	weight, err := readWeight(unquote(value))
	if err != nil {
		faults.add("tags.%s: %v", tagWeight, err)
	}
	return weight
}

// unquote returns what a JSON string says, and any other value as written.
func unquote(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) == nil {
		return text
	}
	return string(value)
}

// readWeight reads a load balancing weight.
func readWeight(text string) (uint8, error) {
	weight, err := strconv.ParseUint(text, 10, 8)
	if err != nil || weight < 1 || weight > 100 {
		return 0, fmt.Errorf("%q is not an integer from 1 to 100", text)
	}
	return uint8(weight), nil
}

// appendTags appends tags as lists show them.
func appendTags(b []byte, t *registry.Tags) []byte {
	b = append(b, `{"az":`...)
	b = appendText(b, t.Zone)
	b = append(b, `,"region":`...)
	b = appendText(b, t.Region)
	b = append(b, `,"instance_id":`...)
	b = appendText(b, t.InstanceID)
	if t.Canary != nil {
		b = append(b, `,"canary":`...)
		b = strconv.AppendBool(b, *t.Canary)
	}
	if t.Weight != 0 {
		b = append(b, `,"load_balancing_weight":`...)
		b = strconv.AppendUint(b, uint64(t.Weight), 10)
	}
	names := make([]string, 0, 16) // on the stack, for as many tags as are common
	for name := range t.Other {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b = append(b, ',')
		b = appendText(b, name)
		b = append(b, ':')
		b = append(b, t.Other[name]...)
	}
	return append(b, '}')
}
