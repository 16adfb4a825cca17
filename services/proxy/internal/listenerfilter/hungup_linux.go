package listenerfilter

import "golang.org/x/sys/unix"

// hungUp says whether the client has sent all that it will. What it sent may not be
// read yet, so that a look at it does not tell.
func hungUp(fd int) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0
}
