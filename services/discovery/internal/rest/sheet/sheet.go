// Package sheet keeps the answers to lists of the hosts of a service: all of one but
// the times of the last check-ins, which alone differ from call to call while
// nothing changes. A face makes a Sheet of a Listing, a registry.Keeper has it kept,
// and whoever asks for the list is answered with it. So a read composes nothing: it
// copies a text and writes the times into it. What a list says is the face's affair.
package sheet

import (
	"encoding/binary"
	"net/http"
	"strconv"

	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// Sheet is the answer to a list but for the times. It never changes.
type Sheet struct {
	// Version is that of the Listing that the sheet was made of.
	Version registry.Version
	// Hosts is how many are listed.
	Hosts int

	packed []byte // by pack: the body, with zero bytes for each time
	gaps   []byte // a uvarint each of bytes since the last gap and hosts left out since
	form   *httpjson.TimeForm
	// The values of header fields, as http.Header has them.
	tag, length []string
}

// Draft notes where times go in a body that becomes a Sheet.
type Draft struct {
	form  *httpjson.TimeForm
	gaps  []byte
	at    int // where the last gap ends
	next  int // the host after that of the last gap
	hosts int
}

// NewDraft begins one in which times are written as form says.
func NewDraft(form *httpjson.TimeForm) *Draft { return &Draft{form: form} }

// Room is an empty body that has room for so many hosts, by what one takes as a rule.
func Room(hosts int) []byte {
	const usual = 512 // bytes
	return make([]byte, 0, usual*(1+hosts))
}

// LeaveTime leaves room at the end of body, which it returns, for the time of the last
// check-in of a host, by its place in the Listing, which is after that of the one
// before.
func (d *Draft) LeaveTime(body []byte, host int) []byte {
	d.gaps = binary.AppendUvarint(d.gaps, uint64(len(body)-d.at))
	d.gaps = binary.AppendUvarint(d.gaps, uint64(host-d.next))
	body = append(body, make([]byte, d.form.Len())...)
	d.at, d.next = len(body), host+1
	d.hosts++
	return body
}

// End makes the sheet of the whole body. tag is the entity tag under which it is
// answered, as http.Header has it, version that of the Listing. The draft is of no use
// then.
func (d *Draft) End(body []byte, version registry.Version, tag []string) *Sheet {
	return &Sheet{
		Version: version,
		Hosts:   d.hosts,
		packed:  pack(body),
		gaps:    fit(d.gaps),
		form:    d.form,
		tag:     tag,
		length:  []string{strconv.Itoa(len(body))},
	}
}

// Tag is the entity tag that the draft was given.
func (s *Sheet) Tag() []string { return s.tag }

// Answer answers with the list. It returns what a handler returns: the status, and
// nil.
func (s *Sheet) Answer(w http.ResponseWriter, checkIns []registry.Instant) (int, error) {
	return httpjson.ComposeOf(w, s.length, func(b []byte) []byte { return s.append(b, checkIns) })
}

// append appends the body.
func (s *Sheet) append(b []byte, checkIns []registry.Instant) []byte {
	at := len(b)
	b = unpack(b, s.packed)
	host, width := 0, s.form.Len()
	var day httpjson.Day
	for gaps := s.gaps; len(gaps) > 0; {
		var distance, skipped uint64
		distance, gaps = number(gaps)
		skipped, gaps = number(gaps)
		at += int(distance)
		host += int(skipped)
		s.form.Put(b[at:at+width], int64(checkIns[host]), &day)
		at += width
		host++
	}
	return b
}
