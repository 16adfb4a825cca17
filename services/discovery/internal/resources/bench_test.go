package resources

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// usual are n hosts that say what hosts usually say.
func usual(n int) registry.Listing {
	hosts := manyHosts(n, "eu-1", "eu-2", "eu-3")
	no := false
	for i := range hosts {
		h := hosts[i].Host
		h.Revision, h.Tags.Canary, h.Tags.InstanceID = "0f3c9a1", &no, fmt.Sprint("i-", i)
		h.Tags.Other = registry.TagListOf(map[string]json.RawMessage{"team": json.RawMessage(`"users"`)})
		hosts[i].Weight = 100
	}
	return registry.Listing{Hosts: hosts, Known: true}
}

var benchmarks = []struct {
	name    string
	options Options
	// allocations is how many there may be for each host.
	allocations float64
}{
	{"plain", Options{}, 14},
	{"tags", Options{TagNamespace: "weir.tags"}, 45},
	{"zones", Options{ZonePriorities: true}, 14},
	{"subset", Options{SubsetSize: 20}, 4},
}

func BenchmarkMake(b *testing.B) {
	for _, n := range []int{10, 1000} {
		list := usual(n)
		for _, c := range benchmarks {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				m := newMaker(b, c.options)
				v := m.View(Asker{ID: "node", Region: "eu", Zone: "eu-1"})
				b.ReportAllocs()
				for b.Loop() {
					if _, err := m.Make(Endpoints, "users", "users", v, list); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func TestMakingAnAssignmentAllocatesByHost(t *testing.T) {
	list := usual(100)
	for _, c := range benchmarks {
		t.Run(c.name, func(t *testing.T) {
			m := newMaker(t, c.options)
			v := m.View(Asker{ID: "node", Region: "eu", Zone: "eu-1"})
			servicetest.Allocations(t, 100*c.allocations, func() {
				_, err := m.Make(Endpoints, "users", "users", v, list)
				require.NoError(t, err)
			})
		})
	}
}
