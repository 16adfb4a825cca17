package faults

import (
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// on has all replicas keep hosts in the Redis at an address.
func on(address string, more ...string) func(int) []string {
	return func(int) []string { return append(more, "DISCOVERY_STORE=redis://"+address) }
}

// TestNothingHappens: even so the dead ones go, and nobody else.
func TestNothingHappens(t *testing.T) {
	t.Parallel()
	s := newSite(t, byTurns, on(servicetest.Redis(t).Address))
	s.kill(0)
	s.pass(2 * ttl)
	s.verdict()
}

func TestRedisIsKilled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		how  routing
		args []string
	}{
		"and_comes_back_as_it_was_a_second_before": {byFailure, []string{"--appendonly", "yes", "--appendfsync", "everysec"}},
		"and_comes_back_empty":                     {byTurns, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			redis := servicetest.Redis(t, c.args...)
			s := newSite(t, c.how, on(redis.Address))
			s.kill(0)
			redis.Kill()
			s.pass(ttl)
			s.kill(1)
			s.pass(ttl)
			redis.Start()
			s.kill(2)
			s.verdict()
		})
	}
}

func TestRedisHangs(t *testing.T) {
	t.Parallel()
	redis := servicetest.Redis(t)
	s := newSite(t, byFailure, on(redis.Address))
	s.kill(0)
	require.NoError(t, redis.Process().Signal(syscall.SIGSTOP))
	s.pass(ttl)
	s.kill(1)
	s.pass(ttl)
	require.NoError(t, redis.Process().Signal(syscall.SIGCONT))
	s.kill(2)
	s.verdict()
}

func TestRedisIsFlushed(t *testing.T) {
	t.Parallel()
	redis := servicetest.Redis(t)
	s := newSite(t, byFailure, on(redis.Address))
	s.kill(0)
	redis.Command("FLUSHALL")
	s.kill(1)
	s.pass(2 * ttl)
	s.verdict()
}

// TestAReplicaOfRedisThatWasBehindTakesOver: it does not know who came in the
// last seconds, and still knows who went in them.
func TestAReplicaOfRedisThatWasBehindTakesOver(t *testing.T) {
	t.Parallel()
	master := servicetest.Redis(t)
	replication := newGate(t, master.Address)
	follower := servicetest.Redis(t, "--replicaof", strings.Replace(replication.address(), ":", " ", 1))
	servicetest.Eventually(t, "the replica follows", func() bool {
		return strings.Contains(follower.Command("INFO replication"), "master_link_status:up")
	})
	service := newGate(t, master.Address)
	s := newSite(t, byFailure, on(service.address()))
	s.kill(0)
	s.pass(ttl / 2)
	replication.close()
	s.fleet.late.Store(true)
	s.pass(ttl)
	s.kill(1)
	require.NotEqual(t, field(master, "master_repl_offset"), field(follower, "slave_repl_offset"), "how far both are")
	master.Kill()
	follower.Command("REPLICAOF NO ONE")
	service.lead(follower.Address)
	s.pass(2 * ttl)
	s.verdict()
}

// field is one of what a Redis says of its replication.
func field(redis *servicetest.RedisServer, name string) string {
	_, value, _ := strings.Cut(redis.Command("INFO replication"), "\n"+name+":")
	value, _, _ = strings.Cut(value, "\r")
	return value
}

func TestASentinelPutsAnotherRedisInTheMastersPlace(t *testing.T) {
	t.Parallel()
	redis := servicetest.Sentinel(t)
	s := newSite(t, byTurns, func(int) []string {
		return []string{"DISCOVERY_STORE=redis+sentinel://" + redis.Address + "/" + redis.Name}
	})
	s.kill(0)
	redis.Master.Kill()
	s.pass(ttl)
	s.kill(1)
	s.pass(ttl)
	s.verdict()
}

func TestAReplicaIsKilled(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]routing{"whose_hosts_go_to_others": byFailure, "of_those_that_all_hosts_call": byTurns} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, how, on(servicetest.Redis(t).Address))
			s.kill(0)
			s.replicas[0].Kill()
			s.pass(ttl)
			s.kill(1)
			s.pass(ttl)
			s.replicas[0].Restart()
			s.kill(2)
			s.verdict()
		})
	}
}

func TestAReplicaStandsStill(t *testing.T) {
	t.Parallel()
	s := newSite(t, byFailure, on(servicetest.Redis(t).Address))
	s.kill(0)
	s.replicas[0].Signal(syscall.SIGSTOP)
	s.pass(2 * ttl)
	s.kill(1)
	s.replicas[0].Signal(syscall.SIGCONT)
	s.verdict()
}

// TestAReplicaStandsStillThatHostsStreamTo: it finds their streams broken when it goes
// on, and is not to take out those that beat at another since.
func TestAReplicaStandsStillThatHostsStreamTo(t *testing.T) {
	t.Parallel()
	s := newSite(t, byStream, on(servicetest.Redis(t).Address, "DISCOVERY_BEAT_LOSS_ENDS=true"))
	require.Positive(t, harness.Metric(t, s.replicas[0], "discovery_beat_stream_hosts"))
	s.kill(0)
	s.replicas[0].Signal(syscall.SIGSTOP)
	s.pass(2 * ttl)
	s.kill(1)
	s.replicas[0].Signal(syscall.SIGCONT)
	s.pass(ttl)
	s.kill(2)
	s.verdict()
}

// TestReplicasStartOneAfterAnotherOnAnEmptiedRedis: each finds what those before it
// have heard by then, and is not to take that for all.
func TestReplicasStartOneAfterAnotherOnAnEmptiedRedis(t *testing.T) {
	t.Parallel()
	redis := servicetest.Redis(t)
	s := newSite(t, byFailure, on(redis.Address))
	// They learn that they are not known when they beat next.
	s.mostLost += beatEvery
	s.kill(0)
	all(s, (*harness.Process).Kill)
	redis.Command("FLUSHALL")
	s.kill(1)
	for _, r := range s.replicas {
		r.Restart()
		s.pass(ttl / 4)
	}
	s.kill(2)
	s.verdict()
}

func TestAllReplicasAreKilledAndStartAgain(t *testing.T) {
	t.Parallel()
	t.Run("with_redis", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, byTurns, on(servicetest.Redis(t).Address))
		s.kill(0)
		all(s, (*harness.Process).Kill)
		s.kill(1)
		s.pass(2 * ttl)
		all(s, (*harness.Process).Restart)
		s.verdict()
	})
	for name, how := range map[string]routing{"while_redis_is_away": byFailure, "while_redis_is_away_and_hosts_call_all_of_them": byTurns} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			directory := t.TempDir()
			redis := servicetest.Redis(t)
			s := newSite(t, how, func(replica int) []string {
				return []string{
					"DISCOVERY_STORE=redis://" + redis.Address, "DISCOVERY_SNAPSHOT_INTERVAL=1s",
					"DISCOVERY_SNAPSHOT=" + filepath.Join(directory, strconv.Itoa(replica)),
				}
			})
			s.kill(0)
			redis.Kill()
			// Who comes now is known to one replica or two, until Redis is back.
			s.mayMiss(s.views, func(h *host) bool { return h.late })
			s.fleet.late.Store(true)
			s.pass(ttl / 2)
			all(s, (*harness.Process).Kill)
			s.pass(ttl)
			all(s, (*harness.Process).Restart)
			s.kill(1)
			s.pass(ttl)
			redis.Start() // empty
			s.verdict()
		})
	}
}

// TestNothingIsRestored: of a replica alone that keeps nothing, which starts again.
// Hosts are listed as they come back, and no service before its first one does.
func TestNothingIsRestored(t *testing.T) {
	t.Parallel()
	s := newSiteOf(t, 1, ttl, byHome, func(int) []string { return []string{"DISCOVERY_STORE=memory:"} })
	// They learn that they are not known when they beat next.
	s.mostLost += beatEvery
	s.kill(0)
	s.replicas[0].Kill()
	s.pass(ttl)
	s.kill(1)
	s.replicas[0].Restart()
	s.verdict()
}

// all does something to each replica.
func all(s *site, do func(*harness.Process)) {
	for _, r := range s.replicas {
		do(r)
	}
}

func TestAReplicaIsCutOffFromHosts(t *testing.T) {
	t.Parallel()
	t.Run("that_others_hear", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, byFailure, on(servicetest.Redis(t).Address))
		s.kill(0)
		s.cutOff(0, func() { s.kill(1) })
		s.verdict()
	})
	// Nobody can know that these hosts live, so some of them go. No service goes
	// with them.
	t.Run("that_nobody_else_hears", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, byHome, on(servicetest.Redis(t).Address, "DISCOVERY_GUARD_LAST_HOST=3"))
		s.mayMiss(s.views, func(h *host) bool { return h.carrier.home == 0 })
		s.kill(0)
		s.cutOff(0, func() {})
		s.kill(1)
		s.verdict()
	})
}

// TestAReplicaIsCutOffFromRedis: the others hear no more of the hosts that beat
// there, and let none go while they miss it. What they know is three seconds old
// then, and it takes them up to four to miss it.
func TestAReplicaIsCutOffFromRedis(t *testing.T) {
	t.Parallel()
	const ttl = 8 * time.Second
	redis := servicetest.Redis(t)
	network := newGate(t, redis.Address)
	s := newSiteOf(t, 3, ttl, byHome, func(replica int) []string {
		address := redis.Address
		if replica == 0 {
			address = network.address()
		}
		return []string{"DISCOVERY_STORE=redis://" + address}
	})
	s.kill(0)
	network.close()
	s.pass(ttl)
	s.kill(1)
	s.pass(ttl)
	for n, guard := range []string{"store_away", "replica_lost", "replica_lost"} {
		require.Equal(t, 1.0, harness.Metric(t, s.replicas[n], `discovery_guard_suspended{guard="`+guard+`"}`), "replica %d", n)
	}
	network.open()
	s.verdict()
}

// TestTheClockOfRedisIsSet: the times of beats are those of its clock.
func TestTheClockOfRedisIsSet(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]time.Duration{"forward": time.Hour, "back": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			redis := newClockedRedis(t)
			s := newSite(t, byFailure, on(redis.address))
			s.kill(0)
			s.pass(ttl / 2)
			redis.set(by)
			s.pass(ttl)
			s.kill(1)
			s.pass(ttl)
			s.verdict()
		})
	}
}
