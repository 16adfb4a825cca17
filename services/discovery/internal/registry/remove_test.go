package registry

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAWeightSetByAnOperatorLivesOnUntilAHostNamesOne(t *testing.T) {
	r := started(t, newFakeStore())
	weights := func() (weights []uint8) {
		list, err := r.List("users")
		require.NoError(t, err)
		for _, record := range list.Hosts {
			weights = append(weights, record.Host.Tags.Weight)
		}
		return weights
	}
	checkIn(t, r, host("a", 1))
	checkIn(t, r, host("b", 2))

	found, err := r.SetWeight(Selection{Service: "users", IP: netip.MustParseAddr("10.0.0.1"), Port: 2}, 30, "tester")
	require.NoError(t, err)
	require.Equal(t, 1, found)
	require.Equal(t, []uint8{0, 30}, weights())
	require.Equal(t, HostUnchanged, checkIn(t, r, host("b", 2)), "a beat that says nothing of the weight")
	require.Equal(t, []uint8{0, 30}, weights())

	for range 2 {
		found, err = r.SetWeight(Selection{Service: "users"}, 40, "tester")
		require.NoError(t, err)
		require.Equal(t, 2, found)
		require.Equal(t, []EventKind{Changed, Changed, Changed}, kinds(t, r, "users"), "the same weight again is no change")
	}
	h := host("b", 2)
	h.Tags.Weight = 5
	checkIn(t, r, h)
	require.Equal(t, []uint8{40, 5}, weights())

	found, err = r.SetWeight(Selection{Service: "none"}, 40, "tester")
	require.NoError(t, err)
	require.Zero(t, found)
}

func TestAHostThatGoesWhileManyAreWeighedIsLeftOut(t *testing.T) {
	r := started(t, newFakeStore())
	for i := range 2*weighBatch + 1 {
		checkIn(t, r, host(fmt.Sprint(i), uint16(i+1)))
	}
	found, err := r.SetWeight(Selection{Service: "users"}, 7, "tester")
	require.NoError(t, err)
	require.Equal(t, 2*weighBatch+1, found)
	for _, v := range seen(t, r) {
		require.Equal(t, uint8(7), v.Weight)
	}

	entries, err := r.selected(Selection{Service: "users"})
	require.NoError(t, err)
	_, err = r.Remove(Selection{Service: "users", ID: "0"}, "tester")
	require.NoError(t, err)
	r.weighSome(entries[:2], 9, "tester")
	views := seen(t, r)
	require.NotContains(t, views, "0", "it is not brought back")
	require.Equal(t, uint8(9), views["1"].Weight)
}

func TestRemoveTakesOutNothingThatIsNotAllowed(t *testing.T) {
	r := started(t, newFakeStore())
	checkIn(t, r, host("a", 1))
	moved := host("b", 2)
	moved.Address = netip.MustParseAddrPort("10.0.0.2:2")
	checkIn(t, r, moved)
	foreign := errors.New("not yours")
	removed, err := r.Remove(Selection{Service: "users", Allow: func(a netip.Addr) error {
		if a == moved.Address.Addr() {
			return foreign
		}
		return nil
	}}, "tester")
	require.ErrorIs(t, err, foreign)
	require.Zero(t, removed)
	require.Equal(t, []string{"a", "b"}, ids(t, r))
}

func TestRemoveTakesOutWhatIsSelected(t *testing.T) {
	for name, test := range map[string]struct {
		selected Selection
		left     []string
	}{
		"all of a service":        {Selection{Service: "users"}, []string{}},
		"an address":              {Selection{Service: "users", IP: netip.MustParseAddr("10.0.0.1")}, []string{"c"}},
		"an address and a port":   {Selection{Service: "users", IP: netip.MustParseAddr("10.0.0.1"), Port: 2}, []string{"a", "c"}},
		"a port that nobody has":  {Selection{Service: "users", IP: netip.MustParseAddr("10.0.0.1"), Port: 3}, []string{"a", "b", "c"}},
		"a service nobody knows":  {Selection{Service: "none"}, []string{"a", "b", "c"}},
		"an address nobody is at": {Selection{Service: "users", IP: netip.MustParseAddr("10.0.0.9")}, []string{"a", "b", "c"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := started(t, newFakeStore())
			checkIn(t, r, host("a", 1))
			checkIn(t, r, host("b", 2))
			c := host("c", 3)
			c.Address = netip.MustParseAddrPort("[fd00::1]:3")
			checkIn(t, r, c)
			removed, err := r.Remove(test.selected, "tester")
			require.NoError(t, err)
			require.Equal(t, 3-len(test.left), removed)
			require.Equal(t, test.left, ids(t, r))
		})
	}
}
