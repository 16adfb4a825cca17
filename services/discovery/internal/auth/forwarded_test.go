package auth_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
)

func TestForwardedFor(t *testing.T) {
	for name, test := range map[string]struct {
		header []string
		remote string
		hops   int
		want   string // "" for none
	}{
		"no proxy, no header":             {nil, "10.0.0.1", 0, "10.0.0.1"},
		"no proxy, a header of strangers": {[]string{"10.9.9.9"}, "10.0.0.1", 0, "10.0.0.1"},
		"IPv4 in IPv6":                    {nil, "::ffff:10.0.0.1", 0, "10.0.0.1"},
		"a zone":                          {nil, "fe80::1%eth0", 0, "fe80::1"},
		"one proxy":                       {[]string{"10.0.0.2"}, "10.0.0.1", 1, "10.0.0.2"},
		"one proxy: the last holds":       {[]string{"10.0.0.3, 10.0.0.2"}, "10.0.0.1", 1, "10.0.0.2"},
		"two proxies":                     {[]string{"10.0.0.4,10.0.0.3,  10.0.0.2"}, "10.0.0.1", 2, "10.0.0.3"},
		"lines follow each other":         {[]string{"10.0.0.4", "10.0.0.3", "10.0.0.2"}, "10.0.0.1", 2, "10.0.0.3"},
		"lines of several":                {[]string{"10.0.0.5,10.0.0.4", "10.0.0.3,10.0.0.2"}, "10.0.0.1", 3, "10.0.0.4"},
		"too few":                         {[]string{"10.0.0.2"}, "10.0.0.1", 2, ""},
		"no header behind a proxy":        {nil, "10.0.0.1", 1, ""},
		"an empty header":                 {[]string{""}, "10.0.0.1", 1, ""},
		"no address":                      {[]string{"unknown"}, "10.0.0.1", 1, ""},
		"no address further in":           {[]string{"unknown, 10.0.0.2"}, "10.0.0.1", 1, "10.0.0.2"},
		"with a port":                     {[]string{"10.0.0.2:1234"}, "10.0.0.1", 1, "10.0.0.2"},
		"IPv6":                            {[]string{"fd00::2"}, "10.0.0.1", 1, "fd00::2"},
		"IPv6 with a port":                {[]string{"[fd00::2]:1234"}, "10.0.0.1", 1, "fd00::2"},
		"IPv4 in IPv6, forwarded":         {[]string{"::ffff:10.0.0.2"}, "10.0.0.1", 1, "10.0.0.2"},
	} {
		t.Run(name, func(t *testing.T) {
			var want netip.Addr
			if test.want != "" {
				want = netip.MustParseAddr(test.want)
			}
			require.Equal(t, want, auth.ForwardedFor(test.header, netip.MustParseAddr(test.remote), test.hops))
		})
	}
}

// What strangers write before the proxies' own elements changes nothing.
func FuzzForwardedFor(f *testing.F) {
	for _, seed := range []string{"", "10.0.0.1", "a,b", ",,,", "[::1]:80, ::1", "::ffff:1.2.3.4%x"} {
		f.Add(seed, 1)
		f.Add(seed, 3)
	}
	f.Fuzz(func(t *testing.T, strangers string, hops int) {
		remote := netip.MustParseAddr("10.0.0.1")
		got := auth.ForwardedFor([]string{strangers}, remote, hops)
		require.Equal(t, got.Unmap().WithZone(""), got)
		require.Equal(t, got, auth.ForwardedFor(strings.Split(strangers, ","), remote, hops), "lines are as good as commas")
		require.Equal(t, "10.0.0.3", auth.ForwardedFor([]string{strangers, "10.0.0.3", "10.0.0.2"}, remote, 2).String())
		require.Equal(t, "10.0.0.3", auth.ForwardedFor([]string{strangers + ", 10.0.0.3, 10.0.0.2"}, remote, 2).String())
	})
}
