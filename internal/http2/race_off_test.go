//go:build !race

package http2_test

// raced says that the race detector is on.
const raced = false
