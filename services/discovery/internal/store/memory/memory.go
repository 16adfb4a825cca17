// Package memory keeps hosts for as long as the process lives: a restarted
// discovery knows nobody until the hosts check in again. It is the store behind
// the URL memory:, and the registry is its only caller. It writes nothing
// anywhere and never fails.
package memory

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// Store is a registry.Store in memory.
type Store struct {
	mu      sync.Mutex
	records registry.Records
}

// New returns an empty store.
func New() *Store { return &Store{records: registry.Records{}} }

// Load returns what was appended to this very Store.
func (s *Store) Load(context.Context) ([]registry.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.records)), nil
}

// Append takes the changes over.
func (s *Store) Append(_ context.Context, changes []registry.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records.Append(changes)
	return nil
}

// Flush takes over the times of the beats.
func (s *Store) Flush(_ context.Context, beats []registry.Beat) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records.Flush(beats)
	return nil
}

// Follow waits for ctx to end: nobody else writes here.
func (s *Store) Follow(ctx context.Context, _ func([]registry.Change, []registry.Beat)) error {
	<-ctx.Done()
	return nil
}

// Close does nothing.
func (s *Store) Close() error { return nil }
