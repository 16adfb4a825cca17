package registry

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/pause"
)

// fakeStore is a Store that a test can make fail and speak through.
type fakeStore struct {
	mu       sync.Mutex
	broken   error // what Load, Append and Flush return
	records  []Record
	settings []Setting
	events   []Event
	partial  bool // what Load says of it
	lost     bool // the same
	stale    bool // the same
	silent   bool // it stands still for who follows it
	complete int  // how often it was said to be
	changes  []Change
	beats    []Beat
	kept     map[Key]bool                // what Expire does not let go
	onExpire func()                      // called by Expire, if not nil
	onAppend func()                      // called by Append, if not nil
	onFollow func(context.Context) error // called by Follow, if not nil
	missing  []Key                       // what the next Flush says that it misses
	away     func(*Change) bool          // which changes Append does not take, if not nil
	followed chan func(Update)           // gets apply when Follow was called
}

func newFakeStore(records ...Record) *fakeStore {
	return &fakeStore{records: records, followed: make(chan func(Update), 1)}
}

func (s *fakeStore) Load(context.Context) (*Contents, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Contents{Records: s.records, Settings: s.settings, Events: s.events, Partial: s.partial, Lost: s.lost, Stale: s.stale}, s.broken
}

func (s *fakeStore) Append(_ context.Context, changes []Change) error {
	if s.onAppend != nil {
		s.onAppend()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return s.broken
	}
	var left []Change
	for i := range changes {
		if s.away != nil && s.away(&changes[i]) {
			left = append(left, changes[i])
		} else {
			s.changes = append(s.changes, changes[i])
		}
	}
	if len(left) > 0 {
		return &AppendError{left, errors.New("a part is away")}
	}
	return nil
}

func (s *fakeStore) Flush(_ context.Context, beats []Beat) ([]Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.beats = append(s.beats, beats...)
	}
	missing := s.missing
	s.missing = nil
	return missing, s.broken
}

func (s *fakeStore) Complete(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.complete++
	}
	return s.broken
}

// completed is how often it was said to be complete.
func (s *fakeStore) completed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.complete
}

func (s *fakeStore) Expire(_ context.Context, dead []Beat) ([]Key, error) {
	if s.onExpire != nil {
		s.onExpire()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return nil, s.broken
	}
	return slices.DeleteFunc(Keys(dead), func(k Key) bool { return s.kept[k] }), nil
}

// keep says which hosts Expire does not let go from now on.
func (s *fakeStore) keep(kept map[Key]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = kept
}

func (s *fakeStore) Follow(ctx context.Context, apply func(Update)) error {
	if s.onFollow != nil {
		if err := s.onFollow(ctx); err != nil {
			return err
		}
	}
	apply(Update{})
	s.followed <- apply
	for pause.For(ctx, 100*time.Millisecond) {
		if !s.isSilent() {
			apply(Update{}) // it answers
		}
	}
	return nil
}

// isSilent says whether the store stands still for who follows it.
func (s *fakeStore) isSilent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.silent
}

// stand has the store stand still for who follows it, or go on.
func (s *fakeStore) stand(still bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = still
}

// fail makes every call return err from now on; nil mends the store.
func (s *fakeStore) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = err
}

// failPartly makes Append leave the changes for which away is true from now on; nil
// mends the store.
func (s *fakeStore) failPartly(away func(*Change) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

// taken returns and forgets what was appended and flushed.
func (s *fakeStore) taken() ([]Change, []Beat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changes, beats := s.changes, s.beats
	s.changes, s.beats = nil, nil
	return changes, beats
}

// maxTags is the limit of a host's tags.
const maxTags = 16 << 10

// newRegistry makes a registry with the settings that tests use.
func newRegistry(store Store) *Registry {
	return New(Options{
		Store:                 store,
		Log:                   slog.New(slog.DiscardHandler),
		Metrics:               prometheus.NewRegistry(),
		SweepInterval:         500 * time.Millisecond,
		WarmUp:                15 * time.Second,
		LostWarmUp:            10 * time.Minute,
		EmptyServiceRetention: time.Hour,
		DrainTime:             30 * time.Second,
		Limits:                Limits{HostsPerService: 100_000, Services: 100_000, TagBytes: maxTags},
	})
}

// run runs r until the test ends, or until the function returned is called.
func run(t testing.TB, r *Registry) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	// Ends with ctx; stop waits for it.
	go func() { ended <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// started is a running registry on store, which is loaded.
func started(t testing.TB, store Store) *Registry {
	r := newRegistry(store)
	run(t, r)
	<-r.Loaded()
	return r
}

// host is a host of "users" at 10.0.0.1 with a TTL of a minute.
func host(id string, port uint16) Host {
	return Host{
		Key:      Key{Service: "users", ID: id},
		Address:  netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port),
		Repo:     "users-repo",
		Revision: "r1",
		Tags: Tags{
			Region: "eu", Zone: "eu-1", InstanceID: id,
			Other: TagListOf(map[string]json.RawMessage{"rack": json.RawMessage(`"7"`)}),
		},
		TTL: time.Minute,
	}
}

func checkIn(t testing.TB, r *Registry, h Host) Outcome {
	t.Helper()
	receipt, err := r.CheckIn(h, "tester")
	require.NoError(t, err)
	require.NotZero(t, receipt.Lease)
	return receipt.Outcome
}

// ids are the IDs of the hosts of "users".
func ids(t testing.TB, r *Registry) []string {
	t.Helper()
	list, err := r.List("users")
	require.NoError(t, err)
	names := make([]string, len(list.Hosts))
	for i, v := range list.Hosts {
		names[i] = v.Host.ID
	}
	return names
}

// services is how many hosts each known service has.
func services(t testing.TB, r *Registry) map[string]int {
	t.Helper()
	summaries, err := r.Services()
	require.NoError(t, err)
	counts := map[string]int{}
	for _, s := range summaries {
		counts[s.Name] = s.Hosts
	}
	return counts
}
