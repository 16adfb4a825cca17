//go:build !race

package grpchttp2_test

// raced says that the race detector is on.
const raced = false
