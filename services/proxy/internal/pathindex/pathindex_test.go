package pathindex_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/pathindex"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// candidates are the numbers that an index gives for a path.
func candidates(t testing.TB, x *pathindex.Index, path string) []int {
	t.Helper()
	var c pathindex.Candidates
	if !x.Find([]byte(path), &c) {
		return nil
	}
	numbers := []int{}
	for i := c.Next(); i >= 0; i = c.Next() {
		numbers = append(numbers, i)
	}
	return numbers
}

func TestFind(t *testing.T) {
	x := pathindex.New([]pathindex.Pattern{
		0: {Kind: pathindex.Regex},
		1: {Kind: pathindex.Prefix, Text: "/api/v1/"},
		2: {Kind: pathindex.Whole, Text: "/api"},
		3: {Kind: pathindex.Segments, Text: "/api"},
		4: {Kind: pathindex.Prefix, Text: "/ap", Final: true},
		5: {Kind: pathindex.Prefix, Text: "/api", Fold: true},
		6: {Kind: pathindex.Prefix, Text: "/", Final: true},
		7: {Kind: pathindex.Prefix, Text: "/api/v1/a"}, // behind final ones
	})
	for path, want := range map[string][]int{
		"/":         {0, 6},
		"/ap":       {0, 4},
		"/api":      {0, 2, 3, 4, 5},
		"/API":      {0, 5, 6},
		"/apix":     {0, 4, 5},
		"/api/":     {0, 3, 4, 5},
		"/api/v1/a": {0, 1, 3, 4, 5},
		"/api/v1":   {0, 3, 4, 5},
		"":          {0},
		"*":         {0},
	} {
		require.Equal(t, want, candidates(t, x, path), path)
	}
	require.Empty(t, candidates(t, pathindex.New(nil), "/"))
}

// matches says whether a path matches a pattern of which that is known.
func matches(p pathindex.Pattern, path string) bool {
	if p.Fold {
		path = strings.ToLower(path)
	}
	rest, ok := strings.CutPrefix(path, p.Text)
	switch p.Kind {
	case pathindex.Whole:
		return ok && rest == ""
	case pathindex.Segments:
		return ok && (rest == "" || rest[0] == '/')
	}
	return ok
}

// TestFindNamesWhatMatches holds what is found for random paths to the whole
// list: all that matches up to the first final one is among it, in order.
func TestFindNamesWhatMatches(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 0))
		text := func(most int) string {
			var b strings.Builder
			for range r.IntN(most + 1) {
				b.WriteByte("/aAb"[r.IntN(4)])
			}
			return b.String()
		}
		var list []pathindex.Pattern
		for range r.IntN(150) {
			p := pathindex.Pattern{Kind: pathindex.Kind(r.IntN(4)), Text: text(6), Fold: r.IntN(3) == 0, Final: r.IntN(4) == 0}
			if p.Fold {
				p.Text = strings.ToLower(p.Text)
			}
			list = append(list, p)
		}
		x := pathindex.New(list)
		for range 50 {
			path := text(8)
			found := candidates(t, x, path)
			if found == nil { // too scattered
				continue
			}
			require.IsIncreasing(t, append([]int{-2, -1}, found...))
			named := map[int]bool{}
			for _, i := range found {
				named[i] = true
				require.True(t, list[i].Kind == pathindex.Regex || matches(list[i], path), "%q does not match %v", path, list[i])
			}
			for i, p := range list {
				if p.Kind != pathindex.Regex && !matches(p, path) {
					continue
				}
				require.True(t, named[i], "%q matches %v, which is %d of %v", path, p, i, found)
				if p.Final && p.Kind != pathindex.Regex {
					break
				}
			}
		}
	}
}

func BenchmarkFind(b *testing.B) {
	for _, count := range []int{10, 1000, 100_000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			var list []pathindex.Pattern
			path := ""
			for i := range count {
				path = fmt.Sprintf("/api/v1/service-%d/", i)
				list = append(list, pathindex.Pattern{Kind: pathindex.Prefix, Text: path, Final: true})
			}
			x, long := pathindex.New(list), []byte(path+"users/7")
			b.ReportAllocs()
			for b.Loop() {
				var c pathindex.Candidates
				x.Find(long, &c)
			}
		})
	}
}
