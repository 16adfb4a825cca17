package xds

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

// sized is a hub with so many services, of which a stream for each 50 has that
// many, and more streams that have the first service too.
func sized(t testing.TB, delta bool, services, subscribers int) (h *testHub, subscribed []*stream) {
	h = newTestHub(t)
	h.open(&h.loaded)
	names := make([]string, services)
	for i := range names {
		names[i] = fmt.Sprint("service-", i)
		h.hosts(names[i], "10.0.0.1:1", "10.0.0.2:1")
	}
	for first := 1; first < services; first += 50 {
		has(t, h, delta, names[first:min(first+50, services)]...)
	}
	for i := range subscribers {
		own := 1 + i%(services-1)
		subscribed = append(subscribed, has(t, h, delta, names[0], names[own]))
	}
	return h, subscribed
}

// has returns a stream that has acknowledged the assignments of names.
func has(t testing.TB, h *testHub, delta bool, names ...string) *stream {
	s := h.stream(t, delta)
	ask(t, s, resources.Endpoints, names...)
	acknowledge(t, s)
	return s
}

// TestAChangeCostsAsMuchAsItHasSubscribers counts allocations, which are the same
// on every machine: those of a change are the same however many services there
// are, and for each subscriber few.
func TestAChangeCostsAsMuchAsItHasSubscribers(t *testing.T) {
	for _, delta := range []bool{false, true} {
		t.Run(variant(delta), func(t *testing.T) {
			cost := func(services, subscribers int) (marking, building float64) {
				h, streams := sized(t, delta, services, subscribers)
				port := 1
				change := func() {
					port++
					h.hosts("service-0", fmt.Sprint("10.0.0.1:", port))
				}
				marking = testing.AllocsPerRun(20, change)
				form := newWireForm("replica-1")
				change()
				// A run is one stream's response; AllocsPerRun does one more before.
				next := 0
				building = testing.AllocsPerRun(subscribers-1, func() {
					form.encode(streams[next].next(start))
					next++
				})
				return marking, building
			}
			few, eachOfFew := cost(100, 10)
			many, eachOfMany := cost(10_000, 10)
			require.InDelta(t, few, many, 2, "of 100 and of 10,000 services")
			require.InDelta(t, eachOfFew, eachOfMany, 1)
			crowded, eachOfCrowd := cost(100, 1000)
			require.Less(t, crowded, few+1000)
			require.LessOrEqual(t, eachOfCrowd, eachOfFew+1)
			t.Logf("marking %v, %v, %v, building %v, %v, %v allocations", few, many, crowded, eachOfFew, eachOfMany, eachOfCrowd)
		})
	}
}

// TestStreamsThatHaveTheSameShareItsBytes holds the responses of streams to what
// was encoded for the first, but for a head of their own.
func TestStreamsThatHaveTheSameShareItsBytes(t *testing.T) {
	h := newTestHub(t)
	h.open(&h.loaded)
	h.hosts("users", "10.0.0.1:80")
	h.hosts("orders", "10.0.0.2:80")
	form := newWireForm("replica-1")
	for name, ask := range map[string]func(s *stream){
		"an assignment": func(s *stream) { ask(t, s, resources.Endpoints, "users") },
		"all clusters":  func(s *stream) { ask(t, s, resources.Clusters) },
	} {
		for _, delta := range []bool{false, true} {
			t.Run(name+"/"+variant(delta), func(t *testing.T) {
				var first [][]byte
				for range 3 {
					s := h.stream(t, delta)
					ask(s)
					var pieces [][]byte
					for _, b := range form.encode(s.next(start))[1:] {
						pieces = append(pieces, b.ReadOnlyData())
					}
					if first == nil {
						first = pieces
					}
					require.Len(t, pieces, len(first))
					for i := range first {
						require.Same(t, &first[i][0], &pieces[i][0])
					}
				}
				if !delta {
					require.Len(t, first, 1, "in one piece")
				}
			})
		}
	}
}

// BenchmarkChange is one change of a service among so many, to which so many
// streams subscribe: making its assignment and marking them.
func BenchmarkChange(b *testing.B) { perSize(b, false) }

// BenchmarkChangeAndBuild is the same and all of their responses, encoded, and
// their answers.
func BenchmarkChangeAndBuild(b *testing.B) { perSize(b, true) }

func perSize(b *testing.B, build bool) {
	form := newWireForm("replica-1")
	for _, services := range []int{100, 1000, 10_000} {
		for _, subscribers := range []int{10, 100, 1000} {
			b.Run(fmt.Sprintf("services=%d/subscribers=%d", services, subscribers), func(b *testing.B) {
				h, streams := sized(b, true, services, subscribers)
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					h.hosts("service-0", fmt.Sprint("10.0.0.1:", i%60_000+1))
					for _, s := range streams {
						if build {
							r := s.next(start)
							form.encode(r)
							take(b, s, r.typ, r.nonce, nil)
						} else {
							s.marks.take()
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*subscribers), "ns/subscriber")
			})
		}
	}
}
