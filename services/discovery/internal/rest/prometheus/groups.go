package prometheus

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// group is targets with the same labels, both in JSON.
type group struct {
	labels  string
	targets []byte
}

// appendGroups appends the hosts of a service to a list of groups that is open:
// those that serve or drain, and have a port of that name. Hosts of which all
// labels are the same are one group, in the place of the first of them.
func appendGroups(list []byte, hosts []registry.View, port string) []byte {
	var groups []group
	places := map[string]int{} // in groups, by labels
	var labels []byte
	for i := range hosts {
		v := &hosts[i]
		number := portOf(v.Host, port)
		if v.State == registry.Out || number == 0 {
			continue
		}
		labels = appendLabels(labels[:0], v)
		place, known := places[string(labels)]
		if !known {
			place = len(groups)
			groups = append(groups, group{labels: string(labels)})
			places[groups[place].labels] = place
		}
		g := &groups[place]
		if len(g.targets) > 0 {
			g.targets = append(g.targets, ',')
		}
		g.targets = append(g.targets, '"')
		g.targets = netip.AddrPortFrom(v.Host.Address.Addr(), number).AppendTo(g.targets)
		g.targets = append(g.targets, '"')
	}
	for i := range groups {
		if list[len(list)-1] != '[' {
			list = append(list, ",\n"...)
		}
		list = append(list, `{"targets":[`...)
		list = append(list, groups[i].targets...)
		list = append(list, `],"labels":`...)
		list = append(list, groups[i].labels...)
		list = append(list, '}')
	}
	return list
}

// portOf is the port of a host by its name, empty for the main one, or 0 if it
// has none of that name.
func portOf(h *registry.Host, name string) uint16 {
	if name == "" {
		return h.Address.Port()
	}
	for _, p := range h.Ports {
		if p.Name == name {
			return p.Number
		}
	}
	return 0
}

// appendLabels appends the labels of a host as a JSON object. What a host does
// not say it has no label for, which is the same to Prometheus as an empty one.
func appendLabels(b []byte, v *registry.View) []byte {
	b = append(b, `{"__meta_discovery_service":`...)
	b = httpjson.AppendText(b, v.Host.Service)
	b = append(b, `,"__meta_discovery_state":"`...)
	b = append(b, v.State.String()...)
	b = append(b, '"')
	if v.Stale {
		b = append(b, `,"__meta_discovery_stale":"true"`...)
	}
	for _, label := range [...]struct{ name, value string }{
		{"zone", v.Host.Tags.Zone},
		{"region", v.Host.Tags.Region},
		{"revision", v.Host.Revision},
		{"repo", v.Host.Repo},
	} {
		if label.value != "" {
			b = append(b, `,"__meta_discovery_`...)
			b = append(b, label.name...)
			b = append(b, `":`...)
			b = httpjson.AppendText(b, label.value)
		}
	}
	if v.Unhealthy {
		b = append(b, `,"__meta_discovery_unhealthy":"true"`...)
	}
	if canary := v.Host.Tags.Canary; canary != nil {
		b = append(b, `,"__meta_discovery_canary":"`...)
		b = strconv.AppendBool(b, *canary)
		b = append(b, '"')
	}
	b = appendTags(b, &v.Host.Tags)
	return append(b, '}')
}

// appendTags appends a label for each tag that the labels above do not tell. Of
// tags whose names become the same, the first in order has the label.
func appendTags(b []byte, t *registry.Tags) []byte {
	taken := make(map[string]struct{}, len(t.Other))
	for _, tag := range t.Other {
		value := tag.Value
		label := sanitize(tag.Name)
		if _, known := taken[label]; known || string(value) == "null" {
			continue
		}
		taken[label] = struct{}{}
		b = append(b, `,"__meta_discovery_tag_`...)
		b = append(b, label...)
		b = append(b, `":`...)
		if bytes.HasPrefix(value, []byte{'"'}) {
			b = append(b, value...)
		} else { // a label is text
			b = httpjson.AppendText(b, string(value))
		}
	}
	return b
}

// sanitize replaces what a label's name cannot hold by underscores, as
// Prometheus does with the names that it finds in other registries.
func sanitize(name string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '_', '0' <= c && c <= '9', 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z':
			return c
		default:
			return '_'
		}
	}, name)
}
