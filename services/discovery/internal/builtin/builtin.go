// Package builtin lists what ships with discovery: today the stores, by the
// scheme of their URL. The app calls it to turn a setting into a store. Adding
// one is one line here; nothing registers itself.
package builtin

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/store/fallback"
	"github.com/weirproxy/weir/services/discovery/internal/store/file"
	"github.com/weirproxy/weir/services/discovery/internal/store/memory"
	"github.com/weirproxy/weir/services/discovery/internal/store/redis"
)

// Store is a store that its opener closes.
type Store interface {
	registry.Store
	io.Closer
}

// StoreOptions is what stores may use beside their URL.
type StoreOptions struct {
	// Snapshot is the path of a file with a copy of a shared store, to start with
	// where that does not answer; "" for none.
	Snapshot string
	// SnapshotInterval is how often snapshots are written, of this kind and of
	// stores that are a file.
	SnapshotInterval time.Duration
	// Name is that of this replica, for others that share the store.
	Name    string
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// kind is one kind of store.
type kind struct {
	schemes []string
	form    string // what its URLs look like
	open    func(u *url.URL, o StoreOptions) (Store, error)
}

func kinds() []kind {
	return []kind{
		{[]string{"memory"}, "memory:", openMemory},
		{[]string{"file"}, "file:///path", openFile},
		{redis.Schemes(), redis.Forms, openRedis},
	}
}

// OpenStore opens the store that a URL names. The caller closes it. The error
// says what the URL may be. Of one that is mistyped it holds the scheme alone:
// any other part may be a password.
func OpenStore(rawURL string, o StoreOptions) (Store, error) {
	if rawURL == "" {
		return nil, fmt.Errorf("empty, which is none of %s", forms())
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("store: not a URL, such as %s", forms())
	}
	for _, k := range kinds() {
		if !slices.Contains(k.schemes, u.Scheme) {
			continue
		}
		store, err := k.open(u, o)
		if err == nil && o.Snapshot != "" {
			store, err = withSnapshot(store, o)
		}
		if err != nil {
			return nil, fmt.Errorf("store of scheme %q: %w", u.Scheme, err)
		}
		return store, nil
	}
	return nil, fmt.Errorf("store of scheme %q: not one of %s", u.Scheme, forms())
}

// forms is what the URLs of stores look like.
func forms() string {
	var list []string
	for _, k := range kinds() {
		list = append(list, k.form)
	}
	return strings.Join(list, ", ")
}

func openMemory(u *url.URL, _ StoreOptions) (Store, error) {
	if u.Opaque != "" || u.User != nil || u.Host != "" || u.Path != "" || u.RawQuery != "" {
		return nil, errors.New("memory: has nothing after it")
	}
	return memory.New(), nil
}

func openFile(u *url.URL, o StoreOptions) (Store, error) {
	if u.User != nil || u.Host != "" || u.Opaque != "" || u.RawQuery != "" || u.Path == "" || strings.HasSuffix(u.Path, "/") {
		return nil, errors.New("not file:/// and the absolute path of a file")
	}
	return file.Open(u.Path, o.SnapshotInterval, o.Log, o.Metrics)
}

// redisTimeout bounds one exchange with Redis.
const redisTimeout = time.Second

func openRedis(u *url.URL, o StoreOptions) (Store, error) {
	return redis.Open(redis.Options{URL: u.String(), Timeout: redisTimeout, Name: o.Name, Log: o.Log})
}

// withSnapshot is a shared store with a copy in a file. If that cannot be, the
// store is closed.
func withSnapshot(store Store, o StoreOptions) (Store, error) {
	shared, ok := store.(fallback.Shared)
	if !ok {
		return nil, errors.Join(errors.New("a snapshot beside it is for stores that replicas share"), store.Close())
	}
	local, err := file.Open(o.Snapshot, o.SnapshotInterval, o.Log, o.Metrics)
	if err != nil {
		return nil, errors.Join(err, shared.Close())
	}
	return fallback.New(shared, local, o.Log), nil
}

// LogDrivers sends what the drivers of stores have to say to log, at level debug.
// They have one logger for the whole process, so only a command calls this.
func LogDrivers(log *slog.Logger) { redis.LogDriver(log) }
