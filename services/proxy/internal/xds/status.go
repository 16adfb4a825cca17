package xds

import (
	"slices"
	"time"
)

// Status is what a client knows of its control plane.
type Status struct {
	// Connected says that a stream is open.
	Connected bool
	// Identifier is what the control plane called itself last.
	Identifier string
	Types      []TypeStatus
}

// TypeStatus is the state of one subscription.
type TypeStatus struct {
	TypeURL string
	// Names are those asked for; nil for a wildcard.
	Names []string
	// Version was accepted last, at Updated; empty if none was.
	Version string
	Updated time.Time
	// Refused is why the newest response was refused; empty if it was not.
	Refused string
}

// Status may be called from any goroutine.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	status := Status{Connected: c.online, Identifier: c.identifier}
	for _, s := range c.subscriptions {
		status.Types = append(status.Types, TypeStatus{
			TypeURL: s.typeURL, Names: slices.Clone(s.names), Version: s.version, Updated: s.updated, Refused: s.refused,
		})
	}
	return status
}
