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
		"":                            `store "": not one of memory:, file:///path`,
		"redis://user:secret@h:1":     `store "redis://user:xxxxx@h:1": not one of`,
		"memory:things":               "memory: has nothing after it",
		"file://relative/hosts":       "not file:/// and the absolute path of a file",
		"file:///":                    "not file:/// and the absolute path of a file",
		"file:relative":               "not file:/// and the absolute path of a file",
		"file://" + dir + "/hosts?x=": "not file:/// and the absolute path of a file",
		":":                           "missing protocol scheme",
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
