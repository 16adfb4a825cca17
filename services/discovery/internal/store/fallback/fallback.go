// Package fallback keeps a copy of a shared store in a file, so that a replica
// which starts while the shared store is away has something to serve. It is the
// store behind a redis:// URL where a snapshot is wanted too; the registry is its
// only caller. The shared store is the truth: the copy is asked at the start
// alone, and only if the shared store does not answer for a few seconds, or does not
// have all.
package fallback

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/pause"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// Shared is the store that replicas have in common.
type Shared interface {
	registry.SharedStore
	io.Closer
}

// Copy is a store that only this process writes to, and that never fails but in
// Load and Close.
type Copy interface {
	registry.Store
	io.Closer
	// Replace makes contents all that is kept of the services for which covers is
	// true, and partial or lost where contents says so.
	Replace(contents *registry.Contents, covers func(service string) bool)
}

// Store is a registry.SharedStore that keeps all in two others.
type Store struct {
	shared Shared
	local  Copy
	log    *slog.Logger
}

var _ registry.SharedStore = (*Store)(nil)

// New makes a store of both, which it closes.
func New(shared Shared, local Copy, log *slog.Logger) *Store { return &Store{shared, local, log} }

const (
	// patience is how long the shared store is asked before the copy is.
	patience = 3 * time.Second
	// retryDelay is the time between questions.
	retryDelay = 500 * time.Millisecond
)

// Load returns what the shared store has, or, if that does not answer within
// patience, what the copy has, if it has anything: the hosts of the last snapshot.
// That is partial and stale, whatever it was when it was written: other replicas went
// on. Then Follow hands over what is shared as soon as it can be read, as of a store
// that lost data, since what the copy lacks or has too much is not known. A shared
// store that refuses is not away: its error is returned at once.
//
// A shared store that is partial, as one that is empty, is given what the copy has
// and it has not, and both together are returned: what it lacks is not gone, but for
// hosts whose leases it has as buried. If it has no hosts, and the copy has some, it
// has lost them.
func (s *Store) Load(ctx context.Context) (*registry.Contents, error) {
	copied, unread := s.local.Load(ctx)
	if unread != nil {
		s.log.Error("the snapshot cannot be read, and none is written", "error", unread)
	}
	contents, err := s.ask(ctx)
	switch {
	case err == nil:
		if unread == nil && contents.Partial {
			if err = s.fill(ctx, contents, copied); err != nil {
				return nil, err
			}
		}
		s.local.Replace(contents, func(string) bool { return true })
		return contents, nil
	case ctx.Err() != nil || errors.Is(err, registry.ErrRefused) || unread != nil || len(copied.Records)+len(copied.Settings) == 0:
		return nil, errors.Join(err, unread)
	}
	s.log.Warn("the store does not answer; starting with the last snapshot", "error", err, "hosts", len(copied.Records))
	copied.Partial, copied.Stale = true, true
	return copied, nil
}

// fill adds to contents, of the shared store, what the copy alone has, and gives it
// to the shared store.
func (s *Store) fill(ctx context.Context, contents, copied *registry.Contents) error {
	missing := lacks(contents, copied)
	contents.Lost = contents.Lost || copied.Lost || len(contents.Records) == 0 && len(missing.Records) > 0
	if len(missing.Records)+len(missing.Settings) == 0 {
		return nil
	}
	s.log.Warn("the store does not have all that the last snapshot has, and is given it again",
		"hosts", len(missing.Records), "settings", len(missing.Settings))
	if err := s.shared.Append(ctx, changes(missing)); err != nil {
		return err
	}
	contents.Records = append(contents.Records, missing.Records...)
	contents.Settings = append(contents.Settings, missing.Settings...)
	return nil
}

// lacks is what other has and contents has not, but for hosts that deregistered since.
func lacks(contents, other *registry.Contents) *registry.Contents {
	hosts := make(map[registry.Key]struct{}, len(contents.Records))
	for i := range contents.Records {
		hosts[contents.Records[i].Host.Key] = struct{}{}
	}
	settings := make(map[registry.SettingKey]struct{}, len(contents.Settings))
	for i := range contents.Settings {
		settings[contents.Settings[i].Key()] = struct{}{}
	}
	buried := make(map[registry.Lease]struct{}, len(contents.Buried))
	for _, b := range contents.Buried {
		buried[b.Lease] = struct{}{}
	}
	missing := &registry.Contents{}
	for _, r := range other.Records {
		_, has := hosts[r.Host.Key]
		if _, left := buried[r.Lease]; !has && !left {
			missing.Records = append(missing.Records, r)
		}
	}
	for _, setting := range other.Settings {
		if _, has := settings[setting.Key()]; !has {
			missing.Settings = append(missing.Settings, setting)
		}
	}
	return missing
}

// ask loads the shared store, with several attempts.
func (s *Store) ask(ctx context.Context) (*registry.Contents, error) {
	begin := time.Now()
	for {
		contents, err := s.shared.Load(ctx)
		if err == nil || errors.Is(err, registry.ErrRefused) || time.Since(begin) >= patience {
			return contents, err
		}
		if !pause.For(ctx, retryDelay) {
			return nil, err
		}
	}
}

// Append keeps changes in the copy, and then in the shared store; the error is
// that of the latter.
func (s *Store) Append(ctx context.Context, changes []registry.Change) error {
	_ = s.local.Append(ctx, changes)
	return s.shared.Append(ctx, changes)
}

// Flush notes beats in both.
func (s *Store) Flush(ctx context.Context, beats []registry.Beat) ([]registry.Key, error) {
	_, _ = s.local.Flush(ctx, beats)
	return s.shared.Flush(ctx, beats)
}

// Complete says so to both.
func (s *Store) Complete(ctx context.Context) error {
	_ = s.local.Complete(ctx)
	return s.shared.Complete(ctx)
}

// Expire asks the shared store; what goes there goes from the copy too.
func (s *Store) Expire(ctx context.Context, dead []registry.Beat) (gone []registry.Key, err error) {
	gone, err = s.shared.Expire(ctx, dead)
	changes := make([]registry.Change, len(gone))
	for i, key := range gone {
		changes[i].Key = key
	}
	_ = s.local.Append(ctx, changes)
	return gone, err
}

// Follow follows the shared store, and has the copy do the same.
func (s *Store) Follow(ctx context.Context, apply func(registry.Update)) error {
	return s.shared.Follow(ctx, func(u registry.Update) {
		s.copy(ctx, u) // of an empty one nothing
		apply(u)
	})
}

// copy does to the copy what others did to the shared store. Of one that lost
// data, what it lacks is not gone.
func (s *Store) copy(ctx context.Context, u registry.Update) {
	_ = s.local.Append(ctx, u.Changes)
	_, _ = s.local.Flush(ctx, u.Beats)
	switch {
	case u.Whole == nil:
	case u.Lost:
		_ = s.local.Append(ctx, changes(u.Whole))
	default:
		s.local.Replace(u.Whole, u.Covers)
	}
}

// changes are those that make contents known.
func changes(contents *registry.Contents) []registry.Change {
	var list []registry.Change
	for i := range contents.Records {
		r := &contents.Records[i]
		list = append(list, registry.Change{Key: r.Host.Key, Record: r})
	}
	for i := range contents.Settings {
		s := &contents.Settings[i]
		list = append(list, registry.Change{SettingKey: s.Key(), Setting: s})
	}
	return list
}

// Close closes both. The error joins theirs.
func (s *Store) Close() error { return errors.Join(s.local.Close(), s.shared.Close()) }
