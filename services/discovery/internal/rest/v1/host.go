package v1

import (
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	"github.com/weirproxy/weir/services/discovery/internal/rule"
)

// maxText is the longest revision or repository, in bytes.
const maxText = 1024

// terms is what a registration is checked against.
type terms struct {
	ttl, maxTTL time.Duration
	autoIP      autoIP
}

// readHost makes a host of the registration form of r. Its texts are parts of both,
// which the registry copies if it keeps them: most are those of a beat, of a host
// that it knows just so. The error is a *call.Refusal that names every fault.
func (t *terms) readHost(service string, form *form, r *http.Request) (registry.Host, error) {
	f := form.faults
	if err := rule.ServiceName(service); err != nil {
		f.Add("service", "%v", err)
	}
	ip := t.readIP(form, r, &f)
	port := readPort(&form.port, &f)
	if form.revision.value == "" && !form.revision.bad {
		f.Add("revision", "missing")
	}
	checkText("revision", &form.revision, &f)
	checkText("service_repo_name", &form.repo, &f)
	tags := readTags(&form.tags, &f)
	ttl := t.readTTL(&form.ttl, &f)
	if err := f.Line(); err != nil {
		return registry.Host{}, err
	}
	address := netip.AddrPortFrom(ip, port)
	return registry.Host{
		// A host is where it listens: one that moves to another port is
		// another host, and two on one address stay two.
		Key:      registry.Key{Service: service, ID: address.String()},
		Address:  address,
		Repo:     form.repo.value,
		Revision: form.revision.value,
		Tags:     tags,
		TTL:      ttl,
	}, nil
}

func checkText(name string, given *field, f *call.Faults) {
	text := given.value
	if given.bad {
		return
	}
	if len(text) > maxText {
		f.Add(name, "has %d bytes, of %d at most", len(text), maxText)
	} else if err := rule.Text(text); err != nil {
		f.Add(name, "%v", err)
	}
}

// readIP takes the form's ip, or with auto_ip the address that the caller was
// seen at.
func (t *terms) readIP(form *form, r *http.Request, f *call.Faults) netip.Addr {
	text := form.ip.value
	if form.ip.bad || text == "" && form.autoIP.bad {
		return netip.Addr{}
	}
	if text == "" && form.autoIP.value != "" {
		ip, err := t.autoIP.find(r)
		if err != nil {
			f.Add("auto_ip", "%v", err)
		}
		return ip
	}
	if text == "" {
		f.Add("ip", "missing")
		return netip.Addr{}
	}
	ip, err := rule.Address(text)
	if err != nil {
		f.Add("ip", "%v", err)
	}
	return ip
}

func readPort(given *field, f *call.Faults) uint16 {
	text := given.value
	if given.bad {
		return 0
	}
	if text == "" {
		f.Add("port", "missing")
		return 0
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		f.Add("port", "%q is not an integer from 1 to 65535", text)
	}
	return uint16(port)
}

func (t *terms) readTTL(given *field, f *call.Faults) time.Duration {
	text := given.value
	if given.bad || text == "" {
		return t.ttl
	}
	most := int64(t.maxTTL / time.Second)
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 1 || seconds > most {
		f.Add("ttl", "%q is not an integer from 1 to %d, in seconds", text, most)
		return 0
	}
	return time.Duration(seconds) * time.Second
}
