// Package memory keeps nothing: a restarted discovery knows nobody until the
// hosts check in again. It is the store behind the URL memory:, and the
// registry, whose own memory is all there is, is its only caller. It never
// fails.
package memory

import (
	"context"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// Store is a registry.Store that forgets what it is told.
type Store struct{}

// New returns a store.
func New() Store { return Store{} }

// Load returns no hosts.
func (Store) Load(context.Context) (*registry.Contents, error) { return &registry.Contents{}, nil }

// Append does nothing.
func (Store) Append(context.Context, []registry.Change) error { return nil }

// Flush does nothing.
func (Store) Flush(context.Context, []registry.Beat) ([]registry.Key, error) { return nil, nil }

// Complete does nothing.
func (Store) Complete(context.Context) error { return nil }

// Close does nothing.
func (Store) Close() error { return nil }
