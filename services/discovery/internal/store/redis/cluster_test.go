package redis

import (
	"bytes"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// inCluster is two replicas in a Cluster, which list host 1 of users, and its
// masters, first the one that has the host.
func inCluster(t *testing.T) (a, b replica, masters []*servicetest.RedisServer, url string) {
	t.Helper()
	masters = servicetest.RedisCluster(t)
	url = "redis+cluster://" + masters[0].Address + "," + masters[1].Address + "," + masters[2].Address
	a, b = start(t, url, time.Second), start(t, url, time.Second)
	a.checkIn("1", time.Minute)
	await(t, "1", a, b)
	awaitKept(t, url, "1")
	for i, m := range masters {
		if m.Command("CLUSTER COUNTKEYSINSLOT "+usersSlot(m)) != "0" {
			masters[0], masters[i] = m, masters[0]
			return a, b, masters, url
		}
	}
	t.Fatal("no master has the slot of users")
	return
}

// usersSlot is the slot of the hosts of users.
func usersSlot(m *servicetest.RedisServer) string {
	return m.Command("CLUSTER KEYSLOT " + usersKeys("rec")[0])
}

// usersKeys are keys of the partition of users.
func usersKeys(names ...string) []string {
	return (&Store{place: &place{prefix: "sd:"}}).keys(partitionOf("users"), names...)
}

func TestReplicasFollowHostsWhoseSlotMoves(t *testing.T) {
	a, b, masters, url := inCluster(t)
	slot := usersSlot(masters[0])
	from, to := masters[0].Command("CLUSTER MYID"), masters[1].Command("CLUSTER MYID")
	masters[1].Command("CLUSTER SETSLOT " + slot + " IMPORTING " + from)
	masters[0].Command("CLUSTER SETSLOT " + slot + " MIGRATING " + to)
	// While its keys are at either place no call on all of them is answered.
	b.checkIn("2", time.Minute)
	host, port, _ := net.SplitHostPort(masters[1].Address)
	move := func(keys ...string) {
		masters[0].Command("MIGRATE " + host + " " + port + ` "" 0 1000 KEYS ` + strings.Join(keys, " "))
	}
	move(usersKeys("rec", "meta")...)
	a.checkIn("3", time.Minute)
	require.Equal(t, "1 3", a.ids())
	require.Equal(t, "1 2", b.ids())
	move(usersKeys("beat", "log", "ovr", "tomb", "sweep")...)
	servicetest.Eventually(t, "no key is left behind", func() bool {
		return masters[0].Command("CLUSTER COUNTKEYSINSLOT "+slot) == "0"
	})
	for _, m := range masters[1:] {
		m.Command("CLUSTER SETSLOT " + slot + " NODE " + to)
	}
	masters[0].Command("CLUSTER SETSLOT " + slot + " NODE " + to)
	await(t, "1 2 3", a, b)
	b.checkIn("4", time.Minute)
	await(t, "1 2 3 4", a, b)
	awaitKept(t, url, "1 2 3 4")
}

func TestAReplicaTellsAClusterOfWhichAServerIsAwayOfTheRest(t *testing.T) {
	a, b, masters, _ := inCluster(t)
	service := a.store.serviceOnEach(masters)[masters[1].Address]
	require.NoError(t, masters[1].Process().Signal(syscall.SIGSTOP))
	waits := hostOf("1", time.Minute)
	waits.Service = service
	_, err := a.CheckIn(waits, "a test")
	require.NoError(t, err)
	a.away()
	a.checkIn("2", time.Minute)
	await(t, "1 2", a, b)

	beat := usersKeys("beat")[0] + " " + hostMember(registry.Key{Service: "users", ID: "1"})
	masters[0].Command("ZADD " + strings.Replace(beat, " ", " 1 ", 1))
	servicetest.Eventually(t, "a beat is noted", func() bool {
		a.checkIn("1", time.Minute)
		return masters[0].Command("ZSCORE "+beat) != "1"
	})
	b.remove("2")
	await(t, "1", a, b)

	require.NoError(t, masters[1].Process().Signal(syscall.SIGCONT))
	servicetest.Eventually(t, "the other hears of the host that waited", func() bool {
		list, err := b.List(service)
		return err == nil && len(list.Hosts) == 1
	})
	require.Equal(t, "1", a.ids())
	require.Equal(t, "1", b.ids())
}

func TestReplicasFollowAClustersMasterToItsReplica(t *testing.T) {
	t.Cleanup(func() { // after the stores are closed
		servicetest.Eventually(t, "the driver dials the dead master no more", func() bool {
			stacks := make([]byte, 1<<20)
			return !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("tryDial"))
		})
	})
	a, b, masters, url := inCluster(t)
	_, bus, _ := net.SplitHostPort(servicetest.FreeAddress(t))
	next := servicetest.Redis(t, "--cluster-enabled", "yes", "--cluster-port", bus,
		"--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(next.Address)
	for _, m := range masters {
		m.Command("CLUSTER MEET " + host + " " + port + " " + bus)
	}
	knows := func(m *servicetest.RedisServer, command, what string) {
		servicetest.Eventually(t, command+" says "+what, func() bool { return strings.Contains(m.Command(command), what) })
	}
	id := masters[0].Command("CLUSTER MYID")
	knows(next, "CLUSTER NODES", id)
	knows(next, "CLUSTER INFO", "cluster_slots_assigned:16384")
	next.Command("CLUSTER REPLICATE " + id)
	knows(next, "INFO replication", "master_link_status:up")
	knows(masters[1], "CLUSTER NODES", next.Address)

	masters[0].Kill()
	next.Command("CLUSTER FAILOVER TAKEOVER")
	b.checkIn("2", time.Minute)
	await(t, "1 2", a, b)
	awaitKept(t, url, "1 2")
	require.NotEqual(t, "0", next.Command("CLUSTER COUNTKEYSINSLOT "+usersSlot(next)))
}
