package redis

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestARedisThatRefusesEveryCountIsNotReady(t *testing.T) {
	group := servicetest.Sentinel(t)
	for name, options := range map[string]Options{
		"single":   {URL: group.Master.Address},
		"sentinel": {Type: "sentinel", URL: group.Name + "," + group.Address},
	} {
		t.Run(name, func(t *testing.T) {
			s := openWith(t, options)
			require.NoError(t, s.Ping(t.Context()))
			for _, c := range []struct{ refuse, allow, want string }{
				{"CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"},
				{"CONFIG SET min-replicas-to-write 9", "CONFIG SET min-replicas-to-write 0", "NOREPLICAS"},
			} {
				group.Master.Command(c.refuse)
				for range 2 * pings {
					require.ErrorContains(t, s.Ping(t.Context()), c.want)
					_, err := hit(t.Context(), s, "k")
					require.ErrorContains(t, err, c.want, "the breaker stays shut: the answer costs no wait")
				}
				group.Master.Command(c.allow)
				require.NoError(t, s.Ping(t.Context()))
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
			require.NoError(t, s.Ping(t.Context()))
			m.Command("CONFIG SET maxmemory 1")
			require.ErrorContains(t, s.Ping(t.Context()), m.Address+": OOM")
			m.Command("CONFIG SET maxmemory 0")
		}
		require.NoError(t, s.Ping(t.Context()))
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
			require.ErrorContains(t, s.Ping(t.Context()), "OOM")
		} else {
			require.NoError(t, s.Ping(t.Context()))
		}
		m.Command("CONFIG SET maxmemory 0")
	}
}

func TestTheProbeLeavesNothingForLong(t *testing.T) {
	server := servicetest.Redis(t)
	s := openWith(t, Options{URL: server.Address, KeyPrefix: "rl:"})
	for range 3 {
		require.NoError(t, s.Ping(t.Context()))
	}
	require.Equal(t, "1", server.Command("DBSIZE"))
	require.Equal(t, "0", server.Command("GET rl:ratelimit_probe"))
	require.NotEqual(t, "-1", server.Command("PTTL rl:ratelimit_probe"))
}
