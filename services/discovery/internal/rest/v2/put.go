package v2

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	"github.com/weirproxy/weir/services/discovery/internal/rest/jsontext"
	"github.com/weirproxy/weir/services/discovery/internal/rule"
)

// The bounds of what a host says of itself, beside those of the registry. Texts
// are in bytes.
const (
	maxText       = 255
	maxAdditional = 8
	maxPorts      = 16
	maxPortName   = 63
)

// terms is what a host is checked against.
type terms struct {
	ttl, maxTTL time.Duration
}

// registration is the answer to a host that registered.
type registration struct {
	Service string `json:"service"`
	ID      string `json:"id"`
	Lease   string `json:"lease"`
	TTL     string `json:"ttl"`
	Outcome string `json:"outcome"`
}

// put makes a host what the body says of it. The same call again is a
// heartbeat and no more.
func (f *face) put(w http.ResponseWriter, r *http.Request) (int, error) {
	q := call.ReadQuery(r)
	key := pathKey(r, &q.Faults)
	caller := auth.FromContext(r.Context())
	if err := caller.MayRegister(key.Service); err != nil {
		return 0, err
	}
	body, err := readBody(w, r, call.MaxBody, &q.Faults)
	if err != nil {
		return 0, err
	}
	h := f.terms.readHost(key, body, &q.Faults)
	if err := q.End(); err != nil {
		return 0, err
	}
	if err := mayBeAt(caller, &h); err != nil {
		return 0, err
	}
	receipt, err := f.registry.PutIf(h, caller.Actor(), caller.MayRegisterAddress)
	if errors.Is(err, registry.ErrTagsTooLarge) {
		return 0, &call.Refusal{
			Status: http.StatusBadRequest, Reason: "tags: " + err.Error(),
			Fields: call.Faults{{Field: "tags", Reason: err.Error()}}, Cause: err,
		}
	}
	if err != nil {
		return 0, err
	}
	status := http.StatusOK
	if receipt.Outcome == registry.HostNew {
		status = http.StatusCreated
	}
	return httpjson.Answer(w, status, registration{
		key.Service, key.ID, hexText(receipt.Lease), h.TTL.String(), receipt.Outcome.String(),
	})
}

// mayBeAt asks whether a caller may have a host at all addresses that it says.
func mayBeAt(caller *auth.Caller, h *registry.Host) error {
	for _, address := range append([]netip.Addr{h.Address.Addr()}, h.Additional...) {
		if err := caller.MayRegisterAddress(address); err != nil {
			return err
		}
	}
	return nil
}

// readHost makes a host of a body.
func (t terms) readHost(key registry.Key, body []byte, f *call.Faults) registry.Host {
	o := readObject(body, "", f)
	h := registry.Host{Key: key}
	h.Address, h.Additional = readAddresses(o)
	h.Ports = readPorts(o)
	h.Tags.Zone, _ = o.text("zone", atMost(maxText))
	h.Tags.Region, _ = o.text("region", atMost(maxText))
	h.Repo, _ = o.text("repo", atMost(maxText))
	h.Revision, _ = o.text("revision", atMost(maxText))
	weight, _ := o.integer("weight", 100)
	h.Tags.Weight = uint8(weight)
	h.Tags.Canary = o.boolean("canary")
	h.Tags.Other = readTags(o)
	// v1 shows this tag of every host, and its readers want one.
	h.Tags.InstanceID = key.ID
	if h.TTL = o.duration("ttl", t.maxTTL); h.TTL == 0 {
		h.TTL = t.ttl
	}
	draining := o.boolean("draining")
	h.Draining = draining != nil && *draining
	o.end()
	return h
}

// readAddresses takes where a host is: its first address with its port, and the
// others, ordered.
func readAddresses(o *object) (first netip.AddrPort, others []netip.Addr) {
	var ip netip.Addr
	_, given := o.text("address", func(text string) (err error) {
		ip, err = rule.Address(text)
		return err
	})
	if !given {
		o.missing("address")
	}
	const name = "additional_addresses"
	for _, value := range o.list(name, maxAdditional) {
		text, ok := readString(value)
		if !ok {
			o.faults.AddOnce(name, "%s is not a string", short(value))
			continue
		}
		other, err := rule.Address(text)
		switch {
		case err != nil:
			o.faults.AddOnce(name, "%v", err)
		case other == ip || slices.Contains(others, other):
			o.faults.AddOnce(name, "%q is there twice", text)
		default:
			others = append(others, other)
		}
	}
	slices.SortFunc(others, netip.Addr.Compare)
	port, given := o.integer("port", 65535)
	if !given {
		o.missing("port")
	}
	return netip.AddrPortFrom(ip, uint16(port)), others
}

// readPorts takes the named ports, ordered by name.
func readPorts(o *object) (ports []registry.Port) {
	numbers := o.object("ports")
	names := numbers.names()
	if len(names) > maxPorts {
		o.fault("ports", "has %d members, of %d at most", len(names), maxPorts)
		return nil
	}
	for _, name := range names {
		if !isPortName(name) {
			numbers.fault(name, "the name is not 1 to %d letters, digits, \"-\", \"_\" and \".\"", maxPortName)
		}
		number, _ := numbers.integer(name, 65535)
		ports = append(ports, registry.Port{Name: name, Number: uint16(number)})
	}
	return ports
}

// isPortName keeps names of ports to what can stand in a label or a flag.
func isPortName(name string) bool {
	if name == "" || len(name) > maxPortName {
		return false
	}
	for _, c := range name {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("-_.", c) {
			return false
		}
	}
	return true
}

// shownByV1 are the tags under which v1 shows what here are fields.
var shownByV1 = map[string]string{
	"az": "zone", "region": "region", "instance_id": "the id in the path",
	"canary": "canary", "load_balancing_weight": "weight",
}

// readTags takes the tags: any values, which are kept compact.
func readTags(o *object) registry.TagList {
	tags := o.object("tags")
	for _, name := range tags.names() {
		if err := rule.Name(name); err != nil {
			o.fault("tags", "%v", err)
		}
		if field := shownByV1[name]; field != "" {
			tags.fault(name, "is not a tag here: %s says it", field)
		}
		if err := jsontext.CheckValue(tags.members[name]); err != nil {
			tags.fault(name, "%v", err)
		}
		tags.members[name] = jsontext.Compact(string(tags.members[name]))
	}
	return registry.TagListOf(tags.members)
}
