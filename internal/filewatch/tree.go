package filewatch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Bounds of a tree: the bytes of one file and of all together, how many files
// there are, and how deep directories are entered.
const (
	maxTreeFile  = 16 << 20
	maxTreeBytes = 256 << 20
	maxTreeFiles = 10_000
	maxTreeDepth = 16
)

// TreeOptions is which files are watched. Every field is required.
type TreeOptions struct {
	Directory File
	// Endings are how the names of the files end, as ".yaml".
	Endings []string
	// Poll is the time between looks at the files, for changes of which the
	// file system does not tell, as of a file behind a link.
	Poll time.Duration
	// What is the files' name in the log, in the plural.
	What string
	Log  *slog.Logger
}

// TreeFile is one file of a tree, or why it, or a directory, can't be read.
type TreeFile struct {
	// Path begins with that of the tree's directory.
	Path string
	Text []byte
	Err  error
}

// Tree is the files below a directory, as they were read last. It is for one
// goroutine at a time.
type Tree struct{ loop Loop[[]TreeFile] }

// ReadTree reads once what a Tree watches; of the options it takes Directory and
// Endings. Files are in the order of their paths. Links are followed, as those of
// a mounted ConfigMap; what begins with a dot is left out. The error names the
// setting: of the directory itself, or of a tree that is too large.
func ReadTree(o TreeOptions) ([]TreeFile, error) {
	files, _, err := readTree(o)
	return files, err
}

// OpenTree reads the files for the first time, as ReadTree does.
func OpenTree(o TreeOptions) (*Tree, []TreeFile, error) {
	t := &Tree{Loop[[]TreeFile]{Poll: o.Poll, What: o.What, Log: o.Log}}
	directory := filepath.Clean(o.Directory.Path)
	t.loop.Concerns = func(name string) bool { // and not what lies beside it
		below, err := filepath.Rel(directory, name)
		return err == nil && filepath.IsLocal(below)
	}
	t.loop.Look = func() ([]TreeFile, []string, [sha256.Size]byte, error) {
		files, directories, err := readTree(o)
		// The one above tells when the directory is replaced.
		directories = append(directories, filepath.Dir(directory))
		if err != nil {
			return nil, directories, sha256.Sum256([]byte(err.Error())), err
		}
		return files, directories, sumOf(files), nil
	}
	files, err := t.loop.First()
	if err != nil {
		return nil, nil, err
	}
	return t, files, nil
}

// Run calls take with the files whenever they became other than they were, or
// with the error of the directory, until ctx ends, as Watch.Run does.
func (t *Tree) Run(ctx context.Context, take func(files []TreeFile, err error)) {
	t.loop.Run(ctx, take)
}

func sumOf(files []TreeFile) [sha256.Size]byte {
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%q %d %v\n", f.Path, len(f.Text), f.Err)
		_, _ = h.Write(f.Text) // never fails
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// treeReader is one look at a tree.
type treeReader struct {
	endings     []string
	files       []TreeFile
	directories []string
	bytes       int
}

func readTree(o TreeOptions) (files []TreeFile, directories []string, err error) {
	r := treeReader{endings: o.Endings}
	if err := r.enter(filepath.Clean(o.Directory.Path), nil); err != nil {
		return nil, r.directories, fmt.Errorf("%s=%s: %w", o.Directory.Setting, o.Directory.Path, err)
	}
	return r.files, r.directories, nil
}

// errTooLarge ends a look.
var errTooLarge = errors.New("too large")

// enter reads a directory and what is below it; above are those that it was
// entered through, so that a link back to one of them is not followed. The error
// is that of the directory, or an errTooLarge.
func (r *treeReader) enter(directory string, above []fs.FileInfo) error {
	info, err := os.Stat(directory)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(above, func(a fs.FileInfo) bool { return os.SameFile(a, info) }) {
		return nil
	}
	entries, err := os.ReadDir(directory)
	if err != nil {
		return err
	}
	r.directories = append(r.directories, directory)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(directory, e.Name())
		target, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && e.Type()&fs.ModeSymlink == 0:
			// Removed since the directory was listed.
		case err != nil && r.wants(path):
			err = r.add(TreeFile{Path: path, Err: err})
		case err != nil:
			err = nil
		case target.IsDir() && len(above) < maxTreeDepth:
			err = r.enter(path, append(slices.Clip(above), info))
			if err != nil && !errors.Is(err, errTooLarge) {
				err = r.add(TreeFile{Path: path, Err: err})
			}
		case target.Mode().IsRegular() && r.wants(path):
			text, failed := readTreeFile(path)
			err = r.add(TreeFile{path, text, failed})
		}
		if errors.Is(err, errTooLarge) {
			return err
		}
	}
	return nil
}

func (r *treeReader) wants(path string) bool {
	return slices.ContainsFunc(r.endings, func(ending string) bool { return strings.HasSuffix(path, ending) })
}

func (r *treeReader) add(f TreeFile) error {
	r.files = append(r.files, f)
	r.bytes += len(f.Text)
	if len(r.files) > maxTreeFiles {
		return fmt.Errorf("%w: more than %d files", errTooLarge, maxTreeFiles)
	}
	if r.bytes > maxTreeBytes {
		return fmt.Errorf("%w: files of more than %d bytes together", errTooLarge, maxTreeBytes)
	}
	return nil
}

func readTreeFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxTreeFile+1))
	if err == nil && len(text) > maxTreeFile {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxTreeFile)
	}
	if err != nil {
		return nil, err
	}
	return text, nil
}
