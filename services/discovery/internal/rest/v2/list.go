package v2

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	"github.com/weirproxy/weir/services/discovery/internal/rest/sheet"
)

// list answers with the hosts of a service that pass a filter, at once or,
// where the caller knows what is there, when that changes. An unknown service is
// no error: a reader cannot tell it from one without hosts.
func (f *face) list(w http.ResponseWriter, r *http.Request) (int, error) {
	query, err := f.readListQuery(r)
	if err != nil {
		return 0, err
	}
	if query.wait > 0 || !query.filter.passesAll() {
		return f.listSome(w, r, query)
	}
	var room [registry.CommonHosts]registry.Instant
	reading, err := f.lists.Read(room[:0], query.service)
	if err != nil {
		return 0, err
	}
	list := reading.Kept
	if err := reading.Safe(list.Hosts == 0, query.hasKnown || httpjson.Holds(r)); err != nil {
		return 0, err
	}
	if !reading.Partial && query.unmodified(w, r, list.Version, list.Tag()) {
		return http.StatusNotModified, nil
	}
	return list.Answer(w, reading.CheckIns)
}

// listSome is list for hosts that are picked out or waited for.
func (f *face) listSome(w http.ResponseWriter, r *http.Request, query listQuery) (int, error) {
	listing, err := f.registry.List(query.service)
	if err != nil {
		return 0, err
	}
	if query.wait > 0 && query.waitsFor(&listing) {
		if listing, err = f.await(w, r, query); err != nil {
			return 0, err
		}
	}
	listing.Hosts = slices.DeleteFunc(listing.Hosts, func(v registry.View) bool { return !query.filter.passes(&v) })
	if err := listing.Safe(len(listing.Hosts) == 0, query.hasKnown || httpjson.Holds(r)); err != nil {
		return 0, err
	}
	if !listing.Partial && query.unmodified(w, r, listing.Version, tagOf(&listing)) {
		return http.StatusNotModified, nil
	}
	return httpjson.Compose(w, func(b []byte) []byte {
		return appendList(b, query.service, &listing, appendTime)
	})
}

// makeSheet makes what list answers with of the hosts of a service.
func makeSheet(service string, listing *registry.Listing) *sheet.Sheet {
	draft := sheet.NewDraft(&timeForm)
	at := 0
	body := appendList(sheet.Room(len(listing.Hosts)), service, listing, func(b []byte, _ *registry.View) []byte {
		at++
		return draft.LeaveTime(b, at-1)
	})
	return draft.End(body, listing.Version, tagOf(listing))
}

// tagOf is the entity tag of a list, as http.Header has it.
func tagOf(list *registry.Listing) []string { return httpjson.Tag(uint64(list.Version)) }

// unmodified is httpjson.Unmodified for a caller that may show what it has by
// index too. It is not for a partial list, which has no entity tag: who holds one so
// has it from before.
func (q *listQuery) unmodified(w http.ResponseWriter, r *http.Request, version registry.Version, tag []string) bool {
	if !q.hasKnown {
		return httpjson.Unmodified(w, r, tag)
	}
	w.Header()["Etag"] = tag
	if q.known == version {
		w.WriteHeader(http.StatusNotModified)
		return true
	}
	return false
}

// listQuery is what a call for a list asks for.
type listQuery struct {
	service string
	filter  filter
	// known is the version that the caller has, if hasKnown; wait is how long
	// another is waited for.
	known    registry.Version
	hasKnown bool
	wait     time.Duration
}

// waitsFor reports whether a caller that waits is not to be answered with list:
// it has that, or the list is partial, and would take from what it has.
func (q *listQuery) waitsFor(list *registry.Listing) bool {
	return list.Partial || q.known == list.Version
}

// readListQuery reads the path and the query of a list. The error is a *call.Refusal.
func (f *face) readListQuery(r *http.Request) (listQuery, error) {
	if r.URL.RawQuery == "" { // the most common, without garbage
		var faults call.Faults
		return listQuery{service: pathService(r, &faults)}, faults.Refusal()
	}
	q := call.ReadQuery(r)
	list := listQuery{service: pathService(r, &q.Faults), filter: readFilter(q)}
	if text, given := q.Text("index"); given {
		version, ok := readHex(text)
		if !ok {
			q.Faults.Add("index", "%q is not %d hexadecimal digits in lower case", text, hexDigits)
		}
		list.known, list.hasKnown = registry.Version(version), true
	}
	if list.wait = q.Duration("wait", f.longPollMax); list.wait > 0 && !list.hasKnown {
		q.Faults.Add("wait", "there is no index to wait for the end of")
	}
	return list, q.End()
}

// filter is which hosts of a list are wanted: those for which all that is given
// holds. Its zero value passes all.
type filter struct {
	zone, revision *string
	canary, stale  *bool
	state          *registry.State
	tags           []tagFilter
}

// tagFilter is a tag that a host must have, with a value if one is given.
type tagFilter struct {
	name, value string
	any         bool
}

// maxTagFilters is how many tags a list can be filtered by at once.
const maxTagFilters = 16

// readFilter takes the parameters of a filter.
func readFilter(q *call.Query) (f filter) {
	text := func(name string) *string {
		if value, given := q.Text(name); given {
			return new(value)
		}
		return nil
	}
	truth := func(name string) *bool {
		if value := q.OneOf(name, "true", "false"); value != "" {
			return new(value == "true")
		}
		return nil
	}
	f.zone, f.revision = text("zone"), text("revision")
	f.canary, f.stale = truth("canary"), truth("stale")
	switch q.OneOf("state", "serving", "draining", "out") {
	case "serving":
		f.state = new(registry.Serving)
	case "draining":
		f.state = new(registry.Draining)
	case "out":
		f.state = new(registry.Out)
	}
	tags := q.All("tag")
	if len(tags) > maxTagFilters {
		q.Faults.Add("tag", "there %d times, of %d at most", len(tags), maxTagFilters)
	}
	for _, tag := range tags {
		name, value, valued := strings.Cut(tag, ":")
		if name == "" {
			q.Faults.Add("tag", "%q names none", tag)
		}
		f.tags = append(f.tags, tagFilter{name, value, !valued})
	}
	return f
}

// passesAll reports whether f is as its zero value.
func (f *filter) passesAll() bool {
	return f.zone == nil && f.revision == nil && f.canary == nil && f.stale == nil && f.state == nil && len(f.tags) == 0
}

// passes reports whether a host is wanted.
func (f *filter) passes(v *registry.View) bool {
	tags := &v.Host.Tags
	return (f.zone == nil || *f.zone == tags.Zone) &&
		(f.revision == nil || *f.revision == v.Host.Revision) &&
		(f.canary == nil || *f.canary == (tags.Canary != nil && *tags.Canary)) &&
		(f.stale == nil || *f.stale == v.Stale) &&
		(f.state == nil || *f.state == v.State) &&
		!slices.ContainsFunc(f.tags, func(t tagFilter) bool { return !t.holds(tags) })
}

// holds reports whether a host has the tag: with a text that is the value, or
// with another value that is written so.
func (t tagFilter) holds(tags *registry.Tags) bool {
	held, ok := tags.Other.Get(t.name)
	if !ok || t.any {
		return ok
	}
	if text, isText := readString(held); isText {
		return text == t.value
	}
	return bytes.Equal(held, []byte(t.value))
}

// timeWriter appends the time of the last check-in of a host, or leaves room for it.
type timeWriter func(b []byte, v *registry.View) []byte

func appendTime(b []byte, v *registry.View) []byte { return appendStamp(b, v.LastCheckIn) }

// appendList appends a list of the hosts of a service. Lists are what is asked for
// most, so they are written by hand, in a fraction of the time that encoding/json
// takes.
func appendList(b []byte, service string, list *registry.Listing, appendTime timeWriter) []byte {
	b = append(b, `{"service":`...)
	b = httpjson.AppendText(b, service)
	b = append(b, `,"known":`...)
	b = strconv.AppendBool(b, list.Known)
	b = append(b, `,"index":`...)
	b = httpjson.AppendHex(b, uint64(list.Version))
	b = append(b, `,"hosts":[`...)
	for i := range list.Hosts {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendHost(b, &list.Hosts[i], appendTime)
	}
	return append(b, "]}\n"...)
}

// appendHost appends one host as it is shown everywhere. Its lease is not: who
// has that can beat for the host.
func appendHost(b []byte, v *registry.View, appendTime timeWriter) []byte {
	h := v.Host
	b = append(b, `{"service":`...)
	b = httpjson.AppendText(b, h.Service)
	b = append(b, `,"id":`...)
	b = httpjson.AppendText(b, h.ID)
	b = append(b, `,"address":"`...)
	b = h.Address.Addr().AppendTo(b)
	b = append(b, `","additional_addresses":[`...)
	for i, address := range h.Additional {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = address.AppendTo(b)
		b = append(b, '"')
	}
	b = append(b, `],"port":`...)
	b = strconv.AppendUint(b, uint64(h.Address.Port()), 10)
	b = append(b, `,"ports":{`...)
	for i, port := range h.Ports {
		if i > 0 {
			b = append(b, ',')
		}
		b = httpjson.AppendText(b, port.Name)
		b = append(b, ':')
		b = strconv.AppendUint(b, uint64(port.Number), 10)
	}
	b = append(b, `},"zone":`...)
	b = httpjson.AppendText(b, h.Tags.Zone)
	b = append(b, `,"region":`...)
	b = httpjson.AppendText(b, h.Tags.Region)
	b = append(b, `,"repo":`...)
	b = httpjson.AppendText(b, h.Repo)
	b = append(b, `,"revision":`...)
	b = httpjson.AppendText(b, h.Revision)
	if v.Weight != 0 {
		b = append(b, `,"weight":`...)
		b = strconv.AppendUint(b, uint64(v.Weight), 10)
	}
	if h.Tags.Weight != 0 {
		b = append(b, `,"own_weight":`...)
		b = strconv.AppendUint(b, uint64(h.Tags.Weight), 10)
	}
	if h.Tags.Canary != nil {
		b = append(b, `,"canary":`...)
		b = strconv.AppendBool(b, *h.Tags.Canary)
	}
	b = append(b, `,"tags":{`...)
	b = appendTags(b, &h.Tags)
	b = append(b, `},"ttl":`...)
	b = appendSeconds(b, h.TTL)
	b = append(b, `,"state":"`...)
	b = append(b, v.State.String()...)
	b = append(b, `","stale":`...)
	b = strconv.AppendBool(b, v.Stale)
	if v.Unhealthy {
		b = append(b, `,"unhealthy":true`...)
	}
	b = append(b, `,"first_seen":"`...)
	b = appendStamp(b, v.FirstSeen)
	b = append(b, `","last_check_in":"`...)
	b = appendTime(b, v)
	return append(b, `"}`...)
}

// appendTags appends the members of tags, ordered by name.
func appendTags(b []byte, t *registry.Tags) []byte {
	for i, tag := range t.Other {
		if i > 0 {
			b = append(b, ',')
		}
		b = httpjson.AppendText(b, tag.Name)
		b = append(b, ':')
		b = append(b, tag.Value...)
	}
	return b
}

// appendSeconds appends d as time.Duration prints it; the most common ones,
// whole seconds below a minute, without allocating.
func appendSeconds(b []byte, d time.Duration) []byte {
	b = append(b, '"')
	if d < time.Minute && d >= 0 && d%time.Second == 0 {
		b = strconv.AppendInt(b, int64(d/time.Second), 10)
		b = append(b, 's')
	} else {
		b = append(b, d.String()...)
	}
	return append(b, '"')
}
