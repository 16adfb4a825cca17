// Package record writes hosts, operators' settings and events as compact JSON,
// one object each without a line end, and reads them again: the form in which
// the file store and the redis store keep them. It holds nothing and does no
// input or output. Fields that are not known are ignored, so that replicas of
// two versions can share a store; what breaks a rule of the registry is refused
// with the reason, and never a panic.
package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// hostJSON is a registry.Record. A field that was added after the first version
// of the snapshot file may be missing. The order of the fields is that in which
// readPlain takes them: what stands otherwise is read all the same, but more slowly.
type hostJSON struct {
	Service       string                     `json:"service"`
	ID            string                     `json:"id"`
	Lease         registry.Lease             `json:"lease,omitempty"`
	Address       netip.AddrPort             `json:"address"`
	Additional    []netip.Addr               `json:"additional_addresses,omitempty"`
	Ports         []portJSON                 `json:"ports,omitempty"`
	Repo          string                     `json:"repo,omitempty"`
	Revision      string                     `json:"revision,omitempty"`
	Region        string                     `json:"region,omitempty"`
	Zone          string                     `json:"zone,omitempty"`
	InstanceID    string                     `json:"instance_id,omitempty"`
	Canary        *bool                      `json:"canary,omitempty"`
	Weight        uint8                      `json:"weight,omitempty"`
	Tags          map[string]json.RawMessage `json:"tags,omitempty"`
	TTLMillis     int64                      `json:"ttl_ms"`
	Draining      bool                       `json:"draining,omitempty"`
	FirstSeen     time.Time                  `json:"first_seen"`
	LastCheckIn   time.Time                  `json:"last_check_in,omitzero"`
	DrainingSince time.Time                  `json:"draining_since,omitzero"`
}

type portJSON struct {
	Name   string `json:"name"`
	Number uint16 `json:"port"`
}

// EncodeHost returns r as JSON. A LastCheckIn that is zero is left out. The
// error is that of a tag whose value is not JSON.
func EncodeHost(r *registry.Record) ([]byte, error) { return NewHostEncoder().Encode(r) }

// HostEncoder is EncodeHost for many hosts, in memory that it uses again. It is
// for one goroutine.
type HostEncoder struct {
	host hostJSON
	text bytes.Buffer
	json *json.Encoder
}

// NewHostEncoder makes an encoder.
func NewHostEncoder() *HostEncoder {
	e := &HostEncoder{}
	e.json = newEncoder(&e.text)
	return e
}

// Encode is EncodeHost, whose answer is valid until the next call.
func (e *HostEncoder) Encode(r *registry.Record) ([]byte, error) {
	h := r.Host
	e.host = hostJSON{
		Service: h.Service, ID: h.ID, Lease: r.Lease,
		Address: h.Address, Additional: h.Additional, Repo: h.Repo, Revision: h.Revision,
		Region: h.Tags.Region, Zone: h.Tags.Zone, InstanceID: h.Tags.InstanceID,
		Canary: h.Tags.Canary, Weight: h.Tags.Weight, Tags: e.tags(h.Tags.Other),
		TTLMillis: h.TTL.Milliseconds(), Draining: h.Draining,
		FirstSeen: r.FirstSeen.UTC(), LastCheckIn: r.LastCheckIn.UTC(), DrainingSince: r.DrainingSince.UTC(),
	}
	for _, p := range h.Ports {
		e.host.Ports = append(e.host.Ports, portJSON{p.Name, p.Number})
	}
	e.text.Reset()
	if err := e.json.Encode(&e.host); err != nil {
		return nil, fmt.Errorf("write host %q of %q: %w", h.ID, h.Service, err)
	}
	return bytes.TrimSuffix(e.text.Bytes(), []byte("\n")), nil
}

// tags are tags by their names, in a map that is used again.
func (e *HostEncoder) tags(list registry.TagList) map[string]json.RawMessage {
	clear(e.host.Tags)
	if len(list) > 0 && e.host.Tags == nil {
		e.host.Tags = map[string]json.RawMessage{}
	}
	for _, tag := range list {
		e.host.Tags[tag.Name] = tag.Value
	}
	return e.host.Tags
}

// longestTTL is what fits into a time.Duration.
const longestTTL = int64(1<<63-1) / int64(time.Millisecond)

// check says which rule of registry.Host v breaks.
func (v *hostJSON) check() error {
	fault := func(format string, args ...any) error {
		return fmt.Errorf("host %q of %q: %w", v.ID, v.Service, fmt.Errorf(format, args...))
	}
	switch {
	case v.Service == "":
		return errors.New("a host without service")
	case !v.Address.IsValid() || v.Address.Port() == 0 || v.Address.Addr().Zone() != "":
		return fault("address %q", v.Address)
	case v.TTLMillis <= 0 || v.TTLMillis > longestTTL:
		return fault("ttl_ms %d", v.TTLMillis)
	case v.Weight > 100:
		return fault("weight %d", v.Weight)
	case !writable(v.FirstSeen, v.LastCheckIn, v.DrainingSince):
		return fault("times %v, %v, %v", v.FirstSeen, v.LastCheckIn, v.DrainingSince)
	}
	for _, a := range v.Additional {
		if !a.IsValid() || a.Zone() != "" {
			return fault("additional address %q", a)
		}
	}
	for i, p := range v.Ports {
		if p.Name == "" || p.Number == 0 || i > 0 && p.Name <= v.Ports[i-1].Name {
			return fault("port %d named %q in place %d", p.Number, p.Name, i)
		}
	}
	return nil
}

// writable says whether times that were read can be written again as UTC, whose
// year may be another.
func writable(times ...time.Time) bool {
	for _, t := range times {
		if year := t.UTC().Year(); year < 0 || year > 9999 {
			return false
		}
	}
	return true
}

// newEncoder writes values of tags as they are, byte by byte: the registry
// compares them so.
func newEncoder(w io.Writer) *json.Encoder {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder
}

// encode is v as JSON.
func encode(v any) ([]byte, error) {
	var text bytes.Buffer
	if err := newEncoder(&text).Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), nil
}
