package v1

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// maxBody is the longest form taken, in bytes.
const maxBody = 64 << 10

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
// twice. The error is a *refusal.
func readForm(w http.ResponseWriter, r *http.Request) (form, error) {
	if err := checkContentType(r.Header.Get("Content-Type")); err != nil {
		return form{}, err
	}
	body, err := readBody(w, r)
	if err != nil {
		return form{}, err
	}
	return parseForm(body)
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
		return &refusal{http.StatusBadRequest,
			fmt.Sprintf("content-type %q: JSON is not read here; the body must be %s", given, formType)}
	default:
		return &refusal{http.StatusBadRequest, fmt.Sprintf("content-type %q: the body must be %s", given, formType)}
	}
}

// readBody reads a body of maxBody bytes at most.
func readBody(w http.ResponseWriter, r *http.Request) (string, error) {
	tooLarge := &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", maxBody)}
	if r.ContentLength > maxBody {
		return "", tooLarge
	}
	// MinRead is what the buffer wants to have free before it sees the end.
	body := bytes.NewBuffer(make([]byte, 0, max(r.ContentLength, 0)+bytes.MinRead))
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return "", tooLarge
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return "", &refusal{http.StatusRequestTimeout, "the body did not come in time"}
		}
		return "", &refusal{http.StatusBadRequest, fmt.Sprintf("read the body: %v", err)}
	}
	return body.String(), nil
}

// parseForm reads a form as URL Standard §5.1 describes it, but for broken
// escapes, which it refuses. It allocates for values that hold escapes alone,
// so that the others are parts of body. The error is a *refusal.
func parseForm(body string) (form, error) {
	var parsed form
	for pair := range strings.SplitSeq(body, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			return form{}, &refusal{http.StatusBadRequest, fmt.Sprintf("read the form: %v", err)}
		}
		value, err = url.QueryUnescape(value)
		if err != nil {
			return form{}, &refusal{http.StatusBadRequest, fmt.Sprintf("read the form: %v", err)}
		}
		if field := parsed.find(name); field != nil {
			field.value = value
			field.times++
		}
	}
	var f faults
	for _, name := range fieldNames {
		if n := parsed.find(name).times; n > 1 {
			f.add("%s: there %d times", name, n)
		}
	}
	return parsed, f.refusal()
}
