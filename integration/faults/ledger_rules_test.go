package faults

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAViewFindsFaults: the other tests pass where it finds none.
func TestAViewFindsFaults(t *testing.T) {
	var now time.Duration
	f := newFleet(func() time.Duration { return now }, []string{"a"}, nil, byHome, ttl)
	service := f.names[2]
	hosts := f.byService[service]
	require.Len(t, hosts, 3)
	answer := func(v *view, at time.Duration, listed ...*host) {
		now = at
		v.answered(service, listed, at, at)
	}
	const second = time.Second
	for name, c := range map[string]struct {
		pushed bool
		say    func(v *view)
		faults int
	}{
		"an empty list": {say: func(v *view) { answer(v, 10*second) }, faults: 1},
		"an empty list of a service that died": {say: func(v *view) {
			for _, h := range hosts {
				h.died.Store(1)
			}
			answer(v, 10*second)
		}},
		"a host that is missing twice, two seconds apart": {say: func(v *view) {
			answer(v, 10*second, hosts[1:]...)
			answer(v, 12*second, hosts[1:]...)
			answer(v, 13*second, hosts...)
		}, faults: 1},
		"a host that is missing, and back within a second": {say: func(v *view) {
			answer(v, 10*second, hosts[1:]...)
			answer(v, 10*second+second/2, hosts[1:]...)
			answer(v, 13*second, hosts...)
		}},
		"a host that is missing until another answer is pushed": {pushed: true, say: func(v *view) {
			answer(v, 10*second, hosts[1:]...)
			answer(v, 13*second, hosts...)
		}, faults: 1},
		"a host that is missing until the stream breaks": {pushed: true, say: func(v *view) {
			answer(v, 10*second, hosts[1:]...)
			now = 13 * second
			v.broke()
		}, faults: 1},
		"a host that registered a moment ago": {say: func(v *view) {
			answer(v, 2*second, hosts[1:]...)
			answer(v, 3*second, hosts[1:]...)
		}},
		"a host that was missing before all were known": {say: func(v *view) {
			answer(v, 10*second, hosts[1:]...)
			answer(v, 12*second, hosts[1:]...)
			answer(v, 13*second, hosts...)
			v.settled()
			answer(v, 14*second, hosts...)
		}},
		"a host that is missing after all were known": {say: func(v *view) {
			v.settled()
			answer(v, 10*second, hosts[1:]...)
			answer(v, 12*second, hosts[1:]...)
		}, faults: 1},
		"a host that may be missing": {say: func(v *view) {
			v.unheard = func(h *host) bool { return h == hosts[0] }
			answer(v, 10*second, hosts[1:]...)
			answer(v, 13*second, hosts...)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, h := range hosts {
				h.registered.Store(int64(second / 2))
				h.died.Store(0)
			}
			v := newView("a", f, c.pushed)
			c.say(v)
			require.Len(t, v.verdict(mostLost), c.faults)
		})
	}
}
