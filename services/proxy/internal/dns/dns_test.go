package dns_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/dns"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// resolver answers by what it is asked, "ip4 name".
type resolver func(question string) ([]string, error)

// LookupNetIP implements dns.Resolver.
func (r resolver) LookupNetIP(_ context.Context, network, name string) ([]netip.Addr, error) {
	texts, err := r(network + " " + name)
	var list []netip.Addr
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list, err
}

var errNotFound = &net.DNSError{Err: "no such host", IsNotFound: true}

// configured reads a cluster's fields for DNS.
func configured(t *testing.T, fields string) *dns.Config {
	t.Helper()
	c := &clusterv3.Cluster{}
	require.NoError(t, protojson.Unmarshal([]byte("{"+fields+"}"), c))
	report := &strict.Report{}
	config := dns.Parse(dns.OfCluster(c), "", report)
	require.NoError(t, report.Err())
	return config
}

// answer is one call of Follow's function, after a time from the start.
type answer struct {
	after     time.Duration
	addresses []netip.Addr
	err       error
}

// follow runs Follow for a time and returns what it told.
func follow(t *testing.T, c *dns.Config, r resolver, name string, during time.Duration) (answers []answer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), during)
	defer cancel()
	start := time.Now()
	c.Follow(ctx, r, name, func(addresses []netip.Addr, err error) {
		answers = append(answers, answer{time.Since(start), addresses, err})
	})
	return answers
}

func TestAnswersComeAtTheirRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := func(string) ([]string, error) { return []string{"10.0.0.1"}, nil }
		for _, a := range follow(t, configured(t, `"dns_refresh_rate": "2s"`), one, "x", 9*time.Second) {
			require.Zero(t, a.after%(2*time.Second), a.after)
		}
		require.Len(t, follow(t, configured(t, ""), one, "x", 19*time.Second), 4, "every 5 s unless set")
		last := time.Duration(0)
		for _, a := range follow(t, configured(t, `"dns_refresh_rate": "2s", "dns_jitter": "1s"`), one, "x", time.Minute)[1:] {
			require.GreaterOrEqual(t, a.after-last, 2*time.Second)
			require.Less(t, a.after-last, 3*time.Second)
			last = a.after
		}
		lookups := 0
		follow(t, configured(t, `"dns_refresh_rate": "315576000000s", "dns_jitter": "1s"`), func(name string) ([]string, error) {
			lookups++
			require.Equal(t, 1, lookups, "the next one is in 292 years")
			return one(name)
		}, "x", time.Minute)
	})
}

func TestFailedLookupsAreTriedLaterAndLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("server misbehaving")
		fails := func(string) ([]string, error) { return nil, broken }
		answers := follow(t, configured(t, `"dns_failure_refresh_rate": {"base_interval": "1s", "max_interval": "4s"}`), fails, "x", time.Minute)
		require.Greater(t, len(answers), 14)
		for i, a := range answers {
			require.ErrorIs(t, a.err, broken)
			if i == 0 {
				continue
			}
			wait := a.after - answers[i-1].after
			require.GreaterOrEqual(t, wait, time.Second)
			require.LessOrEqual(t, wait, min(4*time.Second, time.Second<<(i-1)))
		}
		require.Len(t, follow(t, configured(t, `"dns_refresh_rate": "10s"`), fails, "x", 35*time.Second), 4, "as often as ever unless set")
	})
}

func TestFamilies(t *testing.T) {
	both := resolver(func(question string) ([]string, error) {
		return map[string][]string{"ip4 x": {"10.0.0.2", "10.0.0.1"}, "ip6 x": {"2001:db8::1"}}[question], nil
	})
	onlyV4 := resolver(func(question string) ([]string, error) {
		if question == "ip4 x" {
			return []string{"10.0.0.1"}, nil
		}
		return nil, errors.New("server misbehaving")
	})
	nobody := resolver(func(string) ([]string, error) { return nil, errNotFound })
	for _, c := range []struct {
		name, fields string
		resolver     resolver
		question     string
		want         []string
	}{
		{"v6 if there is any", `"dns_lookup_family": "AUTO"`, both, "x", []string{"2001:db8::1"}},
		{"else v4", `"dns_lookup_family": "AUTO"`, onlyV4, "x", []string{"10.0.0.1"}},
		{"v4 first", `"dns_lookup_family": "V4_PREFERRED"`, both, "x", []string{"10.0.0.1", "10.0.0.2"}},
		{"v4 only", `"dns_lookup_family": "V4_ONLY"`, both, "x", []string{"10.0.0.1", "10.0.0.2"}},
		{"v6 only", `"dns_lookup_family": "V6_ONLY"`, both, "x", []string{"2001:db8::1"}},
		{"all", `"dns_lookup_family": "ALL"`, both, "x", []string{"10.0.0.1", "10.0.0.2", "2001:db8::1"}},
		{"in the resolver's order of a logical host", `"type": "LOGICAL_DNS", "dns_lookup_family": "V4_ONLY"`, both, "x", []string{"10.0.0.2", "10.0.0.1"}},
		{"none", ``, nobody, "x", nil},
		{"an address", ``, nobody, "::ffff:192.0.2.1", []string{"192.0.2.1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answers := follow(t, configured(t, c.fields), c.resolver, c.question, time.Second)
				require.Len(t, answers, 1)
				require.NoError(t, answers[0].err)
				var got []string
				for _, ip := range answers[0].addresses {
					got = append(got, ip.String())
				}
				require.Equal(t, c.want, got)
			})
		})
	}
}

func TestGosOwnResolverIsOne(t *testing.T) {
	var _ dns.Resolver = &net.Resolver{}
	ctx, cancel := context.WithCancel(t.Context())
	configured(t, `"dns_lookup_family": "V4_ONLY"`).Follow(ctx, &net.Resolver{PreferGo: true}, "localhost", func(addresses []netip.Addr, err error) {
		require.NoError(t, err)
		require.Contains(t, addresses, netip.MustParseAddr("127.0.0.1"))
		cancel()
	})
}
