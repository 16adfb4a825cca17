package xds

import (
	"slices"
	"time"
)

// Status is what a client knows of its control planes.
type Status struct {
	// Connected says that an aggregated stream is open.
	Connected bool
	// Identifier is what that control plane called itself last.
	Identifier string
	Types      []TypeStatus
}

// TypeStatus is the state of one subscription.
type TypeStatus struct {
	TypeURL string
	// Source is where it comes from, if not from ADS: a file or a cluster.
	Source string
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
	var status Status
	for _, o := range c.origins {
		source := ""
		if o.source.IsADS() {
			status.Connected, status.Identifier = o.online, o.identifier
		} else {
			source = o.source.String()
		}
		for _, s := range o.subscriptions {
			status.Types = append(status.Types, TypeStatus{
				TypeURL: s.typeURL, Source: source, Names: slices.Clone(s.names()), Version: s.version, Updated: s.updated, Refused: s.refused,
			})
		}
	}
	return status
}
