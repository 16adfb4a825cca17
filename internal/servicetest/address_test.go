package servicetest

import (
	"net"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAFreeAddressIsHeldForWhoIsToldOfIt(t *testing.T) {
	address := FreeAddress(t)
	_, err := net.Dial("tcp", address)
	require.ErrorContains(t, err, "connection refused", "nobody listens yet")
	for range 2 { // and again after an end
		l, err := net.Listen("tcp", address)
		require.NoError(t, err)
		c, err := net.Dial("tcp", address)
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.NoError(t, l.Close())
	}
}

// It asks for most of the ports that there are, since the system draws one.
func TestAFreeAddressIsGivenToNobodyWhoAsksForAFreeOne(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("a port can be held without listening on Linux only")
	}
	held := map[string]bool{}
	for range 100 {
		held[FreeAddress(t)] = true
	}
	require.Len(t, held, 100)
	for range 20_000 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		require.False(t, held[l.Addr().String()])
		require.NoError(t, l.Close())
	}
}
