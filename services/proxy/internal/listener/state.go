package listener

import (
	"maps"
	"net"
	"slices"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
)

// State is one listener as the admin interface shows it.
type State struct {
	Name   string
	Static bool
	// Address is the bound one of what serves or, before anything does, waits to.
	Address net.Addr
	// Active serves; Warming waits to. Either may be nil.
	Active, Warming *Version
	// Refused is the newest update, if it was; nil else.
	Refused *Refusal
}

// Version is one configuration of a listener.
type Version struct {
	Message *listenerv3.Listener
	Version string // empty for that of the bootstrap
	Updated time.Time
}

// Refusal is an update that was refused.
type Refusal struct {
	Message *listenerv3.Listener
	Details string
	At      time.Time
}

// States are all listeners: those of the bootstrap in their order, then those of
// LDS by name.
func (m *Manager) States() []State {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := slices.Clone(m.order)
	for _, name := range slices.Sorted(maps.Keys(m.listeners)) {
		if !m.listeners[name].static {
			names = append(names, name)
		}
	}
	var all []State
	for _, name := range names {
		e := m.listeners[name]
		if e == nil {
			continue
		}
		state := State{Name: name, Static: e.static, Refused: e.refused}
		if e.active != nil {
			state.Address = e.active.Addr()
			state.Active = &Version{e.active.Config().Message, e.version, e.updated}
		}
		if w := e.warming; w != nil {
			state.Warming = &Version{w.config.Message, w.version, w.began}
			if state.Address == nil {
				state.Address = w.listener.Addr()
			}
		}
		all = append(all, state)
	}
	return all
}
