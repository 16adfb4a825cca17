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

// latin1 is the charset that clients of Java name for any form, whatever it is in. What
// is not ASCII in one is no UTF-8, and refused as that.
const latin1 = "iso-8859-1"

// form is what a body says in the fields that mean something; others are
// ignored.
type form struct {
	autoIP, ip, weight, port, revision, repo, tags, ttl field
	// faults are what is wrong with it, whatever the fields mean.
	faults call.Faults
}

// field is what a form says in one field. Empty is as good as not there.
type field struct {
	value string
	times int
	// bad says that a fault of the form is about it, so that what it says is of no
	// more use.
	bad bool
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

// readForm reads a form-encoded body. The error is a *call.Refusal; what is wrong
// with single fields is among the faults of the form, for what they mean may be
// wrong with others.
func readForm(w http.ResponseWriter, r *http.Request) (form, error) {
	if err := checkContentType(r.Header.Get("Content-Type")); err != nil {
		return form{}, err
	}
	body, err := call.ReadBody(w, r, call.MaxBody)
	if err != nil {
		return form{}, err
	}
	return parseForm(string(body)), nil
}

func checkContentType(given string) error {
	if given == "" || given == formType {
		return nil
	}
	media, parameters, err := mime.ParseMediaType(given)
	switch {
	case err == nil && media == formType && !call.IsUTF8(parameters, latin1):
		return call.Refuse(http.StatusUnsupportedMediaType, "content-type %q: forms are read as UTF-8 alone", given)
	case err == nil && media == formType:
		return nil
	case err == nil && media == "application/json":
		return call.Refuse(http.StatusBadRequest, "content-type %q: JSON is not read here; the body must be %s", given, formType)
	default:
		return call.Refuse(http.StatusBadRequest, "content-type %q: the body must be %s", given, formType)
	}
}

// mostEscapes is how many broken escapes of a form are told.
const mostEscapes = 10

// parseForm reads a form as URL Standard §5.1 describes it, but for broken
// escapes and fields that mean something and are there twice, which are faults. It
// allocates for values that hold escapes alone, so that the others are parts of
// body.
func parseForm(body string) form {
	var parsed form
	for pair := range strings.SplitSeq(body, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, badName := url.QueryUnescape(name)
		value, badValue := url.QueryUnescape(value)
		field := parsed.find(name)
		switch {
		case (badName != nil || badValue != nil) && len(parsed.faults) >= mostEscapes:
			return parsed
		case badName != nil:
			parsed.faults.AddOnce("read the form", "%v", badName)
		case badValue != nil && field == nil:
			parsed.faults.AddOnce("read the form", "%v", badValue)
		case badValue != nil:
			parsed.faults.AddOnce(name, "%v", badValue)
			field.bad = true
			field.times++
		case field != nil:
			field.value = value
			field.times++
		}
	}
	for _, name := range fieldNames {
		if field := parsed.find(name); field.times > 1 {
			parsed.faults.Add(name, "there %d times", field.times)
			field.bad = true
		}
	}
	return parsed
}
