package v1

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/rule"
)

// maxText is the longest revision or repository, in bytes.
const maxText = 1024

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
	ttl, maxTTL time.Duration
	autoIP      autoIP
}

// readHost makes a host of the registration form of r. What the host holds are
// copies: form and r end with the call, and the host may be kept. The error is
// a *refusal that names every fault.
func (t *terms) readHost(service string, form *form, r *http.Request) (registry.Host, error) {
	var f faults
	if err := rule.ServiceName(service); err != nil {
		f.add("service: %v", err)
	}
	ip := t.readIP(form, r, &f)
	port := readPort(form.port.value, &f)
	if form.revision.value == "" {
		f.add("revision: missing")
	}
	checkText("revision", form.revision.value, &f)
	checkText("service_repo_name", form.repo.value, &f)
	tags := readTags(form.tags.value, &f)
	ttl := t.readTTL(form.ttl.value, &f)
	if err := f.refusal(); err != nil {
		return registry.Host{}, err
	}
	address := netip.AddrPortFrom(ip, port)
	return registry.Host{
		// A host is where it listens: one that moves to another port is
		// another host, and two on one address stay two.
		Key:      registry.Key{Service: strings.Clone(service), ID: address.String()},
		Address:  address,
		Repo:     strings.Clone(form.repo.value),
		Revision: strings.Clone(form.revision.value),
		Tags:     tags,
		TTL:      ttl,
	}, nil
}

func checkText(name, text string, f *faults) {
	switch {
	case len(text) > maxText:
		f.add("%s: has %d bytes, of %d at most", name, len(text), maxText)
	case !utf8.ValidString(text):
		f.add("%s: %q is not UTF-8", name, text)
	}
}

// readIP takes the form's ip, or with auto_ip the address that the caller was
// seen at.
func (t *terms) readIP(form *form, r *http.Request, f *faults) netip.Addr {
	text := form.ip.value
	if text == "" && form.autoIP.value != "" {
		ip, err := t.autoIP.find(r)
		if err != nil {
			f.add("auto_ip: %v", err)
		}
		return ip
	}
	if text == "" {
		f.add("ip: missing")
		return netip.Addr{}
	}
	ip, err := rule.Address(text)
	if err != nil {
		f.add("ip: %v", err)
	}
	return ip
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
