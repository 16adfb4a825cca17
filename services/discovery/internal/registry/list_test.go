package registry

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestHostsAreListedInTheRoomOfTheReaderIfThatIsEnough(t *testing.T) {
	r := started(t, newFakeStore())
	for i := range 3 {
		checkIn(t, r, host(fmt.Sprint(i), uint16(1+i)))
	}
	want, err := r.List("users")
	require.NoError(t, err)
	require.Len(t, want.Hosts, 3)
	other := View{Weight: 99}
	for _, capacity := range []int{0, 2, 3, 16} {
		room := make([]View, capacity)
		for i := range room {
			room[i] = other // of an earlier list
		}
		got, err := r.ListInto(room[:0], "users")
		require.NoError(t, err)
		require.Equal(t, want, got)
		if capacity < 3 {
			require.NotContains(t, room, got.Hosts[0])
			continue
		}
		require.Same(t, &room[0], &got.Hosts[0])
		require.NotContains(t, room[3:], got.Hosts[0])
	}
	unknown, err := r.ListInto(make([]View, 0, 16), "nobody")
	require.NoError(t, err)
	require.Empty(t, unknown.Hosts)
}

func TestAListIntoRoomAllocatesNothing(t *testing.T) {
	r := started(t, newFakeStore())
	for i := range 10 {
		checkIn(t, r, host(fmt.Sprint(i), uint16(1+i)))
	}
	servicetest.Allocations(t, 0, func() {
		var room [16]View
		if list, err := r.ListInto(room[:0], "users"); err != nil || len(list.Hosts) != 10 {
			t.Fatal(len(list.Hosts), err)
		}
	})
}
