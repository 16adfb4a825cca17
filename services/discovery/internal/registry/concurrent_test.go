package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/pause"
)

// theirs is what another replica made of a host that is kept: as has it described so.
func theirs(kept Record, as func(h *Host)) *Record {
	host := *kept.Host
	as(&host)
	kept.Host = &host
	return &kept
}

func deployed(h *Host) { h.Revision = "r2" }

// weigh gives a host of users a weight.
func weigh(t *testing.T, r *Registry, id string, weight uint8) {
	t.Helper()
	n, err := r.SetWeight(Selection{Service: "users", ID: id}, weight, "tester")
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

// A change that another replica made, and one that this one made of another part and did
// not tell the Store of yet, are both there, here and then in the Store, wherever the
// latter was when the former came.
func TestAChangeThatWaitsIsMadeOverThatOfAnotherReplica(t *testing.T) {
	for name, c := range map[string]struct {
		fails  bool // the Store, when it is told first
		waits  bool // another change, while the Store is told of the first
		told   int  // how often the Store is told
		events int
	}{
		"it waits":                             {fails: true, told: 1, events: 1},
		"the store is told of it":              {told: 2, events: 1},
		"the store is told, and another waits": {waits: true, told: 2, events: 2},
		"the store takes neither, at first":    {fails: true, waits: true, told: 1, events: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, store, apply, both, _ := followed(t)
				deploy := func() {
					apply(Update{Changes: []Change{{Key: both.Host.Key, Record: theirs(both, deployed)}}})
				}
				told := 0
				store.onAppend = func() {
					if told++; told > 1 {
						return
					}
					if c.waits {
						weigh(t, r, "both", 8)
					}
					if !c.fails || c.waits {
						deploy()
					}
				}
				if c.fails {
					store.fail(errors.New("away"))
				}
				weigh(t, r, "both", 7)
				synctest.Wait()
				if c.fails && !c.waits {
					deploy()
				}
				shown := seen(t, r)["both"].Host
				require.Equal(t, "r2", shown.Revision)
				require.Equal(t, c.waits, shown.Tags.Weight == 8)
				store.fail(nil)
				time.Sleep(3 * time.Second)
				synctest.Wait()

				list := changes(store)
				require.Len(t, list, c.told)
				kept, events := theirs(both, deployed), 0
				for _, change := range list {
					require.Equal(t, Parts{Weight: true}, change.Parts)
					kept = change.Over(kept)
					if change.Event != nil {
						events++
					}
				}
				require.Equal(t, c.events, events, "none is told twice")
				require.Equal(t, shown, kept.Host)
				require.Equal(t, *shown, *list[len(list)-1].Record.Host, "as it would be put were it gone")
			})
		})
	}
}

// A removal that waits is not undone, and what comes after it is of nothing that was
// before.
func TestAHostThatComesAnewAfterARemovalThatWaitsComesAsAWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store, apply, both, _ := followed(t)
		store.fail(errors.New("away"))
		_, err := r.Remove(Selection{Service: "users", ID: "both"}, "tester")
		require.NoError(t, err)
		apply(Update{Changes: []Change{{Key: both.Host.Key, Record: theirs(both, deployed)}}})
		require.NotContains(t, ids(t, r), "both")
		checkIn(t, r, host("both", 9))
		apply(Update{Changes: []Change{{Key: both.Host.Key, Record: theirs(both, deployed)}}})
		require.Equal(t, uint16(9), seen(t, r)["both"].Host.Address.Port())
		store.fail(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		list := changes(store)
		require.Len(t, list, 1)
		require.Equal(t, Parts{Anew: true, Whole: true}, list[0].Parts)
	})
}

func TestWhatIsGivenOnceMoreIsOfNoPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, store, apply, both, _ := followed(t)
		apply(Update{Changes: []Change{{Key: both.Host.Key, Lease: both.Lease, Event: &Event{Kind: Expired}}}})
		apply(Update{Changes: []Change{{Key: both.Host.Key, Record: theirs(both, deployed)}}})
		synctest.Wait()
		list := changes(store)
		require.Len(t, list, 1)
		require.Equal(t, Parts{}, list[0].Parts)
	})
}

// Whether another replica put a host before or after the Store lost data makes which of
// them is newer.
func TestWhatAStoreThatLostDataHasOfAHostCountsIfItWasPutSince(t *testing.T) {
	for name, c := range map[string]struct {
		isNews, lately, beat bool
		revision             string
		parts                []Parts // that are given
	}{
		"it is as it was before":                         {false, false, false, "r2", []Parts{{Anew: true, Whole: true, Description: true, Weight: true}}},
		"it is as it was before, and was told of a beat": {false, false, true, "r2", []Parts{{Anew: true, Whole: true, Description: true, Weight: true}}},
		"it was put since":                               {true, false, false, "r1", nil},
		"it was put since, by who had not heard all":     {true, true, false, "r2", []Parts{{Description: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, store, apply, both, _ := followed(t)
				time.Sleep(10 * time.Second)
				h := host("both", 1)
				h.Revision = "r2"
				checkIn(t, r, h)
				if !c.lately {
					time.Sleep(10 * time.Second)
				}
				synctest.Wait()
				changes(store)
				whole := &Contents{Records: []Record{*theirs(both, func(h *Host) { h.Tags.Weight = 7 })}}
				if c.beat {
					whole.Records[0].LastCheckIn = time.Now()
				}
				if c.isNews {
					whole.News = []Key{both.Host.Key}
				}
				apply(Update{Whole: whole, Covers: func(string) bool { return true }, Lost: true})
				synctest.Wait()
				shown := seen(t, r)["both"].Host
				require.Equal(t, c.revision, shown.Revision)
				require.Equal(t, c.isNews, shown.Tags.Weight == 7)
				var given []Parts
				for _, change := range changes(store) {
					if change.Key == both.Host.Key {
						given = append(given, change.Parts)
						require.Equal(t, shown, change.Over(&whole.Records[0]).Host)
					}
				}
				require.Equal(t, c.parts, given)
			})
		})
	}
}

// While a part of the Store is away, nothing piles up of hosts that come and go in another.
func TestNothingIsKeptOfAHostThatIsGoneWhereTheStoreTakesNotAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store, _, _, _ := followed(t)
		store.away = func(c *Change) bool { return c.Key.ID == "mine" }
		weigh(t, r, "mine", 7)
		for i := range uint16(100) {
			h := host(fmt.Sprint("short-lived ", i), 100+i)
			checkIn(t, r, h)
			time.Sleep(2 * time.Second)
			_, told := r.outbox.toldOf(h.Key)
			require.True(t, told)
			_, err := r.Remove(Selection{Service: "users", ID: h.ID}, "tester")
			require.NoError(t, err)
			checkIn(t, r, host("both", 1))
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.LessOrEqual(t, len(r.outbox.told)+len(r.outbox.toldBefore), 4)
	})
}

// sharedLog is what several replicas share: hosts, and what was done to them in order.
type sharedLog struct {
	mu      sync.Mutex
	kept    map[Key]*Record
	entries []Change
	writers []*sharedStore // of each entry
}

// sharedStore is a SharedStore of one replica on a sharedLog, which is told and tells
// after a while, and which now and then fails, with the changes kept or not.
type sharedStore struct {
	*sharedLog
	random   *rand.Rand
	exchange chan struct{} // is empty while it is held
	followed int           // entries
}

func newSharedStore(log *sharedLog, random *rand.Rand) *sharedStore {
	s := &sharedStore{sharedLog: log, random: random, exchange: make(chan struct{}, 1)}
	s.exchange <- struct{}{}
	return s
}

// held does something with the exchange held, which takes a while.
func (s *sharedStore) held(do func()) {
	<-s.exchange
	delay := time.Duration(s.random.IntN(50)) * time.Millisecond
	time.Sleep(delay)
	do()
	time.Sleep(delay)
	s.exchange <- struct{}{}
}

func (s *sharedStore) Append(_ context.Context, changes []Change) (err error) {
	s.held(func() {
		switch s.random.IntN(6) {
		case 0:
			err = errors.New("not told")
			return
		case 1:
			err = errors.New("told, but not heard of it")
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, c := range changes {
			record := c.Over(s.kept[c.Key])
			if record == s.kept[c.Key] {
				continue
			}
			s.kept[c.Key] = record
			s.entries = append(s.entries, Change{Key: c.Key, Record: record, Event: c.Event})
			s.writers = append(s.writers, s)
		}
	})
	time.Sleep(120 * time.Millisecond) // Follow may be faster with what came after
	return err
}

// Follow tells of all entries, its own too.
func (s *sharedStore) Follow(ctx context.Context, apply func(Update)) error {
	for pause.For(ctx, 100*time.Millisecond) {
		s.held(func() {
			s.mu.Lock()
			news := slices.Clone(s.entries[s.followed:])
			for i := range news {
				news[i].Own = s.writers[s.followed+i] == s
			}
			s.followed += len(news)
			s.mu.Unlock()
			if len(news) > 0 {
				apply(Update{Changes: news})
			}
		})
		apply(Update{})
	}
	return nil
}

func (s *sharedStore) Load(context.Context) (*Contents, error)                { return &Contents{}, nil }
func (s *sharedStore) Flush(context.Context, []Beat) ([]Key, error)           { return nil, nil }
func (s *sharedStore) Complete(context.Context) error                         { return nil }
func (s *sharedStore) Expire(context.Context, []Beat) (gone []Key, err error) { return nil, nil }

// In whatever order two replicas tell the Store and hear of each other, and however often
// that fails: what the one says of a host and what the other says of other parts of it
// are both there in the end, at both and in the Store; and of what both say, the same.
func TestWhatTwoReplicasSayOfAHostIsNeverLost(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			log := &sharedLog{kept: map[Key]*Record{}}
			random := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, n)) }
			a, b := started(t, newSharedStore(log, random(1))), started(t, newSharedStore(log, random(2)))
			checkIn(t, a, host("both", 1))
			checkIn(t, a, host("same", 1))
			time.Sleep(10 * time.Second)
			var writers sync.WaitGroup
			write := func(r *Registry, random *rand.Rand, say func(i int)) {
				// Ends by itself; the test waits below.
				writers.Go(func() {
					for i := range 40 {
						time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
						say(i)
						weigh(t, r, "same", uint8(random.IntN(3)+1))
					}
				})
			}
			deploys, weighs := random(3), random(4)
			write(a, deploys, func(i int) {
				h := host("both", 1)
				if h.Revision = fmt.Sprint("r", deploys.IntN(3)); i == 39 {
					h.Revision = "last"
				}
				h.Tags.Other = otherTags(map[string]int{fmt.Sprint("tag", i): i})
				checkIn(t, a, h)
			})
			write(b, weighs, func(i int) {
				weight := uint8(weighs.IntN(3) + 1)
				if i == 39 {
					weight = 50
				}
				weigh(t, b, "both", weight)
			})
			writers.Wait()
			time.Sleep(20 * time.Second)
			log.mu.Lock()
			defer log.mu.Unlock()
			for _, r := range []*Registry{a, b} {
				h := seen(t, r)["both"].Host
				require.Equal(t, "last", h.Revision, "seed %d", seed)
				require.Equal(t, uint8(50), h.Tags.Weight, "seed %d", seed)
				require.Len(t, h.Tags.Other, 41, "seed %d", seed)
				for id, v := range seen(t, r) {
					require.Equal(t, log.kept[v.Host.Key].Host, v.Host, "seed %d: %s", seed, id)
				}
			}
		})
	}
}
