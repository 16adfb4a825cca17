// Package file keeps hosts and settings in memory and writes them, every few
// seconds in which something changed and at the end, to one snapshot file. It is
// the store behind the URL file:///path, called by the registry, and by the
// fallback store, to which it is the copy that outlives a restart. What came
// after the last snapshot is lost in a crash; a crash while writing loses nothing
// more, since a file is never changed in place. A snapshot that is not whole is
// set aside and never stops the start; a file that never was a snapshot does not
// stop it either, and is never touched: nothing is kept until it is gone. Of several
// processes one writes a file, by a lock beside it: two would write over each other.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/replacefile"
)

// Store is a registry.Store in memory with a snapshot file.
type Store struct {
	path    string
	log     *slog.Logger
	metrics *metrics
	done    chan struct{}  // closed by Close
	loops   sync.WaitGroup // of the goroutine that writes

	// held is the lock of the file; nil if it could not be had, and then asked for
	// before each snapshot. Only who writes snapshots, and Close after that, has to
	// do with it.
	held *os.File

	mu       sync.Mutex
	records  map[registry.Key]kept
	settings map[registry.SettingKey]registry.Setting
	loaded   bool // the file has been read, so it may be written over
	foreign  bool // the file is somebody else's
	partial  bool // the registry has yet to say that all hosts are here
	lost     bool // the same, and there were some that are lost
	changed  bool // since the last snapshot; beats alone do not count
}

// kept is a registry.Record in half the memory.
type kept struct {
	host                                  *registry.Host
	lease                                 registry.Lease
	firstSeen, lastCheckIn, drainingSince registry.Instant
}

func keptOf(r *registry.Record) kept {
	return kept{r.Host, r.Lease, registry.InstantOf(r.FirstSeen), registry.InstantOf(r.LastCheckIn), registry.InstantOf(r.DrainingSince)}
}

func (k *kept) record() registry.Record {
	return registry.Record{
		Host: k.host, Lease: k.lease,
		FirstSeen: k.firstSeen.Time(), LastCheckIn: k.lastCheckIn.Time(), DrainingSince: k.drainingSince.Time(),
	}
}

// Open returns a store over the file at path, which need not be there yet, and
// writes a snapshot every interval, above 0. The error is that of a path at
// which no snapshot can be, or says which other process writes one there. A lock
// that cannot be had for another reason, as where the disk has become read-only,
// is no error: then what is there can be read still, and nothing is written. The
// caller must Close the store.
func Open(path string, interval time.Duration, log *slog.Logger, registerer prometheus.Registerer) (*Store, error) {
	if err := checkPlace(path); err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", path, err)
	}
	s := &Store{
		path: path, log: log, metrics: newMetrics(registerer), done: make(chan struct{}),
		records: map[registry.Key]kept{}, settings: map[registry.SettingKey]registry.Setting{},
		partial: true,
	}
	if err := s.hold(); errors.As(err, new(*heldError)) {
		return nil, fmt.Errorf("snapshot %s: %w", path, err)
	} else if err != nil {
		log.Error("no snapshot is written until this ends", "path", path, "error", err)
	}
	// Ends with Close, which waits for it.
	s.loops.Go(func() { s.writeEvery(interval) })
	return s, nil
}

// hold takes the lock of the file, unless it is held here already.
func (s *Store) hold() (err error) {
	if s.held == nil {
		s.held, err = lock(s.path)
	}
	return err
}

// checkPlace says why path cannot be that of a snapshot: its directory is
// missing, so that it may be mistyped, or what is there is no file.
func checkPlace(path string) error {
	dir := filepath.Dir(path)
	switch info, err := os.Stat(dir); {
	case err != nil:
		return fmt.Errorf("its directory: %w", err)
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", dir)
	}
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return errors.New("it is a directory, not a file")
	case !info.Mode().IsRegular():
		return errors.New("it is a device or the like, not a file")
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// Load reads the snapshot on its first call; later calls return what is kept.
// No file is no hosts; one that is not whole is renamed, with the reason in the
// log, and is no hosts either, nor is one of somebody else. The error is that of a
// file that is there but cannot be opened or read.
func (s *Store) Load(context.Context) (*registry.Contents, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loaded {
		return s.contents(), nil
	}
	contents, err := s.read()
	s.loaded = err == nil
	return contents, err
}

// contents is all that is kept. s.mu must be held.
func (s *Store) contents() *registry.Contents {
	records := make([]registry.Record, 0, len(s.records))
	for _, k := range s.records {
		records = append(records, k.record())
	}
	return &registry.Contents{
		Records:  records,
		Settings: slices.Collect(maps.Values(s.settings)),
		Partial:  s.partial, Lost: s.lost,
	}
}

// read fills the store from its file, and returns what is kept then. s.mu must be held.
func (s *Store) read() (*registry.Contents, error) {
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s.contents(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	defer f.Close()
	if ours, err := isOurs(f); err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", s.path, err)
	} else if !ours {
		s.foreign = true
		s.log.Error("the file is no snapshot, not even a damaged one: it is left alone, and nothing is kept until it is gone", "path", s.path)
		return s.contents(), nil
	}
	contents, err := decode(f)
	if corrupt, ok := errors.AsType[*corruptError](err); ok {
		s.setAside(corrupt)
		s.lost = true
		return s.contents(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", s.path, err)
	}
	s.records = make(map[registry.Key]kept, len(contents.Records))
	s.keep(contents)
	s.partial, s.lost = contents.Partial, contents.Lost
	return contents, nil
}

// keep takes over contents. s.mu must be held.
func (s *Store) keep(contents *registry.Contents) {
	for _, record := range contents.Records {
		s.records[record.Host.Key] = keptOf(&record)
	}
	for _, setting := range contents.Settings {
		s.settings[setting.Key()] = setting
	}
}

// setAside renames a file that cannot be understood, so that an operator can
// look at it and the next snapshot does not replace it.
func (s *Store) setAside(why *corruptError) {
	aside := s.path + time.Now().UTC().Format(".bad-20060102T150405.000")
	if err := os.Rename(s.path, aside); err != nil {
		s.log.Error("the snapshot is not whole and cannot be set aside; starting without hosts",
			"path", s.path, "reason", why, "error", err)
		return
	}
	s.log.Error("the snapshot is not whole; starting without hosts", "path", s.path, "set_aside_as", aside, "reason", why)
}

// Append takes the changes over; the next snapshot has them.
func (s *Store) Append(_ context.Context, changes []registry.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range changes {
		switch {
		case c.Record != nil:
			s.records[c.Key] = keptOf(c.Record)
		case c.Key != registry.Key{}:
			delete(s.records, c.Key)
		case c.Setting != nil:
			s.settings[c.SettingKey] = *c.Setting
		default:
			delete(s.settings, c.SettingKey)
		}
	}
	s.changed = s.changed || len(changes) > 0
	return nil
}

// Replace makes contents all that is kept of the services for which covers is
// true, and the store partial and to have lost some where contents says so. The next
// snapshot has it.
func (s *Store) Replace(contents *registry.Contents, covers func(service string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.records, func(k registry.Key, _ kept) bool { return covers(k.Service) })
	maps.DeleteFunc(s.settings, func(k registry.SettingKey, _ registry.Setting) bool { return covers(k.Scope.Service) })
	s.keep(contents)
	s.partial = s.partial || contents.Partial
	s.lost = s.lost || contents.Lost
	s.changed = true
}

// Flush takes over the times of the beats that are later than what is kept; they
// are written with the next change, or at the end.
func (s *Store) Flush(_ context.Context, beats []registry.Beat) ([]registry.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range beats {
		if k, ok := s.records[b.Key]; ok && registry.InstantOf(b.At) > k.lastCheckIn {
			k.lastCheckIn = registry.InstantOf(b.At)
			s.records[b.Key] = k
		}
	}
	return nil, nil
}

// Complete has the next snapshot say that all hosts are in it.
func (s *Store) Complete(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.partial || s.lost {
		s.partial, s.lost, s.changed = false, false, true
	}
	return nil
}

// Close writes a last snapshot and ends the store. It returns the error of
// that snapshot. It must not be called twice.
func (s *Store) Close() error {
	close(s.done)
	s.loops.Wait()
	s.mu.Lock()
	s.changed = true // beats since the last snapshot are worth it now
	s.mu.Unlock()
	err := s.snapshot()
	if s.held != nil {
		_ = s.held.Close() // only now another may write
	}
	return err
}

// writeEvery writes snapshots until Close.
func (s *Store) writeEvery(interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	healthy := true
	for {
		select {
		case <-ticker.C:
		case <-s.done:
			return
		}
		err := s.snapshot()
		switch {
		case err != nil && healthy:
			s.log.Error("no snapshot can be written, trying on", "error", err, "every", interval.String())
		case err == nil && !healthy:
			s.log.Info("snapshots are written again", "path", s.path)
		}
		healthy = err == nil
	}
}

// snapshot writes the file, if there is anything new and the old one was read.
func (s *Store) snapshot() error {
	s.mu.Lock()
	if !s.loaded || !s.changed {
		s.mu.Unlock()
		return nil
	}
	if s.foreign {
		if _, err := os.Stat(s.path); !errors.Is(err, fs.ErrNotExist) {
			s.mu.Unlock()
			s.metrics.errors.Inc()
			return fmt.Errorf("write snapshot %s: the file is somebody else's", s.path)
		}
		s.foreign = false
	}
	contents := s.contents()
	s.changed = false
	s.mu.Unlock()

	err := s.hold()
	if err == nil {
		err = replacefile.Write(s.path, func(w io.Writer) error { return encode(w, contents) })
	}
	if err != nil {
		s.mu.Lock()
		s.changed = true
		s.mu.Unlock()
		s.metrics.errors.Inc()
		return fmt.Errorf("write snapshot %s: %w", s.path, err)
	}
	s.metrics.written.SetToCurrentTime()
	return nil
}
