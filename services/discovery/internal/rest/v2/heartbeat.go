package v2

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

// maxLeases is how many hosts may beat by one call, and maxBeatsBody the longest
// body that they have, in bytes.
const (
	maxLeases    = 10_000
	maxBeatsBody = 256 << 10
)

// beat is a heartbeat of one host. A body may name its lease; then the beat is
// of that stay alone, and not of one that came later.
func (f *face) beat(w http.ResponseWriter, r *http.Request) (int, error) {
	q := call.ReadQuery(r)
	key := pathKey(r, &q.Faults)
	caller := auth.FromContext(r.Context())
	if err := caller.MayRegister(key.Service); err != nil {
		return 0, err
	}
	lease, given, err := readBeat(w, r, &q.Faults)
	if err != nil {
		return 0, err
	}
	if err := q.End(); err != nil {
		return 0, err
	}
	view, found, err := f.registry.Find(key)
	if err != nil {
		return 0, err
	}
	if !found {
		return 0, noHost(key)
	}
	if err := caller.MayRegisterAddress(view.Host.Address.Addr()); err != nil {
		return 0, err
	}
	if given && lease != view.Lease {
		return 0, call.Refuse(http.StatusNotFound, "host %q of service %q has another lease now: register again", key.ID, key.Service)
	}
	unknown, err := f.registry.Beat([]registry.Lease{view.Lease}, nil, caller.Actor())
	if err != nil {
		return 0, err
	}
	if len(unknown) > 0 { // it went a moment ago
		return 0, noHost(key)
	}
	return httpjson.Nothing(w)
}

// readBeat reads the lease of a single heartbeat, if one is given.
func readBeat(w http.ResponseWriter, r *http.Request, f *call.Faults) (lease registry.Lease, given bool, err error) {
	if some, err := call.HasBody(r); err != nil || !some {
		return 0, false, err
	}
	body, err := readBody(w, r, call.MaxBody, f)
	if err != nil {
		return 0, false, err
	}
	o := readObject(body, "", f)
	if value, ok := o.take("lease"); ok {
		given = true
		lease = readLease(value, "lease", f)
	}
	o.end()
	return lease, given, nil
}

// beatMany is a heartbeat of many hosts, each by its lease. Who was told of a
// lease may beat by it. The answer names the leases that are not known, and texts
// that are none as they came: one host that is mistaken harms no other.
func (f *face) beatMany(w http.ResponseWriter, r *http.Request) (int, error) {
	q := call.ReadQuery(r)
	body, err := readBody(w, r, maxBeatsBody, &q.Faults)
	if err != nil {
		return 0, err
	}
	leases, strange := readLeases(body, &q.Faults)
	if err := q.End(); err != nil {
		return 0, err
	}
	unknown, err := f.registry.Beat(leases, nil, auth.FromContext(r.Context()).Actor())
	if err != nil {
		return 0, err
	}
	b := append(make([]byte, 0, (hexDigits+3)*(len(unknown)+1)), `{"unknown":[`...)
	for i, lease := range unknown {
		if i > 0 {
			b = append(b, ',')
		}
		b = httpjson.AppendHex(b, uint64(lease))
	}
	for i, text := range strange {
		if i > 0 || len(unknown) > 0 {
			b = append(b, ',')
		}
		b = append(b, text...)
	}
	return httpjson.Write(w, append(b, "]}\n"...))
}

// readLeases reads the body of many heartbeats: the leases, and as JSON the texts
// that are none.
func readLeases(body []byte, f *call.Faults) (leases []registry.Lease, strange []json.RawMessage) {
	o := readObject(body, "", f)
	value, given := o.take("leases")
	o.end()
	if !given {
		o.missing("leases")
		return nil, nil
	}
	leases, plain := plainLeases(value)
	if !plain {
		leases, strange = anyLeases(value, f)
	}
	if elements := len(leases) + len(strange); elements > maxLeases {
		f.Add("leases", "has %d elements, of %d at most", elements, maxLeases)
	}
	return leases, strange
}

// plainLeases reads an array of leases in a tenth of the time that
// encoding/json takes. It knows strings without escapes alone; ok is false for
// whatever else the array holds, or if value is no array. value must be JSON.
func plainLeases(value json.RawMessage) (leases []registry.Lease, ok bool) {
	if value[0] != '[' {
		return nil, false
	}
	const quoted = hexDigits + 2
	leases = make([]registry.Lease, 0, len(value)/(quoted+1)+1)
	for i := 1; ; {
		switch value[i] {
		case ' ', '\t', '\r', '\n', ',':
			i++
		case ']':
			return leases, true
		case '"':
			if len(value) < i+quoted || value[i+quoted-1] != '"' {
				return nil, false
			}
			lease, ok := readHex(value[i+1 : i+1+hexDigits])
			if !ok {
				return nil, false
			}
			leases = append(leases, registry.Lease(lease))
			i += quoted
		default:
			return nil, false
		}
	}
}

// maxLeaseFaults is how many elements that are no texts a refusal names.
const maxLeaseFaults = 100

// anyLeases reads an array of leases, and of texts that are none. It says which
// elements are no texts.
func anyLeases(value json.RawMessage, f *call.Faults) (leases []registry.Lease, strange []json.RawMessage) {
	var elements []json.RawMessage
	if json.Unmarshal(value, &elements) != nil || elements == nil {
		f.Add("leases", "%s is not an array", short(value))
		return nil, nil
	}
	wrong := 0
	for i, element := range elements {
		text, isText := readString(element)
		lease, ok := readHex(text)
		switch {
		case isText && ok:
			leases = append(leases, registry.Lease(lease))
		case isText:
			strange = append(strange, element)
		case wrong < maxLeaseFaults:
			f.Add(fmt.Sprintf("leases[%d]", i), "%s is not a string", short(element))
			wrong++
		default:
			wrong++
		}
	}
	if more := wrong - maxLeaseFaults; more > 0 {
		f.Add("leases", "and %d more", more)
	}
	return leases, strange
}

// readLease reads a lease as the answer to PUT shows it.
func readLease(value json.RawMessage, field string, f *call.Faults) registry.Lease {
	text, _ := readString(value)
	lease, ok := readHex(text)
	if !ok {
		f.Add(field, "%s is not %d hexadecimal digits in lower case", short(value), hexDigits)
	}
	return registry.Lease(lease)
}
