package client

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"time"
)

// Registration is what a host says of itself.
type Registration struct {
	Address netip.Addr `json:"address"`
	// AdditionalAddresses are further addresses with the same ports.
	AdditionalAddresses []netip.Addr `json:"additional_addresses,omitempty"`
	Port                uint16       `json:"port"`
	// Ports are further ports by name.
	Ports    map[string]uint16 `json:"ports,omitempty"`
	Zone     string            `json:"zone,omitempty"`
	Region   string            `json:"region,omitempty"`
	Repo     string            `json:"repo,omitempty"`
	Revision string            `json:"revision,omitempty"`
	// Weight is 1 to 100, or 0 when nothing is said of it.
	Weight uint8 `json:"weight,omitempty"`
	// Canary is nil when nothing is said of it.
	Canary *bool `json:"canary,omitempty"`
	// Tags are JSON values by name.
	Tags map[string]json.RawMessage `json:"tags,omitempty"`
	// TTL is a duration as Go writes it, of whole seconds.
	TTL      string `json:"ttl"`
	Draining bool   `json:"draining,omitempty"`
}

// Receipt is what a registration is answered with.
type Receipt struct {
	// Lease names this stay of the host; heartbeats carry it.
	Lease string `json:"lease"`
	// TTL is how long the host lives after a heartbeat, as Go writes durations.
	TTL string `json:"ttl"`
}

type beat struct {
	Lease string `json:"lease,omitempty"`
}

// Hosts is a list of a service.
type Hosts struct {
	Service string `json:"service"`
	// Known is false for a service that never had hosts, or none for long.
	Known bool `json:"known"`
	// Index names what the list says.
	Index string `json:"index"`
	Hosts []Host `json:"hosts"`
}

// Host is one host of a list. As JSON it is all that the registry said of it.
type Host struct {
	ID      string
	Address netip.Addr
	Port    uint16
	Zone    string
	// State is serving, draining or out.
	State    string
	Stale    bool
	Revision string
	// Weight is 0 if there is none.
	Weight      uint8
	LastCheckIn time.Time

	text json.RawMessage
}

// UnmarshalJSON implements json.Unmarshaler.
func (h *Host) UnmarshalJSON(text []byte) error {
	var said struct {
		ID          string     `json:"id"`
		Address     netip.Addr `json:"address"`
		Port        uint16     `json:"port"`
		Zone        string     `json:"zone"`
		State       string     `json:"state"`
		Stale       bool       `json:"stale"`
		Revision    string     `json:"revision"`
		Weight      uint8      `json:"weight"`
		LastCheckIn time.Time  `json:"last_check_in"`
	}
	if err := json.Unmarshal(text, &said); err != nil {
		return err
	}
	*h = Host{
		ID: said.ID, Address: said.Address, Port: said.Port, Zone: said.Zone, State: said.State, Stale: said.Stale,
		Revision: said.Revision, Weight: said.Weight, LastCheckIn: said.LastCheckIn, text: bytes.Clone(text),
	}
	return nil
}

// MarshalJSON implements json.Marshaler.
func (h Host) MarshalJSON() ([]byte, error) { return h.text, nil }

// Services is the index of services.
type Services struct {
	Services []Service `json:"services"`
}

// Service is one line of it: how many hosts a service has in each state, and
// how many of all are stale.
type Service struct {
	Name      string    `json:"name"`
	Hosts     int       `json:"hosts"`
	Serving   int       `json:"serving"`
	Draining  int       `json:"draining"`
	Out       int       `json:"out"`
	Stale     int       `json:"stale"`
	Index     string    `json:"index"`
	ChangedAt time.Time `json:"changed_at"`
}

// Setting is what an operator decides about hosts.
type Setting struct {
	Scope Scope `json:"scope"`
	// Author is who decides; an identity that the call carries stands in its
	// place.
	Author string `json:"author,omitempty"`
	Reason string `json:"reason"`
	// ExpiresIn is a duration as Go writes it; empty for never.
	ExpiresIn string `json:"expires_in,omitempty"`
}

// Scope is which hosts a setting is about: one (service and id), those of a
// zone (with a service or of all), or those of a service.
type Scope struct {
	Service string `json:"service,omitempty"`
	ID      string `json:"id,omitempty"`
	Zone    string `json:"zone,omitempty"`
}
