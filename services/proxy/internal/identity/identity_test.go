package identity_test

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/identity"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// read makes a list of lines "name: value".
func read(text string) *message.Headers {
	h := &message.Headers{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		h.Add(name, strings.TrimSpace(value))
	}
	return h
}

func show(h *message.Headers) string {
	var b strings.Builder
	for i := range h.Len() {
		name, value := h.At(i)
		b.WriteString(string(name) + ": " + string(value) + "\n")
	}
	return b.String()
}

var own = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}

// TestClient has what x-forwarded-for came with, and what it goes on with.
func TestClient(t *testing.T) {
	for _, c := range []struct {
		name           string
		config         identity.Config
		peer           string
		forwarded      string // lines of x-forwarded-for, divided by |
		client         string
		want           string
		internal, edge bool
	}{
		{"an edge believes nobody", identity.Config{UseRemoteAddress: true}, "1.1.1.1", "2.2.2.2", "1.1.1.1", "2.2.2.2,1.1.1.1", false, true},
		{"an edge notes its client", identity.Config{UseRemoteAddress: true}, "1.1.1.1", "", "1.1.1.1", "1.1.1.1", false, true},
		{"an edge of IPv6", identity.Config{UseRemoteAddress: true}, "2001:db8::1", "", "2001:db8::1", "2001:db8::1", false, true},
		{"an edge that is to note nothing", identity.Config{UseRemoteAddress: true, SkipAppend: true}, "1.1.1.1", "2.2.2.2", "1.1.1.1", "2.2.2.2", false, true},
		{"an edge behind one trusted proxy", identity.Config{UseRemoteAddress: true, TrustedHops: 1}, "1.1.1.1", "9.9.9.9, 2.2.2.2", "2.2.2.2", "9.9.9.9, 2.2.2.2,1.1.1.1", false, true},
		{"an edge behind two", identity.Config{UseRemoteAddress: true, TrustedHops: 2}, "1.1.1.1", "9.9.9.9,3.3.3.3|2.2.2.2", "3.3.3.3", "9.9.9.9,3.3.3.3,2.2.2.2,1.1.1.1", false, true},
		{"fewer entries than proxies", identity.Config{UseRemoteAddress: true, TrustedHops: 3}, "1.1.1.1", "2.2.2.2", "1.1.1.1", "2.2.2.2,1.1.1.1", false, true},
		{"a client of the own network", identity.Config{UseRemoteAddress: true, Internal: own}, "10.0.0.1", "", "10.0.0.1", "10.0.0.1", true, false},
		{"a proxy of the own network", identity.Config{UseRemoteAddress: true, Internal: own}, "10.0.0.1", "2.2.2.2", "10.0.0.1", "2.2.2.2,10.0.0.1", false, true},

		{"no edge takes the last entry", identity.Config{}, "1.1.1.1", "3.3.3.3,2.2.2.2", "2.2.2.2", "3.3.3.3,2.2.2.2", false, false},
		{"no edge, behind another proxy", identity.Config{TrustedHops: 1}, "1.1.1.1", "3.3.3.3, 2.2.2.2", "3.3.3.3", "3.3.3.3, 2.2.2.2", false, false},
		{"no edge and no entry", identity.Config{}, "1.1.1.1", "", "1.1.1.1", "", false, false},
		{"an entry that is none", identity.Config{}, "1.1.1.1", "2.2.2.2, unknown", "1.1.1.1", "2.2.2.2, unknown", false, false},
		{"an IPv4 address in IPv6", identity.Config{}, "1.1.1.1", "::ffff:2.2.2.2", "2.2.2.2", "::ffff:2.2.2.2", false, false},
		{"one entry of the own network", identity.Config{Internal: own}, "1.1.1.1", "10.1.1.1", "10.1.1.1", "10.1.1.1", true, false},
		{"two entries of the own network", identity.Config{Internal: own}, "1.1.1.1", "10.1.1.1,10.1.1.2", "10.1.1.2", "10.1.1.1,10.1.1.2", false, false},
		{"two entries in two lines", identity.Config{Internal: own}, "1.1.1.1", "10.1.1.1|10.1.1.2", "10.1.1.2", "10.1.1.1|10.1.1.2", false, false},
		{"a peer of the own network that says nothing", identity.Config{Internal: own}, "10.0.0.1", "", "10.0.0.1", "", false, false},
		{"one entry that is none", identity.Config{Internal: own}, "10.0.0.1", "unknown", "10.0.0.1", "unknown", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &message.Headers{}
			if c.forwarded != "" {
				for value := range strings.SplitSeq(c.forwarded, "|") {
					h.Add("x-forwarded-for", value)
				}
			}
			h.Add("x-envoy-max-retries", "9")
			h.Add("x-envoy-internal", "theirs")
			client := c.config.Mend(h, netip.MustParseAddr(c.peer), false)
			require.Equal(t, c.client, client.String())
			var got []string
			for i := range h.Len() {
				if name, value := h.At(i); string(name) == "x-forwarded-for" {
					got = append(got, string(value))
				}
			}
			require.Equal(t, c.want, strings.Join(got, "|"))
			internal, _ := h.Get("x-envoy-internal")
			require.Equal(t, c.internal, string(internal) == "true")
			require.Equal(t, c.internal, h.Has("x-envoy-max-retries"), "who is inside may steer")
			external, _ := h.Get("x-envoy-external-address")
			require.Equal(t, c.edge, string(external) == c.client)
		})
	}
}

func TestOtherHeaders(t *testing.T) {
	for _, c := range []struct {
		name   string
		config identity.Config
		secure bool
		in     string
		want   string
	}{
		{"an edge says itself how clients come", identity.Config{UseRemoteAddress: true, SkipAppend: true}, false, "x-forwarded-proto: https",
			"x-forwarded-proto: http\nx-envoy-external-address: 1.1.1.1\n"},
		{"over TLS", identity.Config{UseRemoteAddress: true, SkipAppend: true}, true, "",
			"x-forwarded-proto: https\nx-envoy-external-address: 1.1.1.1\n"},
		{"a trusted proxy may say so", identity.Config{UseRemoteAddress: true, SkipAppend: true, TrustedHops: 1}, false, "x-forwarded-proto: https\nx-envoy-external-address: 5.5.5.5",
			"x-forwarded-proto: https\nx-envoy-external-address: 1.1.1.1\n"},
		{"where no edge is, anybody", identity.Config{}, false, "x-forwarded-proto: https", "x-forwarded-proto: https\n"},
		{"what steers is for the own network", identity.Config{}, false,
			"x-envoy-retry-on: 5xx\nx-envoy-upstream-rq-timeout-ms: 1\nx-envoy-force-trace: 1\nx-envoy-own: 1\nx-envoy-original-path: /a\nx-envoy-attempt-count: 1\nx-envoy-decorator-operation: o\nx-envoy-downstream-service-node: n\nx-envoy-external-address: 5.5.5.5",
			"x-envoy-own: 1\nx-envoy-original-path: /a\nx-envoy-attempt-count: 1\nx-envoy-decorator-operation: o\nx-envoy-downstream-service-node: n\nx-envoy-external-address: 5.5.5.5\nx-forwarded-proto: http\n"},
		{"an edge takes more", identity.Config{UseRemoteAddress: true, SkipAppend: true}, false,
			"x-envoy-decorator-operation: o\nx-envoy-downstream-service-node: n\nx-envoy-downstream-service-cluster: c\nx-envoy-original-path: /a\nx-envoy-original-host: b\nx-envoy-external-address: 5.5.5.5",
			"x-forwarded-proto: http\nx-envoy-external-address: 1.1.1.1\n"},
		{"a certificate that nobody saw", identity.Config{}, false, "x-forwarded-client-cert: Hash=1", "x-forwarded-proto: http\n"},
		{"a certificate to be told", identity.Config{KeepClientCert: true}, false, "x-forwarded-client-cert: Hash=1", "x-forwarded-client-cert: Hash=1\nx-forwarded-proto: http\n"},
		{"via", identity.Config{Via: "weir"}, false, "", "x-forwarded-proto: http\nvia: weir\n"},
		{"via behind another", identity.Config{Via: "weir"}, false, "via: 1.1 a", "x-forwarded-proto: http\nvia: 1.1 a, weir\n"},
		{"a request id stays", identity.Config{GenerateRequestID: true}, false, "x-request-id: theirs", "x-request-id: theirs\nx-forwarded-proto: http\n"},
		{"a request id from outside does not", identity.Config{UseRemoteAddress: true, SkipAppend: true, GenerateRequestID: true}, false, "x-request-id: theirs",
			"x-forwarded-proto: http\nx-envoy-external-address: 1.1.1.1\nx-request-id: UUID\n"},
		{"unless it is to", identity.Config{UseRemoteAddress: true, SkipAppend: true, GenerateRequestID: true, KeepExternalRequestID: true}, false, "x-request-id: theirs",
			"x-request-id: theirs\nx-forwarded-proto: http\nx-envoy-external-address: 1.1.1.1\n"},
		{"an empty one is none", identity.Config{GenerateRequestID: true}, false, "x-request-id: ", "x-forwarded-proto: http\nx-request-id: UUID\n"},
		{"outsiders do not say that they are traced", identity.Config{UseRemoteAddress: true, SkipAppend: true, GenerateRequestID: true, KeepExternalRequestID: true, MarkRequestID: true}, false,
			"x-request-id: 11111111-1111-a111-1111-111111111111", "x-request-id: 11111111-1111-4111-1111-111111111111\nx-forwarded-proto: http\nx-envoy-external-address: 1.1.1.1\n"},
		{"where ids do not tell, they may", identity.Config{UseRemoteAddress: true, SkipAppend: true, GenerateRequestID: true, KeepExternalRequestID: true}, false,
			"x-request-id: 11111111-1111-a111-1111-111111111111", "x-request-id: 11111111-1111-a111-1111-111111111111\nx-forwarded-proto: http\nx-envoy-external-address: 1.1.1.1\n"},
		{"who is inside says it", identity.Config{GenerateRequestID: true, MarkRequestID: true}, false,
			"x-request-id: 11111111-1111-a111-1111-111111111111", "x-request-id: 11111111-1111-a111-1111-111111111111\nx-forwarded-proto: http\n"},
		{"no request id is made", identity.Config{}, false, "", "x-forwarded-proto: http\n"},
		{"a request id is made", identity.Config{GenerateRequestID: true}, false, "", "x-forwarded-proto: http\nx-request-id: UUID\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := read(c.in)
			c.config.Mend(h, netip.MustParseAddr("1.1.1.1"), c.secure)
			uuid := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`)
			require.Equal(t, c.want, uuid.ReplaceAllString(show(h), "UUID"))
		})
	}
}

func TestMendAllocatesNothing(t *testing.T) {
	config := identity.Config{UseRemoteAddress: true, GenerateRequestID: true, Internal: own, Via: "weir"}
	peer := netip.MustParseAddr("1.1.1.1")
	h := &message.Headers{}
	servicetest.Allocations(t, 0, func() {
		h.Reset()
		h.Add("accept", "*/*")
		h.Add("x-forwarded-for", "2.2.2.2")
		h.Add("x-envoy-retry-on", "5xx")
		config.Mend(h, peer, false)
	})
}

// FuzzMend gives it lists of addresses that nobody wrote.
func FuzzMend(f *testing.F) {
	f.Add("1.1.1.1, ,::1,%", uint8(1), true)
	f.Add(",,,", uint8(3), false)
	f.Fuzz(func(t *testing.T, forwarded string, hops uint8, edge bool) {
		h := &message.Headers{}
		h.Add("x-forwarded-for", forwarded)
		config := identity.Config{UseRemoteAddress: edge, TrustedHops: int(hops), Internal: own}
		client := config.Mend(h, netip.MustParseAddr("1.1.1.1"), false)
		require.True(t, client.IsValid())
	})
}
