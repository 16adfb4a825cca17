package hashpolicy_test

import (
	"math/bits"
	"net/netip"
	"testing"

	"github.com/cespare/xxhash/v2"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/hashpolicy"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// parse makes a list of hash policies in JSON.
func parse(t testing.TB, policies ...string) hashpolicy.List {
	t.Helper()
	var list []*routev3.RouteAction_HashPolicy
	for _, text := range policies {
		m := &routev3.RouteAction_HashPolicy{}
		require.NoError(t, protojson.Unmarshal([]byte(text), m))
		list = append(list, m)
	}
	report := &strict.Report{}
	l := hashpolicy.Parse(list, "", report)
	require.NoError(t, report.Err())
	return l
}

// input is a request with header fields.
func input(fields ...string) hashpolicy.Input {
	r := &message.Request{Method: []byte("GET"), Authority: []byte("a.example"), Path: []byte("/p?q=1&r=%20&q=2")}
	for i := 0; i < len(fields); i += 2 {
		r.Headers.Add(fields[i], fields[i+1])
	}
	return hashpolicy.Input{Request: r, ClientAddress: netip.MustParseAddr("192.0.2.1"), Random: 0xabc}
}

// seeded is the hash of a text on top of another's.
func seeded(seed uint64, text string) uint64 {
	d := xxhash.NewWithSeed(seed)
	_, _ = d.WriteString(text)
	return d.Sum64()
}

const (
	byUser     = `{"header": {"header_name": "X-User"}}`
	byCookie   = `{"cookie": {"name": "c"}}`
	byTTL      = `{"cookie": {"name": "c", "ttl": "60s", "path": "/p", "attributes": [{"name": "Secure"}, {"name": "SameSite", "value": "Lax"}]}}`
	bySession  = `{"cookie": {"name": "c", "ttl": "0s"}}`
	bySourceIP = `{"connection_properties": {"source_ip": true}}`
	byQuery    = `{"query_parameter": {"name": "q"}}`
	byRaw      = `{"query_parameter": {"name": "r"}}`
)

func TestHash(t *testing.T) {
	ann, one, address := xxhash.Sum64String("ann"), xxhash.Sum64String("1"), xxhash.Sum64String("192.0.2.1")
	generated := xxhash.Sum64String("abc")
	both := func(first, second uint64) uint64 { return bits.RotateLeft64(first, 1) ^ second }
	for _, c := range []struct {
		name     string
		policies []string
		in       hashpolicy.Input
		want     uint64 // 0 for none
		cookies  []string
	}{
		{"no policy", nil, input(), 0, nil},
		{"a header", []string{byUser}, input("x-user", "ann"), ann, nil},
		{"no such header", []string{byUser}, input(), 0, nil},
		{"an empty header", []string{byUser}, input("x-user", ""), xxhash.Sum64String(""), nil},
		{"two values", []string{byUser}, input("x-user", "ann", "x-user", "bob"), seeded(ann, "bob"), nil},
		{"in the other order", []string{byUser}, input("x-user", "bob", "x-user", "ann"), seeded(ann, "bob"), nil},
		{"a part of a header", []string{`{"header": {"header_name": "x-user", "regex_rewrite": {"pattern": {"regex": "@.*"}, "substitution": ""}}}`},
			input("x-user", "ann@a.example"), ann, nil},
		{"a pseudo header", []string{`{"header": {"header_name": ":method"}}`}, input(), xxhash.Sum64String("GET"), nil},
		{"a cookie", []string{byCookie}, input("cookie", "b=2; c=ann; c=bob"), ann, nil},
		{"a cookie in quotes", []string{byCookie}, input("cookie", "b=2", "cookie", `cc=1;c="ann"`), ann, nil},
		{"no cookie", []string{byCookie}, input("cookie", "b=2"), 0, nil},
		{"an empty cookie", []string{byCookie}, input("cookie", "c="), 0, nil},
		{"a cookie that is made", []string{byTTL}, input(), generated, []string{`c="abc"; Max-Age=60; Path=/p; Secure; SameSite=Lax; HttpOnly`}},
		{"a cookie that need not be made", []string{byTTL}, input("cookie", "c=ann"), ann, nil},
		{"a cookie of a session", []string{bySession}, input(), generated, []string{`c="abc"; HttpOnly`}},
		{"the client's address", []string{bySourceIP}, input(), address, nil},
		{"no address", []string{bySourceIP}, hashpolicy.Input{Request: &message.Request{}}, 0, nil},
		{"an address that is not asked for", []string{`{"connection_properties": {}}`}, input(), 0, nil},
		{"the first query parameter", []string{byQuery}, input(), one, nil},
		{"as it is written", []string{byRaw}, input(), xxhash.Sum64String("%20"), nil},
		{"no query parameter", []string{`{"query_parameter": {"name": "x"}}`}, input(), 0, nil},
		{"several", []string{byUser, byQuery}, input("x-user", "ann"), both(ann, one), nil},
		{"twice the same", []string{byUser, byUser}, input("x-user", "ann"), both(ann, ann), nil},
		{"those that find something", []string{byCookie, byUser, byCookie}, input("x-user", "ann"), ann, nil},
		{"a terminal one", []string{`{"header": {"header_name": "x-user"}, "terminal": true}`, byQuery}, input("x-user", "ann"), ann, nil},
		{"a terminal one that finds nothing", []string{`{"header": {"header_name": "x-user"}, "terminal": true}`, byQuery}, input(), one, nil},
		{"a terminal one after one that found something", []string{byQuery, `{"header": {"header_name": "x-user"}, "terminal": true}`, bySourceIP}, input(), one, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			hash, ok, cookies := parse(t, c.policies...).Hash(c.in)
			require.Equal(t, c.want != 0, ok)
			require.Equal(t, c.want, hash)
			require.Equal(t, c.cookies, cookies)
		})
	}
}

// TestIPv4InIPv6 holds that both forms of an address are the same client.
func TestIPv4InIPv6(t *testing.T) {
	list, in := parse(t, bySourceIP), input()
	want, _, _ := list.Hash(in)
	in.ClientAddress = netip.MustParseAddr("::ffff:192.0.2.1")
	got, _, _ := list.Hash(in)
	require.Equal(t, want, got)
}

func TestWords(t *testing.T) {
	list := parse(t, byUser, `{"cookie": {"name": "c"}, "terminal": true}`, bySourceIP, byQuery)
	require.Equal(t, "header x-user, cookie c (terminal), source_ip, query parameter q", list.String())
	require.False(t, list.Empty())
	require.True(t, hashpolicy.List{}.Empty())
}

func TestNegativeTTLIsAFault(t *testing.T) {
	m := &routev3.RouteAction_HashPolicy{}
	require.NoError(t, protojson.Unmarshal([]byte(`{"cookie": {"name": "c", "ttl": "-1s"}}`), m))
	report := &strict.Report{}
	hashpolicy.Parse([]*routev3.RouteAction_HashPolicy{m}, "hash_policy", report)
	require.EqualError(t, report.Err(), "hash_policy[0].cookie.ttl: -1s is negative")
}

func TestHashingAllocatesNothing(t *testing.T) {
	list := parse(t, byUser, byCookie, bySourceIP, byQuery)
	in := input("x-user", "ann", "x-user", "bob", "cookie", "a=1; c=2")
	servicetest.Allocations(t, 0, func() { list.Hash(in) })
}

func BenchmarkHash(b *testing.B) {
	list := parse(b, byUser, byCookie, bySourceIP, byQuery)
	in := input("x-user", "ann", "cookie", "a=1; c=2")
	b.ReportAllocs()
	for b.Loop() {
		list.Hash(in)
	}
}
