package v1

import (
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

// formType is the only content type that is read.
const formType = "application/x-www-form-urlencoded"

// form is what a body says in the fields that mean something; others are
// ignored.
type form struct {
	autoIP, ip, weight, port, revision, repo, tags, ttl field
}

// field is what a form says in one field. Empty is as good as not there.
type field struct {
	value string
	times int
}

// fieldNames are the names that find knows, in order.
var fieldNames = [...]string{"auto_ip", "ip", "load_balancing_weight", "port", "revision", "service_repo_name", "tags", "ttl"}

// find returns the field of a name, or nil if the name means nothing.
func (f *form) find(name string) *field {
	switch name {
	case "auto_ip":
		return &f.autoIP
	case "ip":
		return &f.ip
	case "load_balancing_weight":
		return &f.weight
	case "port":
		return &f.port
	case "revision":
		return &f.revision
	case "service_repo_name":
		return &f.repo
	case "tags":
		return &f.tags
	case "ttl":
		return &f.ttl
	default:
		return nil
	}
}

// readForm reads a form-encoded body, in which no field that means something is
// twice. The error is a *call.Refusal.
func readForm(w http.ResponseWriter, r *http.Request) (form, error) {
	if err := checkContentType(r.Header.Get("Content-Type")); err != nil {
		return form{}, err
	}
	body, err := call.ReadBody(w, r, call.MaxBody)
	if err != nil {
		return form{}, err
	}
	return parseForm(string(body))
}

func checkContentType(given string) error {
	if given == "" || given == formType {
		return nil
	}
	media, _, err := mime.ParseMediaType(given)
	switch {
	case err == nil && media == formType:
		return nil
	case err == nil && media == "application/json":
		return call.Refuse(http.StatusBadRequest, "content-type %q: JSON is not read here; the body must be %s", given, formType)
	default:
		return call.Refuse(http.StatusBadRequest, "content-type %q: the body must be %s", given, formType)
	}
}

// parseForm reads a form as URL Standard §5.1 describes it, but for broken
// escapes, which it refuses. It allocates for values that hold escapes alone,
// so that the others are parts of body. The error is a *call.Refusal.
func parseForm(body string) (form, error) {
	var parsed form
	for pair := range strings.SplitSeq(body, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			return form{}, call.Refuse(http.StatusBadRequest, "read the form: %v", err)
		}
		value, err = url.QueryUnescape(value)
		if err != nil {
			return form{}, call.Refuse(http.StatusBadRequest, "read the form: %v", err)
		}
		if field := parsed.find(name); field != nil {
			field.value = value
			field.times++
		}
	}
	var f call.Faults
	for _, name := range fieldNames {
		if n := parsed.find(name).times; n > 1 {
			f.Add(name, "there %d times", n)
		}
	}
	return parsed, f.Line()
}
