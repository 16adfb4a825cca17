package filewatch

import (
	"context"
	"crypto/sha256"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Loop looks at files again and again. Watch and Tree are two; whoever reads files
// in another way makes one with a Look of its own. T is what a look finds. All
// exported fields are required. It is for one goroutine at a time.
type Loop[T any] struct {
	// Poll, What and Log are as in Options.
	Poll time.Duration
	What string
	Log  *slog.Logger
	// Look reads the files. Directories are those of which the file system is to
	// tell, as there are now; the sum tells what it came to, an error included.
	Look func() (found T, directories []string, sum [sha256.Size]byte, err error)
	// Concerns says whether a change of a name in them is worth a look.
	Concerns func(name string) bool

	directories []string          // of the last look
	last        [sha256.Size]byte // of what was found last, good or bad
}

// First looks for the first time, or once more, and returns what it found. Run
// does not hand that on again.
func (l *Loop[T]) First() (T, error) {
	found, sum, err := l.look()
	l.last = sum
	return found, err
}

func (l *Loop[T]) look() (found T, sum [sha256.Size]byte, err error) {
	found, l.directories, sum, err = l.Look()
	return found, sum, err
}

// Run calls take with what a look found, or with its error, whenever it came to
// something else than before, until ctx ends: it hears of changes from the file
// system, and looks for itself at each poll.
func (l *Loop[T]) Run(ctx context.Context, take func(T, error)) {
	poll := time.NewTicker(l.Poll)
	defer poll.Stop()
	var events <-chan fsnotify.Event // never any, if there is no watcher
	var faults <-chan error
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close()
		events, faults = watcher.Events, watcher.Errors
	} else {
		l.Log.Warn(l.What+" are polled only", "error", err)
	}
	for watched, warned := map[string]fs.FileInfo{}, err != nil; ; {
		// At first too, and again when a directory is new: what changed before the
		// watch began is told by nobody.
		for news := true; news; {
			l.reload(ctx, take)
			news, err = l.watch(watcher, watched)
			if err != nil && !warned {
				l.Log.Warn(l.What+" are polled only", "error", err)
			}
			warned = err != nil || watcher == nil
		}
		if !l.wait(ctx, poll.C, events, faults) {
			return
		}
	}
}

// wait returns true when there may be something new, and false when ctx has
// ended.
func (l *Loop[T]) wait(ctx context.Context, poll <-chan time.Time, events <-chan fsnotify.Event, faults <-chan error) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-poll:
			return true
		case err := <-faults: // the look that follows makes up for events that were lost
			l.Log.Debug("the file system did not tell of a change of "+l.What, "error", err)
			return true
		case event := <-events:
			if l.Concerns(event.Name) {
				drop(events)
				return true
			}
		}
	}
}

// drop drops events that wait already: one look serves them all. It ends even
// while others write without end.
func drop(events <-chan fsnotify.Event) {
	for range 1000 {
		select {
		case <-events:
		default:
			return
		}
	}
}

// watch makes watcher watch the directories as they are now, and says whether one
// of them is new. A name may have come to stand for another directory, which
// makes it new again. The error is of the last that can't be watched. A nil
// watcher watches nothing.
func (l *Loop[T]) watch(watcher *fsnotify.Watcher, watched map[string]fs.FileInfo) (news bool, err error) {
	if watcher == nil {
		return false, nil
	}
	for d := range watched {
		if !slices.Contains(l.directories, d) {
			_ = watcher.Remove(d) // it may be gone, and the watch with it
			delete(watched, d)
		}
	}
	for _, d := range l.directories {
		info, failed := os.Stat(d)
		if failed == nil {
			failed = watcher.Add(d)
		}
		if failed != nil {
			delete(watched, d)
			err = failed
			continue
		}
		if before, ok := watched[d]; !ok || !os.SameFile(before, info) {
			news = true
		}
		watched[d] = info
	}
	return news, err
}

// settle is how long files must have been the same before they are taken, since
// files that belong together are seldom written in one step.
const settle = 50 * time.Millisecond

// reload hands on what changed, once it has settled or ctx ends.
func (l *Loop[T]) reload(ctx context.Context, take func(T, error)) {
	_, before, _ := l.look()
	for before != l.last {
		select {
		case <-ctx.Done():
			return
		case <-time.After(settle):
		}
		found, sum, err := l.look()
		if sum == before {
			l.last = sum
			take(found, err)
		}
		before = sum
	}
}
