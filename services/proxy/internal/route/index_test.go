package route_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/route"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// table makes a table of one virtual host for all domains. The cluster of each
// route is its number.
func table(t testing.TB, matches []*routev3.RouteMatch) *route.Table {
	t.Helper()
	host := &routev3.VirtualHost{Name: "all", Domains: []string{"*"}}
	for i, m := range matches {
		host.Routes = append(host.Routes, &routev3.Route{Match: m, Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: fmt.Sprint(i)},
		}}})
	}
	report := &strict.Report{}
	made := route.Parse(&routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{host}}, "", report)
	require.NoError(t, report.Err())
	return made
}

// chance makes random matches and paths of few letters, so that they often meet.
type chance struct{ *rand.Rand }

func (c chance) path(most int) string {
	var path strings.Builder
	for range c.IntN(most + 1) {
		path.WriteByte("/aAb"[c.IntN(4)])
	}
	return path.String()
}

func (c chance) match() *routev3.RouteMatch {
	m := &routev3.RouteMatch{}
	switch text := c.path(6); c.IntN(8) {
	case 0, 1, 2, 3:
		m.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: text}
	case 4, 5:
		m.PathSpecifier = &routev3.RouteMatch_Path{Path: text}
	case 6:
		m.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: text}
	default:
		m.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: text + ".*"}}
	}
	if c.IntN(3) == 0 {
		m.CaseSensitive = wrapperspb.Bool(false)
	}
	if c.IntN(2) == 0 {
		m.Headers = []*routev3.HeaderMatcher{{Name: "x-" + string("abc"[c.IntN(3)])}}
	}
	return m
}

// holdEqual holds what Match finds to what the plain list has.
func holdEqual(t *testing.T, made *route.Table, in route.Input) {
	t.Helper()
	listed, matched := made.MatchByList(in), made.Match(in)
	if listed != matched {
		t.Fatalf("%s with %d fields: the list has %v, the index %v", in.Request.Path, in.Request.Headers.Len(), listed, matched)
	}
}

// TestIndexFindsWhatTheListDoes holds the index equal to the plain list, on
// random tables and paths.
func TestIndexFindsWhatTheListDoes(t *testing.T) {
	for seed := range uint64(200) {
		c := chance{rand.New(rand.NewPCG(seed, 0))}
		var matches []*routev3.RouteMatch
		for range 9 + c.IntN(120) {
			matches = append(matches, c.match())
		}
		made := table(t, matches)
		for range 100 {
			var fields []string
			for _, name := range []string{"x-a", "x-b", "x-c"} {
				if c.IntN(3) == 0 {
					fields = append(fields, name, "1")
				}
			}
			holdEqual(t, made, request("h", c.path(8)+[]string{"", "?q", "?/a"}[c.IntN(3)], fields...))
		}
	}
}

// TestDeepIndex has more nested prefixes with conditions than the index looks
// through, and than it repeats.
func TestDeepIndex(t *testing.T) {
	for _, reversed := range []bool{false, true} {
		var matches []*routev3.RouteMatch
		for i := range 300 {
			length := i % 150
			if reversed {
				length = 149 - length
			}
			matches = append(matches, &routev3.RouteMatch{
				PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: strings.Repeat("a", length)},
				Headers:       []*routev3.HeaderMatcher{{Name: fmt.Sprintf("x-%d", i)}},
			})
		}
		made := table(t, matches)
		for i := range 300 {
			for _, length := range []int{0, 1, 20, 149, 200} {
				holdEqual(t, made, request("h", "/"+strings.Repeat("a", length), fmt.Sprintf("x-%d", i), ""))
				holdEqual(t, made, request("h", strings.Repeat("a", length)+"b", fmt.Sprintf("x-%d", i), ""))
			}
		}
	}
}

func TestWalkFindsWhatMatchDoes(t *testing.T) {
	for seed := range uint64(10) {
		c := chance{rand.New(rand.NewPCG(seed, 2))}
		var matches []*routev3.RouteMatch
		for range 30 {
			matches = append(matches, c.match())
		}
		made := table(t, matches)
		for range 30 {
			in := request("h", "/"+c.path(6), "x-b", "1")
			walk := made.Walk(in)
			require.Same(t, made.Match(in), walk.Route)
			for i, step := range walk.Steps {
				last := walk.Route != nil && i == len(walk.Steps)-1
				require.Equal(t, last, step.Unmet == "", "only the last step is one that matches")
			}
		}
	}
}

func FuzzMatch(f *testing.F) {
	for seed, path := range []string{"/", "/a/b?c", "*", "aAb//", "/aA/\xff"} {
		f.Add(uint64(seed), "h", path)
	}
	f.Fuzz(func(t *testing.T, seed uint64, authority, path string) {
		c := chance{rand.New(rand.NewPCG(seed, 1))}
		var matches []*routev3.RouteMatch
		for range 40 {
			matches = append(matches, c.match())
		}
		holdEqual(t, table(t, matches), request(authority, path, "x-a", "1"))
	})
}

// prefixes are routes as a gateway to many services has them, and the path of
// the last.
func prefixes(count int) (matches []*routev3.RouteMatch, last string) {
	for i := range count {
		last = fmt.Sprintf("/api/v1/service-%d/", i)
		matches = append(matches, &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: last}})
	}
	return matches, last + "users/7"
}

func TestMatchOfManyAllocatesNothing(t *testing.T) {
	matches, path := prefixes(1000)
	matches[500].CaseSensitive = wrapperspb.Bool(false)
	made, in := table(t, matches), request("h", path)
	servicetest.Allocations(t, 0, func() {
		if made.Match(in) == nil {
			t.Fatal("no route")
		}
	})
}

func BenchmarkMatchPrefixes(b *testing.B) {
	for _, count := range []int{1, 8, 9, 100, 1000, 10_000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			matches, path := prefixes(count)
			made, in := table(b, matches), request("h", path)
			b.ReportAllocs()
			for b.Loop() {
				made.Match(in)
			}
		})
	}
	b.Run("1000 by the list", func(b *testing.B) {
		matches, path := prefixes(1000)
		made, in := table(b, matches), request("h", path)
		for b.Loop() {
			made.MatchByList(in)
		}
	})
}
