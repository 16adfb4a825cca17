package redis

import (
	"context"
	"encoding/json"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
)

// tagged is hostOf with tags of these names.
func tagged(id string, names ...string) registry.Host {
	h := hostOf(id, time.Hour)
	list := map[string]json.RawMessage{}
	for _, name := range names {
		list[name] = json.RawMessage(`"yes"`)
	}
	h.Tags.Other = registry.TagListOf(list)
	return h
}

// put has a host say all of itself.
func (r replica) put(h registry.Host) {
	r.t.Helper()
	_, err := r.Put(h, "a test")
	require.NoError(r.t, err)
}

// weigh gives a host of users a weight, or with "" all.
func (r replica) weigh(id string, weight uint8) {
	r.t.Helper()
	_, err := r.SetWeight(registry.Selection{Service: "users", ID: id}, weight, "a test")
	require.NoError(r.t, err)
}

// hosts are those of users, by ID.
func (r replica) hosts() map[string]registry.Host {
	r.t.Helper()
	list, err := r.List("users")
	require.NoError(r.t, err)
	hosts := map[string]registry.Host{}
	for _, v := range list.Hosts {
		hosts[v.Host.ID] = *v.Host
	}
	return hosts
}

// awaitHosts waits until all replicas, and Redis, have exactly these hosts.
func awaitHosts(t *testing.T, url string, want map[string]registry.Host, replicas ...replica) {
	t.Helper()
	s := open(t, url, patience)
	var differs string
	defer func() {
		if t.Failed() {
			t.Log(differs)
		}
	}()
	servicetest.Eventually(t, "all have what was said", func() bool {
		contents, err := s.Load(t.Context())
		if err != nil {
			return false
		}
		kept := map[string]registry.Host{}
		for _, r := range contents.Records {
			kept[r.Host.ID] = *r.Host
		}
		all := []map[string]registry.Host{kept}
		for _, r := range replicas {
			all = append(all, r.hosts())
		}
		for i, hosts := range all {
			for id := range want {
				if got := fmt.Sprint(hosts[id]); got != fmt.Sprint(want[id]) {
					differs = fmt.Sprintf("%d of %s has\n%s, wanted\n%v", i, id, got, want[id])
					return false
				}
			}
		}
		return true
	})
}

// statement is what is said of a host at one replica: tagged with rack and team, until then.
type statement struct {
	say func(r replica, id string)
	as  func(h *registry.Host)
}

// Two replicas are told different things of a host at once, or the one before it has
// heard what the other was told.
func TestWhatIsSaidOfAHostAtTwoReplicasAtOnceIsKept(t *testing.T) {
	deploys := statement{
		func(r replica, id string) { h := tagged(id, "rack", "team"); h.Revision = "r2"; r.put(h) },
		func(h *registry.Host) { h.Revision = "r2" },
	}
	weighs := statement{
		func(r replica, id string) { r.weigh(id, 7) },
		func(h *registry.Host) { h.Tags.Weight = 7 },
	}
	beats := statement{ // by REST v1
		func(r replica, id string) {
			_, err := r.CheckIn(tagged(id, "slot"), "a test")
			require.NoError(r.t, err)
		},
		func(h *registry.Host) { h.Tags.Other = tagged("", "rack", "slot", "team").Tags.Other },
	}
	drops := statement{
		func(r replica, id string) { r.put(tagged(id, "rack")) },
		func(h *registry.Host) { h.Tags.Other = tagged("", "rack").Tags.Other },
	}
	url := "redis://" + servicetest.Redis(t).Address
	a, b := start(t, url, patience), start(t, url, patience)
	want := map[string]registry.Host{}
	// A host that is put says all of itself, so b may not have heard of the weight by then.
	atOnce := func(first, second func()) {
		b.deaf(func() {
			first()
			second()
		})
	}
	after := func(gap time.Duration) func(first, second func()) {
		return func(first, second func()) {
			first()
			time.Sleep(gap) // whatever it is, both hold
			second()
		}
	}
	type step struct {
		id            string
		first, second statement
		how           func(first, second func())
	}
	var steps []step
	for i, pair := range [][2]statement{{weighs, deploys}, {weighs, drops}, {deploys, weighs}, {beats, weighs}, {weighs, beats}, {drops, weighs}} {
		hows := []func(first, second func()){atOnce, atOnce, atOnce}
		if i > 1 {
			hows = append(hows, after(0), after(time.Millisecond), after(10*time.Millisecond), after(50*time.Millisecond))
		}
		for _, how := range hows {
			s := step{fmt.Sprint(i, "-", len(steps)), pair[0], pair[1], how}
			steps = append(steps, s)
			want[s.id] = tagged(s.id, "rack", "team")
			a.put(want[s.id])
		}
	}
	awaitHosts(t, url, want, a, b)
	for _, s := range steps {
		s.how(func() { s.first.say(a, s.id) }, func() { s.second.say(b, s.id) })
		h := want[s.id]
		s.first.as(&h)
		s.second.as(&h)
		want[s.id] = h
	}
	awaitHosts(t, url, want, a, b)
}

// All hosts of a service are weighed at one replica while they are deployed at the other,
// be Redis there, stopped, or started anew without what it had.
func TestAServiceThatIsWeighedWhileItIsDeployedHasBoth(t *testing.T) {
	for name, redis := range map[string]struct {
		goes, comes func(*servicetest.RedisServer)
	}{
		"redis is there": {func(*servicetest.RedisServer) {}, func(*servicetest.RedisServer) {}},
		"redis is stopped": {
			func(s *servicetest.RedisServer) { require.NoError(t, s.Process().Signal(syscall.SIGSTOP)) },
			func(s *servicetest.RedisServer) { require.NoError(t, s.Process().Signal(syscall.SIGCONT)) },
		},
		"redis starts anew": {(*servicetest.RedisServer).Kill, (*servicetest.RedisServer).Start},
	} {
		t.Run(name, func(t *testing.T) {
			server := servicetest.Redis(t)
			url := "redis://" + server.Address
			a, b := start(t, url, time.Second), start(t, url, time.Second)
			want := map[string]registry.Host{}
			for i := range 50 {
				h := tagged(fmt.Sprint(i), "rack", "team")
				want[h.ID] = h
				a.put(h)
			}
			awaitHosts(t, url, want, a, b)
			redis.goes(server)
			for id, h := range want {
				h.Revision = "r2"
				a.put(h)
				if id == "25" {
					b.weigh("", 7)
				}
				h.Tags.Weight = 7
				want[id] = h
			}
			redis.comes(server)
			awaitHosts(t, url, want, a, b)
		})
	}
}

// What a replica of another version wrote says the same in other bytes, and is changed and
// given again like any other; what it does not mean to change, it leaves as it is.
func TestARecordOfAnotherVersionIsChangedToo(t *testing.T) {
	s, other, _ := one(t)
	host := func() registry.Record {
		contents, err := other.Load(t.Context())
		require.NoError(t, err)
		require.Len(t, contents.Records, 1)
		return contents.Records[0]
	}
	r := host()
	member := hostMember(r.Host.Key)
	valueOf := func() string {
		kept, err := s.client.HGet(t.Context(), s.key("rec"), member).Result()
		require.NoError(t, err)
		return kept
	}
	text, err := textOf(valueOf())
	require.NoError(t, err)
	foreign := value(member, r.Lease, append(text[:len(text)-1:len(text)-1], []byte(`,"later":1}`)...))
	require.NoError(t, s.client.HSet(t.Context(), s.key("rec"), member, foreign).Err())
	require.NoError(t, s.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r}}))
	require.Equal(t, foreign, valueOf())
	weighed := r
	weighed.Host = new(*r.Host)
	weighed.Host.Tags.Weight = 7
	require.NoError(t, s.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &weighed, Parts: registry.Parts{Weight: true}}}))
	require.Equal(t, uint8(7), host().Host.Tags.Weight)
}

// A change that has to be told twice is, be there another that Redis does not take.
func TestAPartitionThatTakesNothingKeepsNoChangeFromTheOthers(t *testing.T) {
	s, _, server := one(t)
	require.NoError(t, s.Append(t.Context(), []registry.Change{putOf("orders", "a")}))
	server.Command("DEL " + s.key("log"))
	server.Command("SET " + s.key("log") + " x")
	weighed := putOf("orders", "a")
	weighed.Record.Host.Tags.Weight, weighed.Parts.Weight = 7, true
	var failed *registry.AppendError
	require.ErrorAs(t, s.Append(t.Context(), []registry.Change{weighed, putOf("users", "b")}), &failed)
	require.ErrorIs(t, failed, registry.ErrRefused)
	require.Len(t, failed.Left, 1)
	require.Equal(t, "users", failed.Left[0].Key.Service)
	value := server.Command("HGET " + s.keys(partitionOf("orders"), "rec")[0] + " 6:orders/a")
	require.Contains(t, value, `"weight":7`)
}

// What Redis comes back with is older than what replicas know of it, though it is told of
// a later beat before they read it.
func TestAChangeIsNotUndoneByARedisThatComesBackAsItWasBefore(t *testing.T) {
	server := servicetest.Redis(t)
	url := "redis://" + server.Address
	a, b, other := start(t, url, patience), start(t, url, patience), open(t, url, patience)
	h := tagged("1", "rack")
	a.put(h)
	awaitHosts(t, url, map[string]registry.Host{"1": h}, a, b)
	server.Command("SAVE")
	h.Revision = "r2"
	a.put(h)
	want := map[string]registry.Host{"1": h}
	awaitHosts(t, url, want, a, b)
	for range 3 { // so that nothing of it is new to Redis
		a.awaitBeat(server, h)
	}
	a.deaf(func() {
		b.deaf(func() {
			server.Kill()
			server.Start() // with what was saved
			missing, err := other.Flush(t.Context(), []registry.Beat{{Key: h.Key, At: time.Now()}})
			require.NoError(t, err)
			require.Empty(t, missing)
		})
	})
	awaitHosts(t, url, want, a, b)
}

// awaitBeat has a host beat, and waits until Redis knows.
func (r replica) awaitBeat(server *servicetest.RedisServer, h registry.Host) {
	r.t.Helper()
	score := func() string { return server.Command("ZSCORE " + usersKeys("beat")[0] + " " + hostMember(h.Key)) }
	before := score()
	r.put(h)
	servicetest.Eventually(r.t, "redis knows of a beat", func() bool { return score() != before })
}

// atSnapshot is a store that has not answered at the start, of which there is a snapshot.
type atSnapshot struct {
	*Store
	snapshot registry.Contents
}

func (s atSnapshot) Load(context.Context) (*registry.Contents, error) { return &s.snapshot, nil }

// A host that beats at a replica which began with an old snapshot, while Redis was away, is
// what Redis has of it.
func TestAReplicaThatBeganWithASnapshotUndoesNoChange(t *testing.T) {
	url := "redis://" + servicetest.Redis(t).Address
	a := start(t, url, patience)
	h := tagged("1", "rack")
	a.put(h)
	awaitHosts(t, url, map[string]registry.Host{"1": h}, a)
	s := open(t, url, patience)
	contents, err := s.Load(t.Context())
	require.NoError(t, err)
	contents.Partial, contents.Stale = true, true
	a.weigh("1", 7)
	h.Tags.Weight = 7
	want := map[string]registry.Host{"1": h}
	awaitHosts(t, url, want, a)

	o := registrytest.Options()
	b := replica{t, nil, open(t, url, patience)}
	o.Store = atSnapshot{b.store, *contents}
	b.Registry = registry.New(o)
	b.deaf(func() {
		registrytest.Run(t, b.Registry)
		<-b.Loaded()
		unknown, err := b.Beat(b.leases(), nil, "a test")
		require.NoError(t, err)
		require.Empty(t, unknown)
	})
	awaitHosts(t, url, want, a, b)
}
