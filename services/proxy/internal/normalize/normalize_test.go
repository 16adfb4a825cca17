package normalize_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/normalize"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

var rfc = normalize.Paths{Normalize: true}

func TestPath(t *testing.T) {
	merge := normalize.Paths{MergeSlashes: true}
	forward := normalize.Paths{EscapedSlashes: normalize.UnescapeAndForward}
	all := normalize.Paths{EscapedSlashes: normalize.UnescapeAndForward, Normalize: true, MergeSlashes: true}
	for _, c := range []struct {
		name  string
		paths normalize.Paths
		path  string
		want  string
	}{
		{"nothing is wanted", normalize.Paths{}, `/a/../%2e//\b%2F`, `/a/../%2e//\b%2F`},
		{"nothing is there to do", rfc, "/a/b.c/d..e/~f?x=/../y", "/a/b.c/d..e/~f?x=/../y"},
		{"a path that is none", rfc, "*", "*"},
		{"dot segments", rfc, "/a/./b/../c", "/a/c"},
		{"dot segments at the end", rfc, "/a/b/..", "/a/"},
		{"a dot at the end", rfc, "/a/.", "/a/"},
		{"more steps up than there are", rfc, "/../../a/../../b", "/b"},
		{"nothing is left", rfc, "/a/..", "/"},
		{"escaped dots", rfc, "/a/%2e%2E/b/%2e/c", "/b/c"},
		{"dots with parameters", rfc, "/a/..;/b/.;x=1/c/..;d", "/b/"},
		{"dots with parameters, escaped", rfc, "/a/%2e%2e;p/b", "/b"},
		{"an escaped semicolon begins none", rfc, "/a/..%3b/b", "/a/..%3b/b"},
		{"parameters of names stay", rfc, "/a;x/b/../c;y=.;/...;/x..;", "/a;x/c;y=.;/...;/x..;"},
		{"three dots are a name", rfc, "/a/.../b/.c", "/a/.../b/.c"},
		{"empty segments stay, and are steps", rfc, "/a//../b//", "/a/b//"},
		{"what needs no escape", rfc, "/%61%5F%7e%2D", "/a_~-"},
		{"an escape keeps its spelling", rfc, "/%c3%A4%3f%23%20", "/%c3%A4%3f%23%20"},
		{"an escaped slash is none", rfc, "/a%2F..%2fb", "/a%2F..%2fb"},
		{"an escaped percent sign is left alone", rfc, "/%252e%252e", "/%252e%252e"},
		{"what needs an escape", rfc, `/a|b"c`, "/a%7Cb%22c"},
		{"a backslash is a slash", rfc, `/a\..\b`, "/b"},
		{"escapes that are none", rfc, "/%zz%/%2", "/%zz%/%2"},
		{"escapes that are none until others are decoded", rfc, "/%%32e/%2%65/%%32%65/%%%34%31", "/%252e/%252e/%252e/%%2541"},
		{"and such as stay none", rfc, "/%%32/%%2e", "/%2/%."},
		{"the query is left alone", rfc, "/a/../b?c=/../%2e\\|", "/b?c=/../%2e\\|"},
		{"slashes are merged", merge, "//a///b//?c=//", "/a/b/?c=//"},
		{"slashes that are escaped are not", merge, "/a%2F/b", "/a%2F/b"},
		{"escaped slashes", forward, "/a%2Fb%2fc%5Cd%5ce?f=%2F", `/a/b/c\d\e?f=%2F`},
		{"all in turn", all, "/a%2F..%2F%2Fb%5c..//c", "/c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := strings.Clone(c.path)
			got, outcome := c.paths.Path([]byte(c.path))
			require.Equal(t, normalize.Forward, outcome)
			require.Equal(t, c.want, string(got))
			require.Equal(t, before, c.path)
		})
	}
}

func TestPathThatDoesNotGoOn(t *testing.T) {
	_, outcome := rfc.Path([]byte("/a%00b"))
	require.Equal(t, normalize.Refuse, outcome)
	reject := normalize.Paths{EscapedSlashes: normalize.Reject}
	_, outcome = reject.Path([]byte("/a%2fb"))
	require.Equal(t, normalize.Refuse, outcome)
	_, outcome = reject.Path([]byte("/a?b=%2f"))
	require.Equal(t, normalize.Forward, outcome)
	redirect := normalize.Paths{EscapedSlashes: normalize.UnescapeAndRedirect}
	path, outcome := redirect.Path([]byte("/a%2fb?c=%2f"))
	require.Equal(t, normalize.Redirect, outcome)
	require.Equal(t, "/a/b?c=%2f", string(path))
	path, outcome = redirect.Path([]byte("/a/b"))
	require.Equal(t, normalize.Forward, outcome)
	require.Equal(t, "/a/b", string(path))
}

func TestHost(t *testing.T) {
	for _, c := range []struct {
		hosts      normalize.Hosts
		host, want string
	}{
		{normalize.Hosts{}, "a.:80", "a.:80"},
		{normalize.Hosts{StripAnyPort: true}, "a:80", "a"},
		{normalize.Hosts{StripAnyPort: true}, "a", "a"},
		{normalize.Hosts{StripAnyPort: true}, "[::1]:80", "[::1]"},
		{normalize.Hosts{StripAnyPort: true}, "[::1]", "[::1]"},
		{normalize.Hosts{StripPort: 80}, "a:80", "a"},
		{normalize.Hosts{StripPort: 80}, "a:8080", "a:8080"},
		{normalize.Hosts{StripPort: 80}, "a:", "a:"},
		{normalize.Hosts{StripDot: true}, "a.b.", "a.b"},
		{normalize.Hosts{StripDot: true}, "a.b.:80", "a.b:80"},
		{normalize.Hosts{StripDot: true}, ".", "."},
		{normalize.Hosts{StripDot: true, StripAnyPort: true}, "a.b.:80", "a.b"},
	} {
		host := []byte(c.host)
		require.Equal(t, c.want, string(c.hosts.Host(host)), "%+v %s", c.hosts, c.host)
		require.Equal(t, c.host, string(host), "the old one is left alone")
	}
}

func TestNormalPathsAllocateNothing(t *testing.T) {
	path, host := []byte("/some/path.html?with=query"), []byte("a.example:80")
	paths := normalize.Paths{EscapedSlashes: normalize.Reject, Normalize: true, MergeSlashes: true}
	servicetest.Allocations(t, 0, func() {
		paths.Path(path)
		normalize.Hosts{StripAnyPort: true, StripDot: true}.Host(host)
	})
}

// FuzzPath holds what comes out to what a route and a server may rely on: there
// is nothing left to do, and the query is as it was.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"/", "/a/../b", "/%2e%2e/%00", `/\..\%5c`, "//%2F/.?/..", "/%zz%", "*", "", "/\x00", "/%%32%65", "/a/..;/%2e;b"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, path []byte) {
		all := normalize.Paths{EscapedSlashes: normalize.UnescapeAndForward, Normalize: true, MergeSlashes: true}
		got, outcome := all.Path(path)
		if outcome == normalize.Refuse {
			return
		}
		_, query, _ := strings.Cut(string(path), "?")
		plain, gotQuery, _ := strings.Cut(string(got), "?")
		require.Equal(t, query, gotQuery)
		if !strings.HasPrefix(string(path), "/") {
			require.Equal(t, string(path), string(got))
			return
		}
		require.True(t, strings.HasPrefix(plain, "/"), plain)
		require.NotContains(t, plain, "//")
		for _, segment := range strings.Split(plain, "/") {
			name, _, _ := strings.Cut(segment, ";")
			require.NotContains(t, []string{".", ".."}, name, plain)
		}
		again, outcome := normalize.Paths{Normalize: true, MergeSlashes: true}.Path(got)
		require.Equal(t, normalize.Forward, outcome)
		require.Equal(t, string(got), string(again), "once is enough")
	})
}
