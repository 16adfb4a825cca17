package builtin

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/store/storetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestAStoreIsOpenedByTheSchemeOfItsURL(t *testing.T) {
	dir := t.TempDir()
	for url, reason := range map[string]string{
		"memory:":                     "",
		"file://" + dir + "/hosts":    "",
		"":                            `empty, which is none of memory:, file:///path, redis://`,
		"redis://user:secret@h:1":     "",
		"rediss+sentinel://a,b/main":  "",
		"redis+cluster://a:1,b:1":     "",
		"redis+sentinel://a,b":        `store of scheme "redis+sentinel": the name of the master is missing`,
		"tape://h":                    `store of scheme "tape": not one of memory:, file:///path, redis://`,
		"memory:things":               "memory: has nothing after it",
		"file://relative/hosts":       "not file:/// and the absolute path of a file",
		"file:///":                    "not file:/// and the absolute path of a file",
		"file:relative":               "not file:/// and the absolute path of a file",
		"file://" + dir + "/hosts?x=": "not file:/// and the absolute path of a file",
		"file://user:x@/hosts":        "not file:/// and the absolute path of a file",
		":":                           "store: not a URL, such as memory:, file:///path",
	} {
		t.Run(url, func(t *testing.T) {
			store, err := OpenStore(url, StoreOptions{SnapshotInterval: time.Hour, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
			if reason != "" {
				require.ErrorContains(t, err, reason)
				return
			}
			require.NoError(t, err)
			require.NoError(t, store.Close())
		})
	}
}

func TestAnErrorShowsNoPassword(t *testing.T) {
	for _, url := range []string{
		"redis://user:secret@host:1/secret",
		"redis://user:secret@host:1,other:1",
		"redis+cluster://user:secret@host/1",
		"tape://user:secret@host:1",
		"redis://:secret@local host",   // not a URL
		"redis://user:secret/@host",    // nor that: the port would be text
		"redis://user:%secret@host",    // nor that: no such escape
		"redis://:1/secret@host",       // the password's end is the path
		"redis:user:secret@host",       // no slashes
		"redis:/:secret@host",          // one too few
		"redis://host?password=secret", // a parameter
		"file://:secret@/hosts",
		"memory:secret",
	} {
		t.Run(url, func(t *testing.T) {
			_, err := OpenStore(url, StoreOptions{SnapshotInterval: time.Hour, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
			require.Error(t, err)
			require.NotContains(t, err.Error(), "sec")
		})
	}
}

func TestAReplicaStartsFromItsSnapshotWhileRedisIsAway(t *testing.T) {
	LogDrivers(slog.New(slog.DiscardHandler))
	server := servicetest.Redis(t)
	path := filepath.Join(t.TempDir(), "hosts.snapshot")
	open := func() Store {
		store, err := OpenStore("redis://"+server.Address, StoreOptions{
			Snapshot: path, SnapshotInterval: time.Hour, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		})
		require.NoError(t, err)
		return store
	}
	load := func(store Store) []registry.Record {
		contents, err := store.Load(t.Context())
		require.NoError(t, err)
		return contents.Records
	}
	store := open()
	require.Empty(t, load(store))
	host := storetest.Record("users", "a", 1)
	servicetest.Eventually(t, "the host is appended", func() bool {
		return store.Append(t.Context(), []registry.Change{{Key: host.Host.Key, Record: &host}}) == nil
	})
	require.NoError(t, store.Close())
	server.Kill()

	store = open()
	require.Equal(t, []registry.Record{host}, load(store))
	server.Start() // empty
	ctx, cancel := context.WithCancel(t.Context())
	lost := make(chan struct{})
	once := sync.OnceFunc(func() { close(lost) })
	followed := make(chan struct{})
	// Ends with ctx; the test waits for it below.
	go func() {
		defer close(followed)
		for ctx.Err() == nil {
			_ = store.(registry.SharedStore).Follow(ctx, func(u registry.Update) {
				if u.Lost && u.Covers("users") {
					once()
				}
			})
		}
	}()
	<-lost // so that the registry gives all of it again
	cancel()
	<-followed
	require.NoError(t, store.Close())
}

func TestASnapshotThatCannotBeIsRefused(t *testing.T) {
	for store, snapshot := range map[string]string{"redis://h": "/none/hosts", "memory:": filepath.Join(t.TempDir(), "hosts")} {
		_, err := OpenStore(store, StoreOptions{Snapshot: snapshot, SnapshotInterval: time.Hour, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
		require.ErrorContains(t, err, "snapshot")
	}
}
