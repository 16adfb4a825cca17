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
	"strings"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/store/file"
	"github.com/weirproxy/weir/services/discovery/internal/store/memory"
)

// Store is a store that its opener closes.
type Store interface {
	registry.Store
	io.Closer
}

// StoreOptions is what stores may use beside their URL.
type StoreOptions struct {
	// SnapshotInterval is how often a store that writes snapshots does so.
	SnapshotInterval time.Duration
	Log              *slog.Logger
}

// scheme is one kind of store.
type scheme struct {
	name string
	form string // what its URLs look like
	open func(u *url.URL, o StoreOptions) (Store, error)
}

func schemes() []scheme {
	return []scheme{
		{"memory", "memory:", openMemory},
		{"file", "file:///path", openFile},
	}
}

// OpenStore opens the store that a URL names. The caller closes it. The error
// says what the URL may be. Of one that is mistyped it holds the scheme alone:
// any other part may be a password.
func OpenStore(rawURL string, o StoreOptions) (Store, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("store: not a URL, such as %s", forms())
	}
	for _, s := range schemes() {
		if u.Scheme != s.name {
			continue
		}
		store, err := s.open(u, o)
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
	for _, s := range schemes() {
		list = append(list, s.form)
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
	return file.Open(u.Path, o.SnapshotInterval, o.Log)
}
