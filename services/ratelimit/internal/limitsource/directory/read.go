package directory

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	// maxFile is the largest rule file that is read, in bytes.
	maxFile = 16 << 20
	// maxDirectories is how deep directories are entered.
	maxDirectories = 16
)

// snapshot is what the directory held at one time.
type snapshot struct {
	// files are in the order of their paths, which begin with the directory.
	files []file
	// directories are the directory and those below it.
	directories []string
	// hash is equal for snapshots with equal files.
	hash [sha256.Size]byte
}

// unread is how many of the files could not be read.
func (n snapshot) unread() int {
	unread := 0
	for _, f := range n.files {
		if f.err != nil {
			unread++
		}
	}
	return unread
}

// size is that of the files' texts together, in bytes.
func (n snapshot) size() int {
	size := 0
	for _, f := range n.files {
		size += len(f.text)
	}
	return size
}

// file is one rule file, or why it could not be read.
type file struct {
	path string
	text []byte
	err  error
}

// read takes a snapshot of every file below directory, through symbolic links.
// Entries whose name begins with a dot are left out if ignoreDot: in a
// mounted ConfigMap they are the copies that the links of the same name point
// into. The error is that of the directory itself.
func read(directory string, ignoreDot bool) (snapshot, error) {
	r := reader{ignoreDot: ignoreDot}
	if err := r.enter(directory, nil); err != nil {
		return snapshot{}, fmt.Errorf("read rule directory: %w", err)
	}
	sum := sha256.New()
	for _, f := range r.files {
		fmt.Fprintf(sum, "%q %d %v\n", f.path, len(f.text), f.err)
		sum.Write(f.text)
	}
	r.hash = [sha256.Size]byte(sum.Sum(nil))
	return r.snapshot, nil
}

// reader is one read at work.
type reader struct {
	snapshot
	ignoreDot bool
}

// enter reads directory and what is below it; above are the directories that
// it was entered through, so that a link back to one of them is not followed.
func (r *reader) enter(directory string, above []fs.FileInfo) error {
	info, err := os.Stat(directory)
	if err != nil {
		return err
	}
	for _, a := range above {
		if os.SameFile(a, info) {
			return nil
		}
	}
	entries, err := os.ReadDir(directory)
	if err != nil {
		return err
	}
	r.directories = append(r.directories, directory)
	for _, e := range entries {
		if r.ignoreDot && strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(directory, e.Name())
		target, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) && e.Type()&fs.ModeSymlink == 0 {
			continue // removed since the directory was listed
		}
		switch {
		case err != nil:
			r.files = append(r.files, file{path: path, err: err})
		case target.IsDir() && len(above) >= maxDirectories:
			r.files = append(r.files, file{path: path, err: fmt.Errorf("more than %d directories deep", maxDirectories)})
		case target.IsDir():
			if err := r.enter(path, append(above, info)); err != nil {
				r.files = append(r.files, file{path: path, err: err})
			}
		case target.Mode().IsRegular():
			text, err := readFile(path)
			r.files = append(r.files, file{path, text, err})
		default: // to open it might wait for ever
			r.files = append(r.files, file{path: path, err: errNoFile})
		}
	}
	return nil
}

// errNoFile is why a pipe, a socket or a device is not read.
var errNoFile = errors.New("neither a file nor a directory")

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("larger than %d bytes", maxFile)
	}
	return text, err
}
