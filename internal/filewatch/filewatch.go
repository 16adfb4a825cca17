// Package filewatch reads a few files that belong together, such as a
// certificate and its key, and reads them anew when their contents change.
// Whoever knows what they mean gives it a function to call; the package looks
// at no content beyond whether it is another than before.
package filewatch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// File is one of the files.
type File struct {
	// Setting is the variable, flag or field that names the file.
	Setting string
	Path    string
}

// Options is what is watched. Every field is required.
type Options struct {
	Files []File
	// Poll is the time between looks at the files, for changes of which the
	// file system does not tell.
	Poll time.Duration
	// What is the files' name in the log, in the plural: "certificates".
	What string
	Log  *slog.Logger
}

// Watch is the files as they were read last. It is for one goroutine at a time.
type Watch struct {
	options Options
	last    [sha256.Size]byte // of the contents that were read last, good or bad
}

// Open reads the files for the first time and returns their contents in the
// order of Files. The error names the setting and the file that can't be read.
func Open(o Options) (*Watch, [][]byte, error) {
	w := &Watch{options: o}
	contents, sum, err := w.look()
	if err != nil {
		return nil, nil, err
	}
	w.last = sum
	return w, contents, nil
}

// Run calls take with the contents whenever they became other than they were,
// or with the error of a file that can't be read any more, until ctx ends: it
// hears of changes from the file system, and looks for itself at each poll. The
// same contents, or the same error, are taken once.
func (w *Watch) Run(ctx context.Context, take func(contents [][]byte, err error)) {
	poll := time.NewTicker(w.options.Poll)
	defer poll.Stop()
	var events <-chan fsnotify.Event // never any, if there is no watcher
	var faults <-chan error
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close()
		events, faults, err = watcher.Events, watcher.Errors, w.watch(watcher)
	}
	if err != nil {
		w.options.Log.Warn(w.options.What+" are polled only", "error", err)
	}
	for {
		// At first too: what changed before the watch began is told by nobody.
		w.reload(ctx, take)
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		case <-events:
		case err := <-faults: // the look that follows makes up for events that were lost
			w.options.Log.Debug("the file system did not tell of a change of "+w.options.What, "error", err)
		}
	}
}

// watch watches the directories of the files, since files are often replaced
// and not written.
func (w *Watch) watch(watcher *fsnotify.Watcher) error {
	var errs []error
	for _, f := range w.options.Files {
		errs = append(errs, watcher.Add(filepath.Dir(f.Path)))
	}
	return errors.Join(errs...)
}

// settle is how long files must have been the same before they are taken, since
// a pair is seldom written in one step.
const settle = 50 * time.Millisecond

// reload hands on contents that changed, once they have settled or ctx ends.
func (w *Watch) reload(ctx context.Context, take func([][]byte, error)) {
	_, before, _ := w.look()
	for before != w.last {
		select {
		case <-ctx.Done():
			return
		case <-time.After(settle):
		}
		contents, sum, err := w.look()
		if sum == before {
			w.last = sum
			take(contents, err)
		}
		before = sum
	}
}

// look reads the files; sum tells what it came to, an error included.
func (w *Watch) look() (contents [][]byte, sum [sha256.Size]byte, err error) {
	h := sha256.New()
	for _, f := range w.options.Files {
		text, err := os.ReadFile(f.Path)
		if err != nil {
			err = fmt.Errorf("%s=%s: %w", f.Setting, f.Path, err)
			return nil, sha256.Sum256([]byte(err.Error())), err
		}
		contents = append(contents, text)
		fmt.Fprintf(h, "%d:", len(text))
		_, _ = h.Write(text) // never fails
	}
	return contents, [sha256.Size]byte(h.Sum(nil)), nil
}
