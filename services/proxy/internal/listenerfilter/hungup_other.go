//go:build !linux

package listenerfilter

// hungUp can't tell here: who is left waiting for more ends with its time.
func hungUp(int) bool { return false }
