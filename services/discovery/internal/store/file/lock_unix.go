//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package file

import (
	"os"
	"syscall"
)

// errHeld says that another has the lock.
const errHeld = syscall.EWOULDBLOCK

// tryLock takes the lock of f, or says why it cannot be had now. The kernel gives
// it back when the process has ended.
func tryLock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
