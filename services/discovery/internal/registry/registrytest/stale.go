package registrytest

import (
	"context"
	"testing"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/store/memory"
)

// Stale is a registry that runs until the test ends, and is loaded with a host from a
// snapshot of a shared store, which does not answer itself.
func Stale(t testing.TB, host registry.Host) *registry.Registry {
	t.Helper()
	o := Options()
	o.Store = &staleStore{memory.New(), host}
	r := registry.New(o)
	Run(t, r)
	<-r.Loaded()
	return r
}

// staleStore is the store of Stale.
type staleStore struct {
	memory.Store
	host registry.Host
}

func (s *staleStore) Load(context.Context) (*registry.Contents, error) {
	return &registry.Contents{Records: []registry.Record{{Host: &s.host, Lease: 1}}, Partial: true, Stale: true}, nil
}

func (s *staleStore) Expire(context.Context, []registry.Beat) ([]registry.Key, error) {
	return nil, nil
}

func (s *staleStore) Follow(ctx context.Context, _ func(registry.Update)) error {
	<-ctx.Done()
	return nil
}
