package builtin

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestAStoreIsOpenedByTheSchemeOfItsURL(t *testing.T) {
	dir := t.TempDir()
	for url, reason := range map[string]string{
		"memory:":                     "",
		"file://" + dir + "/hosts":    "",
		"":                            `store of scheme "": not one of memory:, file:///path`,
		"redis://user:secret@h:1":     `store of scheme "redis": not one of memory:, file:///path`,
		"memory:things":               "memory: has nothing after it",
		"file://relative/hosts":       "not file:/// and the absolute path of a file",
		"file:///":                    "not file:/// and the absolute path of a file",
		"file:relative":               "not file:/// and the absolute path of a file",
		"file://" + dir + "/hosts?x=": "not file:/// and the absolute path of a file",
		"file://user:x@/hosts":        "not file:/// and the absolute path of a file",
		":":                           "store: not a URL, such as memory:, file:///path",
	} {
		t.Run(url, func(t *testing.T) {
			store, err := OpenStore(url, StoreOptions{SnapshotInterval: time.Hour, Log: slog.New(slog.DiscardHandler)})
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
		"redis://user:secret@host:1",
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
			_, err := OpenStore(url, StoreOptions{SnapshotInterval: time.Hour, Log: slog.New(slog.DiscardHandler)})
			require.Error(t, err)
			require.NotContains(t, err.Error(), "sec")
		})
	}
}
