// Package filewatch reads a few files that belong together, such as a
// certificate and its key, or all files below a directory, and reads them anew
// when their contents change. Whoever knows what they mean gives it a function to
// call; the package looks at no content beyond whether it is another than before.
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
type Watch struct{ loop Loop[[][]byte] }

// Open reads the files for the first time and returns their contents in the
// order of Files. The error names each setting and file that can't be read.
func Open(o Options) (*Watch, [][]byte, error) {
	var directories []string
	for _, f := range o.Files {
		// Files are often replaced and not written.
		directories = append(directories, filepath.Dir(f.Path))
	}
	w := &Watch{Loop[[][]byte]{Poll: o.Poll, What: o.What, Log: o.Log, Concerns: func(string) bool { return true }}}
	w.loop.Look = func() ([][]byte, []string, [sha256.Size]byte, error) {
		contents, sum, err := look(o.Files)
		return contents, directories, sum, err
	}
	contents, err := w.loop.First()
	if err != nil {
		return nil, nil, err
	}
	return w, contents, nil
}

// Run calls take with the contents whenever they became other than they were,
// or with the error of files that can't be read any more, until ctx ends: it
// hears of changes from the file system, and looks for itself at each poll. The
// same contents, or the same error, are taken once.
func (w *Watch) Run(ctx context.Context, take func(contents [][]byte, err error)) {
	w.loop.Run(ctx, take)
}

// look reads the files; sum tells what it came to, an error included, which is of all
// that can't be read.
func look(files []File) (contents [][]byte, sum [sha256.Size]byte, err error) {
	h := sha256.New()
	var errs []error
	for _, f := range files {
		text, err := os.ReadFile(f.Path)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s=%s: %w", f.Setting, f.Path, err))
			continue
		}
		contents = append(contents, text)
		fmt.Fprintf(h, "%d:", len(text))
		_, _ = h.Write(text) // never fails
	}
	if err := errors.Join(errs...); err != nil {
		return nil, sha256.Sum256([]byte(err.Error())), err
	}
	return contents, [sha256.Size]byte(h.Sum(nil)), nil
}
