package redis

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

// awaitPing pings until that fails with a text, or is answered where that is
// empty: a ping waits less than a busy machine may take.
func awaitPing(t *testing.T, s *Store, failure string) {
	t.Helper()
	servicetest.Eventually(t, "a ping comes to: "+failure, func() bool {
		err := s.Ping(t.Context())
		return err == nil && failure == "" || err != nil && failure != "" && strings.Contains(err.Error(), failure)
	})
}

func TestARedisThatRefusesEveryCountIsNotReady(t *testing.T) {
	group := servicetest.Sentinel(t)
	for name, options := range map[string]Options{
		"single":   {URL: group.Master.Address},
		"sentinel": {Type: "sentinel", URL: group.Name + "," + group.Address},
	} {
		t.Run(name, func(t *testing.T) {
			s := openWith(t, options)
			awaitPing(t, s, "")
			for _, c := range []struct{ refuse, allow, want string }{
				{"CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"},
				{"CONFIG SET min-replicas-to-write 9", "CONFIG SET min-replicas-to-write 0", "NOREPLICAS"},
			} {
				group.Master.Command(c.refuse)
				for range 2 * pings {
					awaitPing(t, s, c.want)
					_, err := hit(t.Context(), s, "k")
					require.ErrorContains(t, err, c.want, "the breaker stays shut: the answer costs no wait")
				}
				group.Master.Command(c.allow)
				awaitPing(t, s, "")
				_, err := hit(t.Context(), s, "k")
				require.NoError(t, err)
			}
		})
	}
}

func TestAnyMasterOfAClusterThatIsFullIsNotReady(t *testing.T) {
	for _, prefix := range []string{"", "rl:"} {
		masters := servicetest.RedisCluster(t)
		s := openWith(t, Options{Type: "cluster", URL: masters[0].Address, KeyPrefix: prefix})
		require.NoError(t, s.nodes.wait(t.Context()))
		for _, m := range masters {
			awaitPing(t, s, "")
			m.Command("CONFIG SET maxmemory 1")
			awaitPing(t, s, m.Address+": OOM")
			m.Command("CONFIG SET maxmemory 0")
		}
		awaitPing(t, s, "")
	}
}

func TestAMasterThatTheOperatorsBracesLeaveOutMayBeFull(t *testing.T) {
	masters := servicetest.RedisCluster(t)
	s := openWith(t, Options{Type: "cluster", URL: masters[0].Address, KeyPrefix: "{rl}"})
	require.NoError(t, s.nodes.wait(t.Context()))
	h, err := s.nodes.shardOf([]byte("{rl}k"))
	require.NoError(t, err)
	for _, m := range masters {
		m.Command("CONFIG SET maxmemory 1")
		if m.Address == h.name {
			awaitPing(t, s, "OOM")
		} else {
			awaitPing(t, s, "")
		}
		m.Command("CONFIG SET maxmemory 0")
	}
}

func TestTheProbeLeavesNothingForLong(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address, KeyPrefix: "rl:"})
	for range 3 {
		awaitPing(t, s, "")
	}
	require.Equal(t, "1", server.Command("DBSIZE"))
	require.Equal(t, "0", server.Command("GET rl:ratelimit_probe"))
	require.NotEqual(t, "-1", server.Command("PTTL rl:ratelimit_probe"))
}
