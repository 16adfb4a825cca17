package registry

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAHistoryIsTheLastEventsOfAService(t *testing.T) {
	r := started(t, newFakeStore())
	checkIn(t, r, host("a", 1))
	for i := range historyLength + 5 {
		h := host("a", 1)
		h.Revision = fmt.Sprint(i)
		checkIn(t, r, h)
	}
	_, err := r.Remove(Selection{Service: "users"}, "ann")
	require.NoError(t, err)
	events, err := r.History("users")
	require.NoError(t, err)
	require.Len(t, events, historyLength)
	require.Equal(t, `revision "5" to "6"`, events[0].Detail, "the first ones are forgotten")
	last := events[len(events)-1]
	require.Equal(t, Event{At: last.At, Kind: Deregistered, Service: "users", ID: "a", Actor: "ann"}, last)
	events, err = r.History("none")
	require.NoError(t, err)
	require.Empty(t, events)
}

func TestAChangeIsToldByWhatIsOther(t *testing.T) {
	yes := true
	raw := func(text string) json.RawMessage { return json.RawMessage(text) }
	for want, change := range map[string]func(h *Host){
		`weight none to "3"`:                 func(h *Host) { h.Tags.Weight = 3 },
		`canary none to "true"`:              func(h *Host) { h.Tags.Canary = &yes },
		`instance_id "a" to "i"`:             func(h *Host) { h.Tags.InstanceID = "i" },
		`additional addresses`:               func(h *Host) { h.Additional = []netip.Addr{netip.MustParseAddr("fd00::1")} },
		`ports`:                              func(h *Host) { h.Ports = []Port{{"grpc", 9}} },
		`revision "r1" to "r2", tags "rack"`: func(h *Host) { h.Revision, h.Tags.Other = "r2", nil },
		`tags "disk" "rack"`: func(h *Host) {
			h.Tags.Other = TagListOf(map[string]json.RawMessage{"disk": raw("1"), "rack": raw("2")})
		},
		`tags "0" "1" "10" "11" "2" "3" "4" "5" "6" "7" and 3 more`: func(h *Host) {
			tags := map[string]json.RawMessage{}
			for i := range 12 {
				tags[fmt.Sprint(i)] = raw("1")
			}
			h.Tags.Other = TagListOf(tags)
		},
	} {
		t.Run(want, func(t *testing.T) {
			r := started(t, newFakeStore())
			checkIn(t, r, host("a", 1))
			h := host("a", 1)
			change(&h)
			_, err := r.Put(h, "tester")
			require.NoError(t, err)
			events, err := r.History("users")
			require.NoError(t, err)
			require.Equal(t, want, events[len(events)-1].Detail)
		})
	}
}

func TestWhatIsNoMoreIsToldAsNone(t *testing.T) {
	yes := true
	was, is := host("a", 1), host("a", 1)
	was.Tags.Weight, was.Tags.Canary, was.Repo = 5, &yes, "repo"
	is.Repo = ""
	require.Equal(t, `repository "repo" to none, weight "5" to none, canary "true" to none`, was.difference(&is))
}

func TestAnEventFeedTellsAllOrThatItMissedSome(t *testing.T) {
	r := started(t, newFakeStore())
	feed := r.Events()
	defer feed.Close()
	checkIn(t, r, host("a", 1))
	<-feed.Ready()
	events, missed := feed.Take()
	require.Len(t, events, 1)
	require.Equal(t, Registered, events[0].Kind)
	require.False(t, missed)

	for i := range eventQueue + 1 {
		h := host("a", 1)
		h.Revision = fmt.Sprint(i)
		checkIn(t, r, h)
	}
	<-feed.Ready()
	events, missed = feed.Take()
	require.Len(t, events, eventQueue)
	require.True(t, missed)
	feed.Close()
	checkIn(t, r, host("b", 1))
	events, missed = feed.Take()
	require.Empty(t, events)
	require.False(t, missed)
}

func TestAnEventFeedOfAServiceTellsWhatItsHistoryDoes(t *testing.T) {
	r := started(t, newFakeStore())
	feed := r.EventsOf("users")
	defer feed.Close()
	take := func() (kinds []string, missed bool) {
		events, missed := feed.Take()
		for _, e := range events {
			kinds = append(kinds, strings.TrimSpace(fmt.Sprint(e.Kind, " ", e.Service, " ", e.Zone)))
		}
		return kinds, missed
	}
	drain := func(scope Scope) { makeSetting(t, r, Setting{Scope: scope, Kind: Drain}) }
	drain(Scope{Zone: "eu-1"}) // where it has no hosts yet
	checkIn(t, r, host("a", 1))
	other := host("a", 1)
	other.Service, other.Tags.Zone = "orders", "eu-2"
	checkIn(t, r, other)
	drain(Scope{Zone: "eu-1"})
	drain(Scope{Zone: "eu-2"})
	drain(Scope{Service: "orders", Zone: "eu-1"})
	drain(Scope{Service: "users", Zone: "eu-2"})
	told, missed := take()
	require.Equal(t, []string{"registered users", "setting made  eu-1", "setting made users eu-2"}, told)
	require.False(t, missed)
	past, err := r.History("users")
	require.NoError(t, err)
	require.Equal(t, []string{"", "eu-1", "eu-2"}, []string{past[0].Zone, past[1].Zone, past[2].Zone})

	for i := range eventQueue + 1 {
		other.Revision = fmt.Sprint(i)
		checkIn(t, r, other)
	}
	told, missed = take()
	require.Empty(t, told)
	require.False(t, missed, "it misses nothing of others")
}

func TestWhoWaitsForAServiceHearsOfItsNextChangeAlone(t *testing.T) {
	r := started(t, newFakeStore())
	changed, stop := r.Changed("users")
	defer stop()
	other := host("a", 1)
	other.Service = "orders"
	checkIn(t, r, other)
	select {
	case <-changed:
		t.Fatal("another service changed")
	default:
	}
	checkIn(t, r, host("a", 1))
	<-changed
	again, stopAgain := r.Changed("users")
	checkIn(t, r, host("a", 1))
	select {
	case <-again:
		t.Fatal("a beat is no change")
	default:
	}
	stopAgain()
	stopAgain() // twice is harmless
	stop()
	require.Empty(t, r.waiters)
}
