package redis

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/store/storetest"
)

func TestMain(m *testing.M) {
	LogDriver(discard)
	servicetest.Main(m)
}

// discard takes what no test looks at.
var discard = slog.New(slog.DiscardHandler)

// patience is a timeout that a busy machine keeps; impatience is for tests that
// wait for it to pass.
const (
	patience   = servicetest.Patience
	impatience = 300 * time.Millisecond
)

// open opens a store that the test closes at its end.
func open(t testing.TB, url string, timeout time.Duration) *Store {
	t.Helper()
	s, err := Open(Options{URL: url, Timeout: timeout, Log: discard})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// contract runs the suites on stores at url, after empty has emptied it.
func contract(t *testing.T, url string, empty func()) {
	storetest.Run(t, func(t *testing.T) registry.Store {
		empty()
		return open(t, url, patience)
	})
	storetest.RunShared(t, func(t *testing.T) (a, b registry.SharedStore) {
		empty()
		return open(t, url, patience), open(t, url, patience)
	})
}

func TestContract(t *testing.T) {
	server := servicetest.Redis(t)
	contract(t, "redis://"+server.Address+"/3", func() { server.Command("FLUSHALL") })
}

func TestContractOfASentinelsMaster(t *testing.T) {
	group := servicetest.Sentinel(t)
	contract(t, "redis+sentinel://"+group.Address+"/"+group.Name, func() { group.Master.Command("FLUSHALL") })
}

func TestContractInACluster(t *testing.T) {
	masters := servicetest.RedisCluster(t)
	contract(t, "redis+cluster://"+masters[1].Address+","+masters[2].Address, func() {
		for _, m := range masters {
			m.Command("FLUSHALL")
		}
	})
}
