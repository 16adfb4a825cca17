package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// eventJSON is a registry.Event, whose fields stand in the same order; so does
// readPlain take them.
type eventJSON struct {
	At      time.Time          `json:"at"`
	Kind    registry.EventKind `json:"kind"`
	Service string             `json:"service,omitempty"`
	ID      string             `json:"id,omitempty"`
	Zone    string             `json:"zone,omitempty"`
	Actor   string             `json:"actor,omitempty"`
	Detail  string             `json:"detail,omitempty"`
}

// EncodeEvent returns e as JSON. It does not fail for an event of the registry;
// the error would be that of a time after the year 9999.
func EncodeEvent(e *registry.Event) ([]byte, error) {
	text, err := encode(eventJSON{e.At.UTC(), e.Kind, e.Service, e.ID, e.Zone, e.Actor, e.Detail})
	if err != nil {
		return nil, fmt.Errorf("write event %q of %q: %w", e.Kind, e.Service, err)
	}
	return text, nil
}

// DecodeEvent reads what EncodeEvent wrote, or says why it is not an event. Any
// kind is taken: one that a newer version made is for people too.
func DecodeEvent(text []byte) (registry.Event, error) {
	var v eventJSON
	if !v.readPlain(text) {
		v = eventJSON{}
		if err := json.Unmarshal(text, &v); err != nil {
			return registry.Event{}, err
		}
	}
	if v.Kind == "" {
		return registry.Event{}, errors.New("an event without kind")
	}
	if !writable(v.At) {
		return registry.Event{}, fmt.Errorf("event %q at %v", v.Kind, v.At)
	}
	return registry.Event(v), nil
}

// readPlain reads text if it is as EncodeEvent writes it, as that of a host does.
func (v *eventJSON) readPlain(text []byte) bool {
	p := plain{rest: text}
	p.read(v.At.UnmarshalText, p.text(`{"at":`))
	v.Kind = registry.EventKind(p.text(`,"kind":`))
	v.Service = string(p.optional(`,"service":`))
	v.ID = string(p.optional(`,"id":`))
	v.Zone = string(p.optional(`,"zone":`))
	v.Actor = string(p.optional(`,"actor":`))
	v.Detail = string(p.optional(`,"detail":`))
	return p.ends()
}
