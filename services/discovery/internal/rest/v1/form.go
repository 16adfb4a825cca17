package v1

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// maxBody is the longest form taken, in bytes; maxName the longest name of a
// service.
const (
	maxBody = 64 << 10
	maxName = 255
)

// faults gathers what is wrong with a call, so that all is said at once.
type faults []string

func (f *faults) add(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// refusal returns nil if there are no faults.
func (f *faults) refusal() error {
	if len(*f) == 0 {
		return nil
	}
	return &refusal{http.StatusBadRequest, strings.Join(*f, "; ")}
}

// terms is what a registration is checked against.
type terms struct {
	ttl, maxTTL  time.Duration
	autoIPRanges []netip.Prefix
}

// fields are the fields of forms that mean something; others are ignored.
var fields = []string{"auto_ip", "ip", "load_balancing_weight", "port", "revision", "service_repo_name", "tags", "ttl"}

// readForm reads a form-encoded body, in which no field that means something is
// twice. The error is a *refusal.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	if given := r.Header.Get("Content-Type"); given != "" {
		if media, _, err := mime.ParseMediaType(given); err != nil || media != "application/x-www-form-urlencoded" {
			return nil, &refusal{http.StatusBadRequest,
				fmt.Sprintf("content-type %q: the body must be application/x-www-form-urlencoded", given)}
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return nil, &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", maxBody)}
		}
		return nil, &refusal{http.StatusBadRequest, fmt.Sprintf("read the body: %v", err)}
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, fmt.Sprintf("read the form: %v", err)}
	}
	var f faults
	for _, name := range fields {
		if n := len(form[name]); n > 1 {
			f.add("%s: there %d times", name, n)
		}
	}
	return form, f.refusal()
}

// readHost makes a host of a registration's form. forwardedFor is the request's
// X-Forwarded-For. The error is a *refusal that names every fault.
func (t *terms) readHost(service string, form url.Values, forwardedFor string) (registry.Host, error) {
	var f faults
	checkService(service, &f)
	ip := t.readIP(form, forwardedFor, &f)
	port := readPort(form.Get("port"), &f)
	if form.Get("revision") == "" {
		f.add("revision: missing")
	}
	for _, name := range []string{"revision", "service_repo_name"} {
		if !utf8.ValidString(form.Get(name)) {
			f.add("%s: %q is not UTF-8", name, form.Get(name))
		}
	}
	tags := readTags(form.Get("tags"), &f)
	ttl := t.readTTL(form.Get("ttl"), &f)
	if err := f.refusal(); err != nil {
		return registry.Host{}, err
	}
	return registry.Host{
		// A host is its address and its own name for itself: one that moves to
		// another port stays itself, and two on one address stay two.
		Key:      registry.Key{Service: service, ID: ip.String() + "/" + tags.InstanceID},
		Address:  netip.AddrPortFrom(ip, port),
		Repo:     form.Get("service_repo_name"),
		Revision: form.Get("revision"),
		Tags:     tags,
		TTL:      ttl,
	}, nil
}

// checkService holds a service's name to what every reader of it can take. "*"
// would mean every service to a reader over xDS.
func checkService(name string, f *faults) {
	switch {
	case name == "" || name == "*":
		f.add("service: %q is not a name", name)
	case len(name) > maxName:
		f.add("service: the name has %d bytes, of %d at most", len(name), maxName)
	case !utf8.ValidString(name):
		f.add("service: %q is not UTF-8", name)
	case strings.ContainsFunc(name, unicode.IsControl):
		f.add("service: %q holds a control character", name)
	}
}

// readIP takes the form's ip, or with auto_ip the address that the last proxy
// saw the caller at.
func (t *terms) readIP(form url.Values, forwardedFor string, f *faults) netip.Addr {
	text := form.Get("ip")
	if text == "" && form.Get("auto_ip") != "" {
		return t.forwardedIP(forwardedFor, f)
	}
	if text == "" {
		f.add("ip: missing")
		return netip.Addr{}
	}
	ip, err := readAddress(text)
	if err != nil {
		f.add("ip: %v", err)
	}
	return ip
}

func (t *terms) forwardedIP(forwardedFor string, f *faults) netip.Addr {
	last := strings.TrimSpace(forwardedFor[strings.LastIndexByte(forwardedFor, ',')+1:])
	ip, err := readAddress(last)
	if err != nil {
		f.add("auto_ip: last of x-forwarded-for %q: %v", forwardedFor, err)
		return netip.Addr{}
	}
	for _, r := range t.autoIPRanges {
		if r.Contains(ip) {
			return ip
		}
	}
	f.add("auto_ip: %s, the last of x-forwarded-for, is not in one of %v", ip, t.autoIPRanges)
	return netip.Addr{}
}

// broadcast is every host of a network at once (RFC 919 §7).
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// readAddress reads an IPv4 or IPv6 address that one host can have.
func readAddress(text string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q is not an IPv4 or IPv6 address", text)
	}
	ip = ip.Unmap()
	if ip.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q has a zone, which means nothing to others", text)
	}
	if ip.IsUnspecified() || ip.IsMulticast() || ip == broadcast {
		return netip.Addr{}, fmt.Errorf("%q is not the address of a host", text)
	}
	return ip, nil
}

func readPort(text string, f *faults) uint16 {
	if text == "" {
		f.add("port: missing")
		return 0
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		f.add("port: %q is not an integer from 1 to 65535", text)
	}
	return uint16(port)
}

func (t *terms) readTTL(text string, f *faults) time.Duration {
	if text == "" {
		return t.ttl
	}
	most := int64(t.maxTTL / time.Second)
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 1 || seconds > most {
		f.add("ttl: %q is not an integer from 1 to %d, in seconds", text, most)
		return 0
	}
	return time.Duration(seconds) * time.Second
}
