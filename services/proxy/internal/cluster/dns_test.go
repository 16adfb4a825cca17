package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/cluster"
)

// zone is a dns.Resolver whose names a test sets.
type zone struct {
	mu sync.Mutex
	// names has the addresses of "ip4 name" and "ip6 name"; what is not there
	// does not exist.
	names  map[string][]string
	broken map[string]bool // names that have no answer
	asked  []string        // what was looked up, since the last forget
	hold   chan struct{}   // if not nil, lookups wait for its close
}

func newZone() *zone { return &zone{names: map[string][]string{}, broken: map[string]bool{}} }

func (z *zone) set(key string, addresses ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.names[key] = addresses
}

func (z *zone) fail(name string, fails bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.broken[name] = fails
}

func (z *zone) forget() (asked []string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	asked, z.asked = z.asked, nil
	return asked
}

// LookupNetIP implements dns.Resolver.
func (z *zone) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	if z.hold != nil {
		select {
		case <-z.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked = append(z.asked, network+" "+name)
	if z.broken[name] {
		return nil, errors.New("server misbehaving")
	}
	var list []netip.Addr
	for _, text := range z.names[network+" "+name] {
		list = append(list, netip.MustParseAddr(text))
	}
	if list == nil {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return list, nil
}

// named is a cluster of that type whose endpoints are names with port 80.
func named(kind, fields string, names ...string) string {
	text := ""
	for i, name := range names {
		if i > 0 {
			text += ","
		}
		text += endpoint(name, 80, "")
	}
	return fmt.Sprintf(`{"name": "a", %s %s, "load_assignment": {"cluster_name": "a", "endpoints": [{"lb_endpoints": [%s]}]}}`, kind, fields, text)
}

const (
	strictDNS  = `"type": "STRICT_DNS"`
	logicalDNS = `"type": "LOGICAL_DNS"`
)

// resolving is a Manager with that one cluster of CDS, which goes at the end.
func resolving(t *testing.T, z *zone, config string) *manager {
	t.Helper()
	m := newResolvingManager(t, false, z)
	require.NoError(t, m.ApplyClusters(clusters(t, config)))
	t.Cleanup(func() {
		require.NoError(t, m.ApplyClusters(nil))
		synctest.Wait()
	})
	return m
}

func hostsOf(m *manager) (list []string) {
	for _, member := range m.Get("a").Hosts().Members {
		list = append(list, member.Address.String())
	}
	return list
}

func TestStrictDNSHasAHostForEachAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.set("ip4 one.example", "10.0.0.2", "10.0.0.1")
		z.set("ip4 two.example", "10.0.0.3", "10.0.0.1")
		z.hold = make(chan struct{})
		m := resolving(t, z, named(strictDNS, "", "one.example", "two.example", "192.0.2.1"))
		synctest.Wait()
		require.Nil(t, m.Get("a"), "it warms until its names had answers")
		close(z.hold)
		synctest.Wait()
		require.ElementsMatch(t, []string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "192.0.2.1:80"}, hostsOf(m))
		for _, member := range m.Get("a").Hosts().Members {
			if member.Address.String() == "10.0.0.2:80" {
				require.Equal(t, "one.example", member.Hostname)
			}
		}
		require.ElementsMatch(t, []string{"ip6 one.example", "ip4 one.example", "ip6 two.example", "ip4 two.example"}, z.forget())

		host := m.Get("a").Hosts().Members[0].Host
		z.set("ip4 one.example", "10.0.0.1", "10.0.0.9")
		time.Sleep(5*time.Second - time.Nanosecond)
		synctest.Wait()
		require.Empty(t, z.forget())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.ElementsMatch(t, []string{"10.0.0.1:80", "10.0.0.3:80", "10.0.0.9:80", "192.0.2.1:80"}, hostsOf(m))
		require.Same(t, host, m.Get("a").Hosts().Members[0].Host)
	})
}

func TestHostsStayWhileALookupFailsAndGoWithTheirName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.set("ip4 one.example", "10.0.0.1")
		m := resolving(t, z, named(strictDNS, `, "dns_refresh_rate": "10s", "dns_failure_refresh_rate": {"base_interval": "2s", "max_interval": "3s"}`, "one.example"))
		synctest.Wait()
		z.fail("one.example", true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"10.0.0.1:80"}, hostsOf(m))
		require.EqualValues(t, 1, m.stat("cluster.a.update_failure"))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.EqualValues(t, 2, m.stat("cluster.a.update_failure"), "tried again after the base interval")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.EqualValues(t, 3, m.stat("cluster.a.update_failure"), "and after no more than the longest")
		z.fail("one.example", false)
		z.set("ip4 one.example")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.Empty(t, hostsOf(m), "the name is gone")
		require.EqualValues(t, 1, m.stat("cluster.a.update_empty"))
		require.EqualValues(t, 2, m.stat("cluster.a.update_success"))
		require.EqualValues(t, 5, m.stat("cluster.a.update_attempt"))
		require.Equal(t, 1, strings.Count(m.log.String(), `msg="a name can't be looked up, its hosts stay as they are" cluster=a name=one.example error="server misbehaving"`), "an outage is told once")
		require.Contains(t, m.log.String(), `msg="a name can be looked up again" cluster=a name=one.example`)
	})
}

func TestClusterIsUsedThoughItsNamesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.fail("one.example", true)
		m := resolving(t, z, named(strictDNS, "", "one.example"))
		synctest.Wait()
		require.Nil(t, m.Get("a").Pick(&cluster.PickContext{}))
		z.fail("one.example", false)
		z.set("ip6 one.example", "2001:db8::1")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"[2001:db8::1]:80"}, hostsOf(m))
	})
}

func TestStartWaitsForNamesUnlessToldNotTo(t *testing.T) {
	for fields, waits := range map[string]bool{"": true, `, "wait_for_warm_on_init": false`: false} {
		t.Run(fmt.Sprint("waits: ", waits), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := newZone()
				z.hold = make(chan struct{})
				z.set("ip4 one.example", "10.0.0.1")
				m := newResolvingManager(t, false, z)
				m.AddStatic([]*cluster.Config{m.parse(named(strictDNS, fields, "one.example"))})
				time.Sleep(time.Hour)
				require.Equal(t, !waits, m.started())
				close(z.hold)
				synctest.Wait()
				require.True(t, m.started())
				require.Equal(t, []string{"10.0.0.1:80"}, hostsOf(m))
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				require.NoError(t, m.Run(ctx))
			})
		})
	}
}

func TestClusterThatGoesEndsItsLookups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.hold = make(chan struct{})
		m := resolving(t, z, named(strictDNS, "", "one.example"))
		synctest.Wait()
		require.NoError(t, m.ApplyClusters(nil))
		synctest.Wait() // and synctest.Test fails if a goroutine is left
		require.Nil(t, m.Get("a"))
		require.Empty(t, z.forget())
	})
}

func TestLogicalDNSIsOneHostAtTheFirstAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.set("ip4 one.example", "10.0.0.2", "10.0.0.1")
		m := resolving(t, z, named(logicalDNS, "", "one.example"))
		synctest.Wait()
		require.Equal(t, []string{"10.0.0.2:80"}, hostsOf(m))
		host := m.Get("a").Pick(&cluster.PickContext{})
		z.set("ip4 one.example", "10.0.0.1", "10.0.0.2")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"10.0.0.1:80"}, hostsOf(m))
		require.Same(t, host, m.Get("a").Pick(&cluster.PickContext{}), "it moved, and is the same")
		require.EqualValues(t, 1, m.stat("cluster.a.membership_change"))
		z.set("ip4 one.example")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"10.0.0.1:80"}, hostsOf(m), "without a new address it stays where it is")
	})
}

func TestLookupFamilies(t *testing.T) {
	custom := `"cluster_type": {"name": "envoy.clusters.dns", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster" %s}}`
	for _, c := range []struct {
		family string
		want   []string
	}{
		{"AUTO", []string{"ip6 both.example", "ip6 four.example", "ip4 four.example"}},
		{"V4_ONLY", []string{"ip4 both.example", "ip4 four.example"}},
		{"V6_ONLY", []string{"ip6 both.example", "ip6 four.example"}},
		{"V4_PREFERRED", []string{"ip4 both.example", "ip4 four.example"}},
		{"ALL", []string{"ip6 both.example", "ip4 both.example", "ip6 four.example", "ip4 four.example"}},
	} {
		for name, config := range map[string]string{
			"cluster":    named(strictDNS, fmt.Sprintf(`, "dns_lookup_family": %q`, c.family), "both.example", "four.example"),
			"DnsCluster": named(fmt.Sprintf(custom, fmt.Sprintf(`, "dns_lookup_family": %q`, c.family)), "", "both.example", "four.example"),
		} {
			t.Run(c.family+" of a "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					z := newZone()
					z.set("ip4 both.example", "10.0.0.1")
					z.set("ip6 both.example", "2001:db8::1")
					z.set("ip4 four.example", "10.0.0.2")
					m := resolving(t, z, config)
					synctest.Wait()
					require.NotNil(t, m.Get("a"))
					require.ElementsMatch(t, c.want, z.forget())
				})
			})
		}
	}
}

func TestDnsClusterSaysWhatItsFieldsDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone()
		z.set("ip4 one.example", "10.0.0.2", "10.0.0.1")
		m := resolving(t, z, named(`"cluster_type": {"name": "x", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
			"all_addresses_in_single_endpoint": true, "dns_refresh_rate": "7s", "dns_jitter": "3s", "dns_failure_refresh_rate": {"base_interval": "1s"}}}`, "", "one.example"))
		synctest.Wait()
		require.Equal(t, []string{"10.0.0.2:80"}, hostsOf(m))
		z.forget()
		time.Sleep(7*time.Second - time.Nanosecond)
		synctest.Wait()
		require.Empty(t, z.forget())
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.Len(t, z.forget(), 2, "within the jitter")
	})
}

func TestFaultsOfDNSClusters(t *testing.T) {
	custom := `"cluster_type": {"name": "x", "typed_config": {"@type": "type.googleapis.com/%s"}}`
	for _, c := range []struct{ name, config, want string }{
		{"two names of a logical host", named(logicalDNS, "", "a.example", "b.example"), "load_assignment: a cluster whose addresses are one host has one endpoint, not 2"},
		{"no assignment", `{"name": "a", "type": "STRICT_DNS"}`, `cluster "a" is STRICT_DNS and needs a load_assignment`},
		{"a rate that is none", named(strictDNS, `, "dns_refresh_rate": "0s"`, "a.example"), "dns_refresh_rate: value must be greater than 1ms"},
		{"a longest that is shorter", named(strictDNS, `, "dns_failure_refresh_rate": {"base_interval": "2s", "max_interval": "1s"}`, "a.example"),
			"dns_failure_refresh_rate.max_interval: 1s is less than base_interval, 2s"},
		{"fields for another type", named(`"type": "STATIC"`, `, "dns_refresh_rate": "1s", "dns_lookup_family": "V4_ONLY"`, "10.0.0.1"),
			"dns_lookup_family: only a cluster of type STRICT_DNS or LOGICAL_DNS has one\ndns_refresh_rate: only a cluster of type STRICT_DNS or LOGICAL_DNS has one"},
		{"fields beside the typed ones", named(fmt.Sprintf(custom, "envoy.extensions.clusters.dns.v3.DnsCluster"), `, "dns_refresh_rate": "1s"`, "a.example"),
			"dns_refresh_rate: only a cluster of type STRICT_DNS or LOGICAL_DNS has one"},
		{"another extension", named(fmt.Sprintf(custom, "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"), "", "a.example"),
			"cluster_type.typed_config: only envoy.extensions.clusters.dns.v3.DnsCluster is supported"},
		{"a name in a STATIC cluster", named(`"type": "STATIC"`, "", "a.example"),
			`load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: "a.example" is not an IP address, and names are not resolved`},
		{"a TTL", named(strictDNS, `, "respect_dns_ttl": true`, "a.example"), "respect_dns_ttl: not supported"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newManager(t, false)
			require.ErrorContains(t, m.ApplyClusters(clusters(t, c.config)), c.want)
		})
	}
}
