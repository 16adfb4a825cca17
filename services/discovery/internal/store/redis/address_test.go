package redis

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/store/record"
	"github.com/weirproxy/weir/services/discovery/internal/store/storetest"
)

func TestAURLSaysWhereRedisIs(t *testing.T) {
	for url, want := range map[string]place{
		"redis://h":                     {kind: single, addresses: []string{"h:6379"}},
		"redis://h:1/":                  {kind: single, addresses: []string{"h:1"}},
		"redis://u:p%40w@[::1]:1/3":     {kind: single, addresses: []string{"[::1]:1"}, db: 3, username: "u", password: "p@w"},
		"redis://:p@[::1]":              {kind: single, addresses: []string{"[::1]:6379"}, password: "p"},
		"redis://h?prefix=eu%3A":        {kind: single, addresses: []string{"h:6379"}, prefix: "eu:"},
		"redis+sentinel://a,b:2/main":   {kind: sentinel, addresses: []string{"a:26379", "b:2"}, master: "main"},
		"redis+sentinel://u:p@a/main/2": {kind: sentinel, addresses: []string{"a:26379"}, master: "main", db: 2, username: "u", password: "p"},
		"redis+sentinel://a/main?sentinel_username=s&sentinel_password=q": {
			kind: sentinel, addresses: []string{"a:26379"}, master: "main", sentinelUsername: "s", sentinelPassword: "q",
		},
		"redis+cluster://u:p@a:1,b:2/": {kind: cluster, addresses: []string{"a:1", "b:2"}, username: "u", password: "p"},
	} {
		if want.prefix == "" {
			want.prefix = "sd:"
		}
		got, err := parse(url)
		require.NoError(t, err, url)
		require.Equal(t, want, *got, url)
	}
	for _, scheme := range []string{"rediss://h", "rediss+sentinel://h/main", "rediss+cluster://h"} {
		got, err := parse(scheme)
		require.NoError(t, err)
		require.NotNil(t, got.tls, scheme)
	}
}

func TestAURLThatSaysNothingOfUseIsRefused(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for url, reason := range map[string]string{
		"redis:":                      "not of the form redis://",
		"redis://":                    "not of the form",
		"http://h":                    "not of the form",
		"redis://h:port":              "not of the form",
		"redis://:1":                  "not host:port",
		"redis://h:0":                 "not host:port",
		"redis://h:70000":             "not host:port",
		"redis://a:1,b:2":             "2 hosts: with several the scheme is redis+sentinel or redis+cluster",
		"redis://h/x":                 "the database is not a number",
		"redis://h/-1":                "the database is not a number",
		"redis://h/1/2":               "too many parts",
		"redis+sentinel://h":          "the name of the master is missing",
		"redis+sentinel://h/":         "the name of the master is missing",
		"redis+cluster://h/1":         "a Cluster has no databases",
		"redis://h?shoe=42":           "none of prefix, cacert",
		"redis://h?prefix=a&prefix=b": "twice",
		"redis://h?prefix=%7Ba":       "braces",
		"redis://h?%zz":               "its parameters are not those of a URL",
		"redis://h?cacert=/f":         "are for TLS",
		"rediss://h?cert=/f":          "cert and key: one is there without the other",
		"rediss://h?cacert=" + none:   none,
		"rediss://h?cacert=" + empty:  "holds no certificate",
		"rediss://h?cert=" + none + "&key=" + none: "cert " + none,
	} {
		_, err := parse(url)
		require.ErrorContains(t, err, reason, url)
	}
}

func TestWhatIsShownOfAPlaceHoldsNoPassword(t *testing.T) {
	for url, want := range map[string]string{
		"redis://user:secret@h": "h:6379",
		"redis+sentinel://user:secret@h/main?sentinel_password=secret": "main,h:26379",
		"redis+cluster://user:secret@a,b":                              "a:6379,b:6379",
	} {
		p, err := parse(url)
		require.NoError(t, err)
		require.Equal(t, want, p.String())
	}
}

// FuzzParse holds that what is taken for a URL of Redis says where that is.
func FuzzParse(f *testing.F) {
	f.Add("redis://user:secret@host:1/2?prefix=x")
	f.Add("rediss+sentinel://:secret@a,b:1/main/0")
	f.Add("redis+cluster://[::1]:1,b")
	f.Fuzz(func(t *testing.T, url string) {
		if p, err := parse(url); err == nil {
			require.NotEmpty(t, p.addresses)
		}
	})
}

// The places of services must never change: another version would look elsewhere.
func TestServicesStayInTheirPartition(t *testing.T) {
	for service, want := range map[string]int{"": 197, "users": 244, "orders": 22} {
		require.Equal(t, want, partitionOf(service), service)
	}
	var filled [partitionCount]int
	for i := range 10_000 {
		filled[partitionOf(fmt.Sprint("service-", i))]++
	}
	for p, n := range filled {
		require.Greater(t, n, 10, "partition %d has its share of 39", p)
	}
}

func TestMembersNameHostsAndSettings(t *testing.T) {
	for _, k := range []registry.Key{{Service: "users", ID: "a"}, {Service: "a/b:c", ID: "1:x/y"}, {Service: "s"}, {Service: "ü", ID: "\x00"}} {
		got, err := parseHostMember(hostMember(k))
		require.NoError(t, err)
		require.Equal(t, k, got)
	}
	for _, k := range []registry.SettingKey{
		{Kind: registry.Drain, Scope: registry.Scope{Service: "a,\"b", ID: "c"}},
		{Kind: registry.Weigh, Scope: registry.Scope{Zone: "eu-1"}},
	} {
		got, err := parseSettingMember(settingMember(k))
		require.NoError(t, err)
		require.Equal(t, k, got)
	}
	for _, text := range []string{"", "x", "5:", "5:user", "-1:x", "9:users/a", "99999999999999999999:x"} {
		_, err := parseHostMember(text)
		require.ErrorContains(t, err, "does not name a host", text)
		_, err = parseSettingMember(text)
		require.ErrorContains(t, err, "does not name a setting", text)
	}
}

// FuzzEntry holds that whatever stands in a log is taken or refused, and what is
// taken is of the host or setting that it names.
func FuzzEntry(f *testing.F) {
	r := storetest.Record("users", "a", 1)
	text, err := record.EncodeHost(&r)
	require.NoError(f, err)
	member := hostMember(r.Host.Key)
	f.Add("1-1", hostPut, member, value(member, r.Lease, text), "0000000000000001", "", "1")
	f.Add("1-1", hostRemoved, member, "", "0000000000000001", `{"kind":"expired"}`, "0")
	f.Add("1-1", settingEnded, `["drain","users","",""]`, "", "", "", "")
	f.Fuzz(func(t *testing.T, id, kind, member, value, lease, event, at string) {
		fields := map[string]any{"k": kind, "m": member, "v": value, "l": lease, "e": event, "a": at}
		s := &Store{place: &place{}, options: Options{Log: discard}}
		s.partitions[0].clock.Store(&clock{})
		for _, c := range s.take(0, []goredis.XMessage{{ID: id, Values: fields}}) {
			if c.Record != nil {
				require.Equal(t, c.Key, c.Record.Host.Key)
			}
		}
	})
}
