package v1

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	"github.com/weirproxy/weir/services/discovery/internal/rest/jsontext"
	"github.com/weirproxy/weir/services/discovery/internal/rule"
)

// The tags that mean something here; all others are kept as they are.
const (
	tagZone       = "az"
	tagRegion     = "region"
	tagInstanceID = "instance_id"
	tagCanary     = "canary"
	tagWeight     = "load_balancing_weight"
)

// known are the members of tags that mean something, as JSON; empty where the
// member is not there.
type known struct {
	zone, region, instanceID, canary, weight string
}

// find returns the member of a name, or nil if the name means nothing.
func (k *known) find(name string) *string {
	switch name {
	case tagZone:
		return &k.zone
	case tagRegion:
		return &k.region
	case tagInstanceID:
		return &k.instanceID
	case tagCanary:
		return &k.canary
	case tagWeight:
		return &k.weight
	default:
		return nil
	}
}

// readTags reads the tags field of a form, a JSON object, and adds to faults
// what is wrong with it. Text is taken for canary and weight too, if it says
// what a boolean or an integer would. Those that mean something may be parts of what
// the field says; the others are copies.
func readTags(from *field, faults *call.Faults) registry.Tags {
	if from.bad {
		return registry.Tags{}
	}
	text := from.value
	if text == "" {
		text = "{}"
	}
	object := []byte(text)
	if err := jsontext.CheckText(object); err != nil { // a value is kept as written, and would spoil lists
		faults.Add("tags", "%v", err)
	}
	if err := jsontext.CheckObject(object); err != nil {
		faults.Add("tags", "%v", err)
		return registry.Tags{}
	}
	var given known
	var other map[string]json.RawMessage
	var repeated []string
	for name, value := range jsontext.Members(text) {
		member := given.find(name)
		_, isOther := other[name]
		switch {
		case isOther || member != nil && *member != "":
			if len(repeated) < jsontext.MaxTwice && !slices.Contains(repeated, name) {
				repeated = append(repeated, name)
				faults.Add("tags", "%q is there more than once", name)
			}
		case member != nil:
			*member = value
		default:
			if err := rule.Name(name); err != nil {
				faults.Add("tags", "%v", err)
			}
			if err := jsontext.CheckValue([]byte(value)); err != nil {
				faults.Add("tags."+name, "%v", err)
			}
			if other == nil {
				other = map[string]json.RawMessage{}
			}
			other[strings.Clone(name)] = jsontext.Compact(value)
		}
	}
	if len(repeated) == jsontext.MaxTwice {
		faults.Add("tags", "more names may be there more than once: %d are told", len(repeated))
	}
	return registry.Tags{
		Zone:       readText(tagZone, given.zone, faults),
		Region:     readText(tagRegion, given.region, faults),
		InstanceID: readText(tagInstanceID, given.instanceID, faults),
		Canary:     readCanary(given.canary, faults),
		Weight:     readTagWeight(given.weight, faults),
		Other:      registry.TagListOf(other),
	}
}

// isNull reports whether a member is not there, or null, which is the same.
func isNull(value string) bool { return value == "" || value == "null" }

func readText(name, value string, faults *call.Faults) string {
	if isNull(value) {
		faults.Add("tags."+name, "missing")
		return ""
	}
	text, ok := jsontext.Text(value)
	if !ok {
		faults.Add("tags."+name, "%s is not a string", value)
	} else if err := rule.Text(text); err != nil {
		faults.Add("tags."+name, "%v", err)
	}
	return text
}

func readCanary(value string, faults *call.Faults) *bool {
	if isNull(value) {
		return nil
	}
	canary := false
	switch unquote(value) {
	case "true":
		canary = true
	case "false":
	default:
		faults.Add("tags."+tagCanary, "%s is not true or false", value)
	}
	return &canary
}

func readTagWeight(value string, faults *call.Faults) uint8 {
	if isNull(value) {
		return 0
	}
	weight, err := readWeight(unquote(value))
	if err != nil {
		faults.Add("tags."+tagWeight, "%v", err)
	}
	return weight
}

// unquote returns what a JSON string says, and any other value as written.
func unquote(value string) string {
	if text, ok := jsontext.Text(value); ok {
		return text
	}
	return value
}

// readWeight reads a load balancing weight.
func readWeight(text string) (uint8, error) {
	weight, err := strconv.ParseUint(text, 10, 8)
	if err != nil || weight < 1 || weight > 100 {
		return 0, fmt.Errorf("%q is not an integer from 1 to 100", text)
	}
	return uint8(weight), nil
}

// appendTags appends tags as lists show them, with the weight that holds, if
// there is one. Hosts that came otherwise than by v1 may have further tags of
// names that mean something here: these are not shown.
func appendTags(b []byte, t *registry.Tags, weight uint8) []byte {
	b = append(b, `{"az":`...)
	b = httpjson.AppendText(b, t.Zone)
	b = append(b, `,"region":`...)
	b = httpjson.AppendText(b, t.Region)
	b = append(b, `,"instance_id":`...)
	b = httpjson.AppendText(b, t.InstanceID)
	if t.Canary != nil {
		b = append(b, `,"canary":`...)
		b = strconv.AppendBool(b, *t.Canary)
	}
	if weight != 0 {
		b = append(b, `,"load_balancing_weight":`...)
		b = strconv.AppendUint(b, uint64(weight), 10)
	}
	var meaning known
	for _, tag := range t.Other {
		if meaning.find(tag.Name) != nil {
			continue
		}
		b = append(b, ',')
		b = httpjson.AppendText(b, tag.Name)
		b = append(b, ':')
		b = append(b, tag.Value...)
	}
	return append(b, '}')
}
