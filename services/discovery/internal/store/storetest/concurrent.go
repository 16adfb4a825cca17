package storetest

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// said is what a writer says of a host: some parts of it, of a host that it takes to be
// as changed was.
type said struct {
	parts registry.Parts
	as    func(r *registry.Record)
}

// concurrent is what holds for a host that two writers change, each of which takes it to
// be as known.
func concurrent() map[string]func(t *testing.T, a, b registry.SharedStore) {
	revision := said{registry.Parts{Description: true}, func(r *registry.Record) { r.Host.Revision = "r2" }}
	weight := said{registry.Parts{Weight: true}, func(r *registry.Record) { r.Host.Tags.Weight = 7 }}
	lighter := said{registry.Parts{Weight: true}, func(r *registry.Record) { r.Host.Tags.Weight = 3 }}
	newTag := said{registry.Parts{Tags: []string{"slot"}}, func(r *registry.Record) { r.Host.Tags.Other = tags("rack", "slot", "team") }}
	noTag := said{registry.Parts{Tags: []string{"team"}}, func(r *registry.Record) { r.Host.Tags.Other = tags("rack") }}
	anew := said{registry.Parts{Anew: true}, func(r *registry.Record) {
		r.Lease++
		r.Host.Tags = registry.Tags{Other: tags("slot")}
	}}
	whole := said{registry.Parts{Anew: true, Whole: true}, anew.as}
	again := said{registry.Parts{}, func(r *registry.Record) { r.Host.Revision = "r0" }}

	suite := map[string]func(t *testing.T, a, b registry.SharedStore){}
	for name, c := range map[string]struct {
		first, second said
		want          func(r *registry.Record)
		changes       int // of which the log tells
	}{
		"a revision, a weight":             {revision, weight, both(revision, weight), 2},
		"a weight, a revision":             {weight, revision, both(weight, revision), 2},
		"a revision, a new tag":            {revision, newTag, both(revision, newTag), 2},
		"a new tag, a weight":              {newTag, weight, both(newTag, weight), 2},
		"a tag that goes, a weight":        {noTag, weight, both(noTag, weight), 2},
		"a new tag, one that goes":         {newTag, noTag, func(r *registry.Record) { r.Host.Tags.Other = tags("rack", "slot") }, 2},
		"two weights: the later one holds": {weight, lighter, lighter.as, 2},
		"the same weight":                  {weight, weight, weight.as, 1},
		"a revision, the host given again": {revision, again, revision.as, 1},
		"a weight, the host anew": {weight, anew, func(r *registry.Record) {
			anew.as(r)
			r.Host.Tags.Weight, r.Host.Tags.Other = 7, tags("rack", "slot", "team")
		}, 2},
		"a weight, the host anew as a whole":        {weight, whole, whole.as, 2},
		"the host anew as a whole, a weight":        {whole, weight, both(whole, weight), 2},
		"the host anew as a whole, told once more":  {whole, whole, whole.as, 1},
		"the host anew as a whole, told with more":  {whole, said{weight.parts, both(whole, weight)}, both(whole, weight), 2},
		"the host anew as a whole, the first again": {whole, again, whole.as, 1},
	} {
		suite["two change a host: "+name] = func(t *testing.T, a, b registry.SharedStore) {
			put(t, a, known())
			views := []*View{Follow(t, a), Follow(t, b)}
			c.first.tell(t, a)
			c.second.tell(t, b)
			want := known()
			c.want(&want)
			require.Equal(t, want, load(t, b)[want.Host.Key])
			for i, view := range views {
				servicetest.Eventually(t, fmt.Sprintf("writer %d knows what is kept", i), func() bool {
					got := view.Hosts()[want.Host.Key]
					got.LastCheckIn = rounded(got.LastCheckIn)
					return i == 0 && c.changes == 1 || assert.ObjectsAreEqual(want, got)
				})
			}
			contents, err := b.Load(t.Context())
			require.NoError(t, err)
			require.Len(t, contents.Events, 1+c.changes, "each is told once")
		}
	}
	suite["a change of a host that is gone brings it back as a whole"] = func(t *testing.T, a, b registry.SharedStore) {
		put(t, a, known())
		require.Len(t, expire(t, a, registry.Beat{Key: known().Host.Key, At: known().LastCheckIn.Add(time.Second)}), 1)
		weight.tell(t, b)
		want := known()
		weight.as(&want)
		require.Equal(t, want, load(t, a)[want.Host.Key])
	}
	suite["two that change many hosts at once keep what both say of each"] = func(t *testing.T, a, b registry.SharedStore) {
		var hosts []registry.Record
		for i := range 500 {
			hosts = append(hosts, Record("users", fmt.Sprint(i), 1))
		}
		put(t, a, hosts...)
		var writers sync.WaitGroup
		write := func(s registry.Store, parts registry.Parts, as func(h *registry.Host, round int)) {
			// Ends by itself; the test waits below.
			writers.Go(func() {
				for round := range 4 { // so that some of the two are at once
					var changes []registry.Change
					for _, r := range hosts {
						h := *r.Host
						as(&h, round)
						r.Host = &h
						changes = append(changes, registry.Change{Key: h.Key, Record: &r, Parts: parts})
					}
					if err := s.Append(t.Context(), changes); err != nil {
						t.Error(err)
					}
				}
			})
		}
		write(a, registry.Parts{Description: true}, func(h *registry.Host, round int) { h.Revision = fmt.Sprint(round) })
		write(b, registry.Parts{Weight: true}, func(h *registry.Host, round int) { h.Tags.Weight = uint8(round + 1) })
		writers.Wait()
		for _, r := range load(t, a) {
			require.Equal(t, "3", r.Host.Revision)
			require.Equal(t, uint8(4), r.Host.Tags.Weight)
		}
	}
	return suite
}

// known is the host of concurrent.
func known() registry.Record {
	r := Record("users", "a", 1)
	r.Host.Revision, r.Host.Tags.Other = "r1", tags("rack", "team")
	return r
}

// both is what two things said are together.
func both(a, b said) func(r *registry.Record) {
	return func(r *registry.Record) {
		a.as(r)
		b.as(r)
	}
}

// tell tells a store of it.
func (s said) tell(t *testing.T, store registry.Store) {
	t.Helper()
	r := known()
	s.as(&r)
	change(t, store, r, s.parts)
}

// tags are other tags of these names.
func tags(names ...string) registry.TagList {
	list := map[string]json.RawMessage{}
	for _, name := range names {
		list[name] = json.RawMessage(`"yes"`)
	}
	return registry.TagListOf(list)
}
