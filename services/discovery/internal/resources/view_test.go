package resources

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

func TestAViewHoldsWhatMakesADifference(t *testing.T) {
	all := Asker{ID: "a", Cluster: "c", Region: "eu", Zone: "eu-1"}
	for name, test := range map[string]struct {
		options Options
		varies  bool
		want    Asker
	}{
		"nothing":             {Options{StaleDegraded: true}, false, Asker{}},
		"the zone":            {Options{ZonePriorities: true}, true, Asker{Region: "eu", Zone: "eu-1"}},
		"the ID and the zone": {Options{SubsetSize: 3}, true, Asker{ID: "a", Region: "eu", Zone: "eu-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaker(t, test.options)
			require.Equal(t, test.want, m.View(all).asker())
			for kind := range Types {
				require.Equal(t, test.varies && kind == Endpoints, m.Varies(kind))
				require.Equal(t, kind == Clusters, m.Listed(kind))
			}
		})
	}
	require.Empty(t, newMaker(t, Options{}).View(all))
	zones := newMaker(t, Options{ZonePriorities: true})
	require.Empty(t, zones.View(Asker{ID: "a", Region: "eu"}), "a region alone")
	require.Equal(t, zones.View(Asker{ID: "a", Zone: "1"}), zones.View(Asker{ID: "b", Zone: "1"}))
}

func TestANarrowedViewIsShownTheSame(t *testing.T) {
	narrowed := 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		list := registry.Listing{Hosts: randomHosts(r, 20), Known: true}
		m := newMaker(t, Options{ZonePriorities: r.IntN(2) == 0, SubsetSize: []int{0, 5, 15}[r.IntN(3)]})
		v := m.View(Asker{ID: fmt.Sprint(r.IntN(9)), Region: []string{"", "eu", "us"}[r.IntN(3)], Zone: []string{"", "1", "2", "9"}[r.IntN(4)]})
		narrow := m.Narrow(v, list)
		if narrow != v {
			narrowed++
		}
		require.Equal(t, narrow, m.Narrow(narrow, list))
		for _, name := range []string{"users", "users#canary"} {
			want, err := m.Make(Endpoints, name, "users", v, list)
			require.NoError(t, err)
			got, err := m.Make(Endpoints, name, "users", narrow, list)
			require.NoError(t, err)
			require.Equal(t, want.Version, got.Version, "seed %d", seed)
		}
	}
	require.Greater(t, narrowed, 50)

	m := newMaker(t, Options{SubsetSize: 5})
	a, b := m.View(Asker{ID: "a", Zone: "eu-1"}), m.View(Asker{ID: "b", Zone: "eu-2"})
	few, many := registry.Listing{Hosts: manyHosts(5, "eu-1")}, registry.Listing{Hosts: manyHosts(6, "eu-1")}
	require.Empty(t, m.Narrow(a, few))
	require.Equal(t, a, m.Narrow(a, many))
	require.NotEqual(t, m.Narrow(a, many), m.Narrow(b, many))
}

func TestAViewThatIsNoneIsOfNobody(t *testing.T) {
	for _, v := range []View{"", "x", "1:", "1,:", "9,0:a", "0,9:a", "-1,1:ab", "9223372036854775807,9223372036854775807:a"} {
		require.Equal(t, Asker{}, v.asker(), "%q", v)
	}
}

// FuzzView wants different askers to have different views, whatever they say.
func FuzzView(f *testing.F) {
	f.Add("a", "eu", "eu-1")
	f.Add("1,1:", ":", ",")
	m, err := NewMaker(Options{SubsetSize: 1})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, id, region, zone string) {
		a := Asker{ID: id, Region: region, Zone: zone}
		if zone == "" {
			a.Region = ""
		}
		require.Equal(t, a, m.View(a).asker())
		View(id).asker()
	})
}
