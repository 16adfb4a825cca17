package fallback

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/store/file"
	"github.com/weirproxy/weir/services/discovery/internal/store/storetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

var discard = slog.New(slog.DiscardHandler)

// fileStore is one in a directory of its own.
func fileStore(t *testing.T, path string) *file.Store {
	t.Helper()
	s, err := file.Open(path, time.Hour, discard, prometheus.NewRegistry())
	require.NoError(t, err)
	return s
}

// sharedFile is a file in the place of the shared store.
type sharedFile struct{ *file.Store }

func (sharedFile) Expire(_ context.Context, dead []registry.Beat) ([]registry.Key, error) {
	return registry.Keys(dead), nil
}

func (sharedFile) Follow(ctx context.Context, _ func(registry.Update)) error {
	<-ctx.Done()
	return nil
}

// TestContract has another file in the place of the shared store.
func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) registry.Store {
		dir := t.TempDir()
		s := New(sharedFile{fileStore(t, filepath.Join(dir, "shared"))}, fileStore(t, filepath.Join(dir, "copy")), discard)
		_, err := s.Load(t.Context())
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s
	})
}

var errAway = errors.New("away")

// sharedStore is one that a test has fail and speak.
type sharedStore struct {
	mu       sync.Mutex
	away     bool
	contents registry.Contents
	updates  []registry.Update
	loads    int
	appended []registry.Change
}

func (s *sharedStore) Load(context.Context) (*registry.Contents, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loads++
	return &s.contents, s.err()
}

func (s *sharedStore) err() error {
	if s.away {
		return errAway
	}
	return nil
}

func (s *sharedStore) Append(_ context.Context, changes []registry.Change) error {
	s.appended = append(s.appended, changes...)
	return s.err()
}

func (s *sharedStore) Flush(_ context.Context, beats []registry.Beat) ([]registry.Key, error) {
	return registry.Keys(beats), s.err()
}

func (s *sharedStore) Complete(context.Context) error { return s.err() }

func (s *sharedStore) Expire(context.Context, []registry.Beat) ([]registry.Key, error) {
	return nil, s.err()
}

func (s *sharedStore) Follow(_ context.Context, apply func(registry.Update)) error {
	for _, u := range s.updates {
		apply(u)
	}
	return s.err()
}

func (*sharedStore) Close() error { return nil }

// kept is what the file at path has.
func kept(t *testing.T, path string) (ids []string, settings int) {
	t.Helper()
	s := fileStore(t, path)
	contents, err := s.Load(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	for _, r := range contents.Records {
		ids = append(ids, r.Host.ID)
	}
	return ids, len(contents.Settings)
}

func TestTheSnapshotIsServedWhereTheStoreDoesNotAnswer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "copy")
	a, b := storetest.Record("users", "a", 1), storetest.Record("users", "b", 1)
	shared := &sharedStore{contents: registry.Contents{Records: []registry.Record{a}}}
	s := New(shared, fileStore(t, path), discard)
	contents, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Len(t, contents.Records, 1)
	require.Equal(t, 1, shared.loads)
	shared.away = true
	require.ErrorIs(t, s.Append(t.Context(), []registry.Change{{Key: b.Host.Key, Record: &b}}), errAway)
	require.ErrorIs(t, s.Complete(t.Context()), errAway)
	missing, err := s.Flush(t.Context(), []registry.Beat{{Key: a.Host.Key, At: a.LastCheckIn.Add(time.Second)}})
	require.ErrorIs(t, err, errAway)
	require.Len(t, missing, 1)
	require.NoError(t, s.Close())

	synctest.Test(t, func(t *testing.T) {
		s := New(shared, fileStore(t, path), discard)
		begin := time.Now()
		contents, err := s.Load(t.Context())
		require.NoError(t, err)
		require.Len(t, contents.Records, 2, "what the store was not told is there too")
		require.True(t, contents.Partial, "others may have come to other replicas since")
		require.True(t, contents.Stale)
		require.Equal(t, patience, time.Since(begin))
		require.NoError(t, s.Close())

		s = New(shared, fileStore(t, path+"-of-another"), discard)
		_, err = s.Load(t.Context())
		require.ErrorIs(t, err, errAway, "no hosts are not known hosts")
		time.AfterFunc(time.Second, func() {
			shared.mu.Lock()
			defer shared.mu.Unlock()
			shared.away = false
		})
		contents, err = s.Load(t.Context())
		require.NoError(t, err)
		require.Len(t, contents.Records, 1, "the store answers before patience ends")
		require.NoError(t, s.Close())
	})
}

func TestTheSnapshotIsNotServedWhereTheStoreRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "copy")
	a := storetest.Record("users", "a", 1)
	shared := &sharedStore{contents: registry.Contents{Records: []registry.Record{a}}}
	s := New(shared, fileStore(t, path), discard)
	_, err := s.Load(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	synctest.Test(t, func(t *testing.T) {
		s := New(refusing{shared}, fileStore(t, path), discard)
		begin := time.Now()
		_, err := s.Load(t.Context())
		require.ErrorIs(t, err, registry.ErrRefused)
		require.Equal(t, begin, time.Now(), "asking again would not help")
		require.NoError(t, s.Close())
	})
	ids, _ := kept(t, path)
	require.Equal(t, []string{"a"}, ids)
}

// refusing is a sharedStore that cannot be loaded.
type refusing struct{ *sharedStore }

func (refusing) Load(context.Context) (*registry.Contents, error) { return nil, registry.ErrRefused }

func TestWhatExpiresGoesFromTheSnapshotToo(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "copy")
	s := New(sharedFile{fileStore(t, filepath.Join(dir, "shared"))}, fileStore(t, path), discard)
	_, err := s.Load(t.Context())
	require.NoError(t, err)
	for _, id := range []string{"a", "b"} {
		r := storetest.Record("users", id, 1)
		require.NoError(t, s.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r}}))
	}
	gone, err := s.Expire(t.Context(), []registry.Beat{{Key: registry.Key{Service: "users", ID: "a"}}})
	require.NoError(t, err)
	require.Len(t, gone, 1)
	require.NoError(t, s.Close())
	ids, _ := kept(t, path)
	require.Equal(t, []string{"b"}, ids)
}

func TestASharedStoreThatIsPartialIsGivenWhatTheSnapshotHas(t *testing.T) {
	a, b, c := storetest.Record("users", "a", 1), storetest.Record("users", "b", 1), storetest.Record("users", "c", 1)
	newer := storetest.Record("users", "a", 2)
	left := []registry.Burial{{Lease: a.Lease}}
	drain := storetest.Setting(registry.Scope{Zone: "eu-1"}, registry.Drain)
	settings := []registry.Setting{drain}
	putB := registry.Change{Key: b.Host.Key, Record: &b}
	putDrain := registry.Change{SettingKey: drain.Key(), Setting: &drain}
	for name, test := range map[string]struct {
		copied, shared registry.Contents
		want           registry.Contents
		appended       []registry.Change
	}{
		"both are new": {
			shared: registry.Contents{Partial: true},
			want:   registry.Contents{Partial: true},
		},
		"it has all": {
			copied: registry.Contents{Records: []registry.Record{a, b}, Settings: settings},
			shared: registry.Contents{Records: []registry.Record{newer}},
			want:   registry.Contents{Records: []registry.Record{newer}},
		},
		"all that it has is that there are none": {
			copied: registry.Contents{Records: []registry.Record{a, b}, Settings: settings},
		},
		"it is empty": {
			copied:   registry.Contents{Records: []registry.Record{b}, Settings: settings},
			shared:   registry.Contents{Partial: true},
			want:     registry.Contents{Records: []registry.Record{b}, Settings: settings, Partial: true, Lost: true},
			appended: []registry.Change{putB, putDrain},
		},
		"it is empty, and there are settings alone": {
			copied:   registry.Contents{Settings: settings},
			shared:   registry.Contents{Partial: true},
			want:     registry.Contents{Settings: settings, Partial: true},
			appended: []registry.Change{putDrain},
		},
		"it has some": {
			copied:   registry.Contents{Records: []registry.Record{a, b}, Settings: settings},
			shared:   registry.Contents{Records: []registry.Record{newer}, Partial: true},
			want:     registry.Contents{Records: []registry.Record{newer, b}, Settings: settings, Partial: true},
			appended: []registry.Change{putB, putDrain},
		},
		"a host deregistered since": {
			copied:   registry.Contents{Records: []registry.Record{a, b}},
			shared:   registry.Contents{Records: []registry.Record{c}, Partial: true, Buried: left},
			want:     registry.Contents{Records: []registry.Record{c, b}, Partial: true, Buried: left},
			appended: []registry.Change{putB},
		},
		"its last host deregistered since": {
			copied: registry.Contents{Records: []registry.Record{a}},
			shared: registry.Contents{Partial: true, Buried: left},
			want:   registry.Contents{Partial: true, Buried: left},
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "copy")
			local := fileStore(t, path)
			_, err := local.Load(t.Context())
			require.NoError(t, err)
			require.NoError(t, local.Append(t.Context(), changes(&test.copied)))
			require.NoError(t, local.Complete(t.Context()))
			require.NoError(t, local.Close())

			shared := &sharedStore{contents: test.shared}
			s := New(shared, fileStore(t, path), discard)
			contents, err := s.Load(t.Context())
			require.NoError(t, err)
			require.NoError(t, s.Close())
			require.Equal(t, test.want, *contents)
			require.Equal(t, test.appended, shared.appended)

			local = fileStore(t, path)
			kept, err := local.Load(t.Context())
			require.NoError(t, err)
			require.NoError(t, local.Close())
			require.ElementsMatch(t, test.want.Records, kept.Records)
			require.ElementsMatch(t, test.want.Settings, kept.Settings)
			require.Equal(t, test.want.Partial, kept.Partial)
			require.Equal(t, test.want.Lost, kept.Lost)
		})
	}
}

func TestTheSnapshotStaysWhereItCannotBeGivenToTheSharedStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "copy")
	local := fileStore(t, path)
	_, err := local.Load(t.Context())
	require.NoError(t, err)
	a := storetest.Record("users", "a", 1)
	require.NoError(t, local.Append(t.Context(), []registry.Change{{Key: a.Host.Key, Record: &a}}))
	require.NoError(t, local.Close())

	shared := &readOnly{sharedStore{contents: registry.Contents{Partial: true}}}
	s := New(shared, fileStore(t, path), discard)
	_, err = s.Load(t.Context())
	require.ErrorIs(t, err, errAway)
	require.NoError(t, s.Close())
	ids, _ := kept(t, path)
	require.Equal(t, []string{"a"}, ids)
}

// readOnly is a sharedStore that takes nothing.
type readOnly struct{ sharedStore }

func (*readOnly) Append(context.Context, []registry.Change) error { return errAway }

func TestWhatOthersDoIsInTheSnapshot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "copy")
	put := func(id string) registry.Change {
		r := storetest.Record("users", id, 1)
		return registry.Change{Key: r.Host.Key, Record: &r}
	}
	drain := storetest.Setting(registry.Scope{Service: "users"}, registry.Drain)
	users := func(service string) bool { return service == "users" }
	shared := &sharedStore{}
	follow := func(u registry.Update) ([]string, int) {
		t.Helper()
		ids, settings := kept(t, path)
		s := New(shared, fileStore(t, path), discard)
		for _, id := range ids {
			shared.contents.Records = append(shared.contents.Records, storetest.Record("users", id, 1))
		}
		if settings > 0 {
			shared.contents.Settings = []registry.Setting{drain}
		}
		_, err := s.Load(t.Context())
		require.NoError(t, err)
		shared.contents = registry.Contents{}
		shared.updates = []registry.Update{u}
		told := 0
		require.NoError(t, s.Follow(t.Context(), func(registry.Update) { told++ }))
		require.Equal(t, 1, told)
		require.NoError(t, s.Close())
		return kept(t, path)
	}
	ids, settings := follow(registry.Update{Changes: []registry.Change{put("a"), put("b"), {SettingKey: drain.Key(), Setting: &drain}}})
	require.ElementsMatch(t, []string{"a", "b"}, ids)
	require.Equal(t, 1, settings)
	ids, settings = follow(registry.Update{Whole: &registry.Contents{Records: []registry.Record{*put("c").Record}}, Covers: users, Lost: true})
	require.ElementsMatch(t, []string{"a", "b", "c"}, ids)
	require.Equal(t, 1, settings)
	ids, settings = follow(registry.Update{Whole: &registry.Contents{Records: []registry.Record{*put("c").Record}}, Covers: users})
	require.Equal(t, []string{"c"}, ids)
	require.Zero(t, settings)
}
