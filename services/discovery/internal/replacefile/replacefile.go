// Package replacefile changes a file so that its readers, and a start after a
// crash, find the old content or the new one, whole. The store behind file:///path
// and the agent's file of last known hosts are written by it. It knows nothing of
// what a file holds.
package replacefile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Write makes the file at path hold what write writes, or leaves it as it was:
// the new content is on the disk before it gets the name. The error is that of
// write or of the file system. What is half written stays beside it until
// the next call. Two calls for one path must not run at the same time.
func Write(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(aside(path), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if err = write(f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(aside(path), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	// Only with its directory on the disk does the new name survive a crash.
	return errors.Join(dir.Sync(), dir.Close())
}

// Check returns why Write could not write the file at path: its directory is not
// there, or may not be written to. The file is left as it is.
func Check(path string) error {
	f, err := os.OpenFile(aside(path), os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_ = f.Close()
	_ = os.Remove(aside(path)) // the next write would do it too
	return nil
}

// aside is where the file at path is written before it gets its name: beside it,
// since a file cannot be renamed to another file system.
func aside(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
}
