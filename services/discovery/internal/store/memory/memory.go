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
func (Store) Load(context.Context) ([]registry.Record, error) { return nil, nil }

// Append does nothing.
func (Store) Append(context.Context, []registry.Change) error { return nil }

// Flush does nothing.
func (Store) Flush(context.Context, []registry.Beat) error { return nil }

// Follow waits for ctx to end: nobody else writes here.
func (Store) Follow(ctx context.Context, _ func([]registry.Change, []registry.Beat)) error {
	<-ctx.Done()
	return nil
}

// Close does nothing.
func (Store) Close() error { return nil }
