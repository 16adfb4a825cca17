package registry

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/guard"
)

// keepLists is a Keeper of the lists themselves, and counts how many it made.
func keepLists(r *Registry) (k *Keeper[Listing], made *int) {
	made = new(int)
	return NewKeeper(r, func(_ string, list *Listing) Listing {
		*made++
		kept := *list
		kept.Hosts = slices.Clone(list.Hosts)
		return kept
	}), made
}

// listingOf is the list that a reading of keepLists says, with the times of now.
func listingOf(r Reading[Listing]) Listing {
	list := r.Kept
	list.Partial = r.Partial
	list.Hosts = slices.Clone(list.Hosts)
	for i := range list.Hosts {
		list.Hosts[i].LastCheckIn = r.CheckIns[i].Time().Local()
	}
	return list
}

// requireKept reads "users" by k, and wants what a list says.
func requireKept(t testing.TB, r *Registry, k *Keeper[Listing]) {
	t.Helper()
	want, err := r.List("users")
	require.NoError(t, err)
	got, err := k.Read(nil, "users")
	require.NoError(t, err)
	require.Len(t, got.CheckIns, len(want.Hosts))
	list := listingOf(got)
	require.Equal(t, want.Version, list.Version)
	require.Equal(t, want.Known, list.Known)
	require.Equal(t, want.Partial, list.Partial)
	require.Len(t, list.Hosts, len(want.Hosts))
	for i := range list.Hosts {
		require.Equal(t, want.Hosts[i], list.Hosts[i])
	}
}

// What is kept must be what a list shows, whatever happened before.
func TestWhatIsKeptIsAlwaysWhatAListShows(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			r := newRegistry(newFakeStore())
			r.guard = guard.New(guard.Limits{ServiceShare: 0.25, LastHost: 2, Ceiling: time.Hour})
			run(t, r)
			<-r.Loaded()
			k, _ := keepLists(r)
			other, _ := keepLists(r)
			const hosts = 6
			some := func() Key { return Key{Service: "users", ID: fmt.Sprint(random.IntN(hosts))} }
			scope := func() Scope {
				return [...]Scope{{Service: "users"}, {Zone: "eu-1"}, {Service: "users", ID: some().ID}}[random.IntN(3)]
			}
			for range 200 {
				switch random.IntN(9) {
				case 0:
					h := host(some().ID, uint16(1+random.IntN(3)))
					h.Tags.Zone = fmt.Sprintf("eu-%d", random.IntN(2))
					h.Tags.Weight = uint8(random.IntN(3))
					h.Draining = random.IntN(5) == 0
					_, err := r.Put(h, "test")
					require.NoError(t, err)
				case 1, 2:
					for _, v := range seen(t, r) {
						if random.IntN(3) > 0 {
							_, err := r.Beat([]Lease{v.Lease}, nil, "test")
							require.NoError(t, err)
						}
					}
				case 3:
					_, err := r.Remove(Selection{Service: "users", ID: some().ID}, "test")
					require.NoError(t, err)
				case 4:
					r.SetHealth(map[Key]bool{some(): random.IntN(2) == 0}, "test")
				case 5:
					kind := [...]SettingKind{Weigh, Drain, Maintenance}[random.IntN(3)]
					s := Setting{Scope: scope(), Kind: kind}
					if kind == Weigh {
						s.Weight = uint8(1 + random.IntN(5))
					}
					if random.IntN(2) == 0 {
						s.Expires = time.Now().Add(time.Minute)
					}
					makeSetting(t, r, s)
				case 6:
					for _, kind := range []SettingKind{Weigh, Drain, Maintenance} {
						_, err := r.End(SettingKey{scope(), kind}, "test")
						require.NoError(t, err)
					}
				default:
					time.Sleep(time.Duration(random.IntN(20_000)) * time.Millisecond)
					if random.IntN(2) == 0 {
						synctest.Wait()
					}
				}
				requireKept(t, r, k)
				if random.IntN(2) == 0 {
					requireKept(t, r, other)
				}
			}
		})
	}
}

func TestWhatIsMadeIsKeptUntilAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, newFakeStore())
		k, made := keepLists(r)
		read := func(name string, want int) {
			t.Helper()
			_, err := k.Read(nil, name)
			require.NoError(t, err)
			require.Equal(t, want, *made)
		}
		a := host("a", 1)
		a.TTL = time.Hour
		checkIn(t, r, a)
		read("users", 1)
		checkIn(t, r, a)
		read("users", 1)
		a.Revision = "r2"
		checkIn(t, r, a)
		read("users", 2)
		read("users", 2)

		// A host that drains is Out without a change, which the next sweep makes one.
		time.Sleep(r.options.SweepInterval / 2)
		a.Draining = true
		checkIn(t, r, a)
		read("users", 3)
		time.Sleep(r.options.DrainTime - time.Nanosecond)
		read("users", 3)
		time.Sleep(time.Nanosecond)
		read("users", 4)
		requireKept(t, r, k)
		read("users", 4)
		time.Sleep(time.Hour / 2)
		synctest.Wait()
		read("users", 5)
		read("users", 5)

		read("nobody", 6)
		read("nobody", 7)
		require.Nil(t, r.services["nobody"], "who asks does not fill the registry")
	})
}

func TestWhatIsMadeWhileTheServiceChangesIsNotKept(t *testing.T) {
	r := started(t, newFakeStore())
	a := host("a", 1)
	checkIn(t, r, a)
	made := 0
	k := NewKeeper(r, func(_ string, list *Listing) string {
		if made++; made == 1 {
			a.Revision = "r2"
			checkIn(t, r, a)
		}
		return list.Hosts[0].Host.Revision
	})
	for _, want := range []string{"r1", "r2", "r2"} {
		got, err := k.Read(nil, "users")
		require.NoError(t, err)
		require.Equal(t, want, got.Kept)
	}
	require.Equal(t, 2, made)
}

func TestWhatIsKeptIsReadWithoutAllocating(t *testing.T) {
	r := started(t, newFakeStore())
	for i := range CommonHosts {
		checkIn(t, r, host(fmt.Sprint(i), uint16(1+i)))
	}
	k, _ := keepLists(r)
	other, _ := keepLists(r)
	_, err := other.Read(nil, "users")
	require.NoError(t, err)
	servicetest.Allocations(t, 0, func() {
		var room [CommonHosts]Instant
		_, _ = k.Read(room[:0], "users")
	})
}

func TestAKeeperKnowsNothingBeforeTheStoreWasRead(t *testing.T) {
	r := newRegistry(newFakeStore())
	k, made := keepLists(r)
	_, err := k.Read(nil, "users")
	require.ErrorIs(t, err, ErrNotLoaded)
	require.Zero(t, *made)
}
