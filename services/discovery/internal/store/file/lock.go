package file

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// lockName is the file that the process holds which writes the snapshot at path.
// It is not the snapshot, which another takes the place of each time, and it stays:
// of a name that is taken away two processes could each hold one.
func lockName(path string) string { return path + ".lock" }

// heldError is that another process holds a lock.
type heldError struct {
	name   string
	holder string // as it says itself; "" if it does not
}

func (e *heldError) Error() string {
	if e.holder == "" {
		return fmt.Sprintf("%s is held: another process writes this snapshot", e.name)
	}
	return fmt.Sprintf("%s is held by %s, which writes this snapshot", e.name, e.holder)
}

// lock holds the lock of the snapshot at path until the file that it returns is
// closed, or the process ends, however that comes. The error is a *heldError where
// another has it.
func lock(path string) (*os.File, error) {
	name := lockName(path)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock it: %w", err)
	}
	if err := tryLock(f); err != nil {
		if errors.Is(err, errHeld) {
			err = &heldError{name, holder(f)}
		} else {
			err = fmt.Errorf("lock %s: %w", name, err)
		}
		return nil, errors.Join(err, f.Close())
	}
	// For people: that this cannot be written, as on a full disk, takes no lock away.
	host, _ := os.Hostname()
	_ = f.Truncate(0)
	_, _ = fmt.Fprintf(f, "process %d on %s\n", os.Getpid(), host)
	return f, nil
}

// holder is what the process says of itself that holds f.
func holder(f *os.File) string {
	const longest = 400
	text, _ := io.ReadAll(io.LimitReader(f, longest)) // without it the error is as true
	return strings.TrimSpace(string(text))
}
