package registry

import (
	"bytes"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestATagListIsWhatAMapWouldBe holds lists against maps, over tags drawn at random.
func TestATagListIsWhatAMapWouldBe(t *testing.T) {
	type tags = map[string]json.RawMessage
	draw := func() tags {
		m := tags{}
		for range rand.IntN(6) {
			m[strconv.Itoa(rand.IntN(8))] = json.RawMessage(strconv.Itoa(rand.IntN(3)))
		}
		return m
	}
	for range 2000 {
		older, newer := draw(), draw()
		a, b := TagListOf(older), TagListOf(newer)
		merged := maps.Clone(older)
		maps.Copy(merged, newer)
		require.Equal(t, TagListOf(merged), a.merge(b))
		require.Equal(t, TagListOf(older), a, "merging changes neither")
		require.Equal(t, TagListOf(newer), b)
		require.Equal(t, reflect.DeepEqual(older, merged), a.covers(b))
		var differing []string
		for _, name := range slices.Sorted(maps.Keys(merged)) {
			before, was := older[name]
			if after, is := newer[name]; was != is || !bytes.Equal(before, after) {
				differing = append(differing, name)
			}
		}
		require.Equal(t, differing, a.differing(b))
		for i := range 8 {
			want, is := older[strconv.Itoa(i)]
			got, ok := a.Get(strconv.Itoa(i))
			require.Equal(t, is, ok)
			require.Equal(t, want, got)
		}
	}
}
