// Package identity works out who sent a request, by the addresses that proxies
// in front of this one have noted, and makes the headers that tell others so:
// x-forwarded-for, x-forwarded-proto, x-request-id, via and Envoy's own. The
// connection manager calls it once for each request. It trusts nothing beyond
// what its Config says, and looks at no route.
package identity

import (
	"bytes"
	"net/netip"

	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/requestid"
	"github.com/weirproxy/weir/services/proxy/internal/uuid"
)

// Config is whom to trust. The fields are those of http_connection_manager of
// nearly the same names.
type Config struct {
	// UseRemoteAddress says that clients connect to this proxy, or to trusted
	// ones in front of it, so that it is an edge: what they say of themselves
	// counts for nothing.
	UseRemoteAddress bool
	// TrustedHops is how many trusted proxies are in front of this one
	// (xff_num_trusted_hops).
	TrustedHops int
	// SkipAppend leaves x-forwarded-for as it came (skip_xff_append).
	SkipAppend bool
	// Internal are the addresses of the own network
	// (internal_address_config.cidr_ranges).
	Internal []netip.Prefix
	// KeepClientCert keeps x-forwarded-client-cert (forward_client_cert_details:
	// ALWAYS_FORWARD_ONLY); the other modes keep it from clients with a
	// certificate alone.
	KeepClientCert bool
	// Via is appended to the header of that name; empty is nothing.
	Via string
	// GenerateRequestID gives an x-request-id to requests that have none, and to
	// those from outside in the place of theirs, unless KeepExternalRequestID is
	// set (preserve_external_request_id).
	GenerateRequestID     bool
	KeepExternalRequestID bool
	// MarkRequestID says that an x-request-id tells why its request is traced
	// (pack_trace_reason), which those from outside may not say.
	MarkRequestID bool
}

// Mend makes the headers of a request by whom it came from, and returns the
// client: peer, the other end of the connection, or whom a trusted proxy
// vouches for. Secure says that the connection has TLS. Steps, as in Envoy:
//
//  1. find the client, and note the peer in x-forwarded-for;
//  2. tell inside from outside, and take from those outside what steers the
//     proxy;
//  3. set x-request-id and via.
func (c *Config) Mend(h *message.Headers, peer netip.Addr, secure bool) (client netip.Addr) {
	client, single := c.client(h, peer)
	if c.UseRemoteAddress {
		if !c.SkipAppend {
			var text [46]byte
			h.Join("x-forwarded-for", ",", peer.AppendTo(text[:0]))
		}
		if c.TrustedHops == 0 {
			h.Remove("x-forwarded-proto")
		}
	}
	if !h.Has("x-forwarded-proto") {
		if secure {
			h.Add("x-forwarded-proto", "https")
		} else {
			h.Add("x-forwarded-proto", "http")
		}
	}

	internal := single && c.internal(client)
	edge := c.UseRemoteAddress && !internal
	h.Remove("x-envoy-internal")
	if internal {
		h.Add("x-envoy-internal", "true")
	} else {
		h.Keep(func(name, _ []byte) bool { return !reserved(name, edge) })
	}
	if edge {
		var text [46]byte
		h.Remove("x-envoy-external-address")
		h.AddBytes("x-envoy-external-address", client.AppendTo(text[:0]))
	}
	if !c.KeepClientCert {
		h.Remove("x-forwarded-client-cert")
	}

	if c.GenerateRequestID {
		c.mendRequestID(h, edge)
	}
	if c.Via != "" {
		h.Join("via", ", ", []byte(c.Via))
	}
	return client
}

// mendRequestID sees to it that a request has an id, which is none of an outsider's or,
// if those are kept, says of it that it is not traced.
func (c *Config) mendRequestID(h *message.Headers, edge bool) {
	if id, _ := h.Get(requestid.Header); len(id) == 0 || edge && !c.KeepExternalRequestID {
		var made [36]byte
		h.Remove(requestid.Header)
		h.AddBytes(requestid.Header, uuid.Append(made[:0]))
	} else if edge && c.MarkRequestID {
		requestid.Mark(h, requestid.NotTraced)
	}
}

// client is whom to take for the client, and whether x-forwarded-for leaves no
// doubt of it: none may have vouched but who is trusted to.
func (c *Config) client(h *message.Headers, peer netip.Addr) (client netip.Addr, single bool) {
	skip := c.TrustedHops // entries from the right, of proxies in front
	if c.UseRemoteAddress {
		single = !h.Has("x-forwarded-for")
		if c.TrustedHops == 0 {
			return peer, single
		}
		skip-- // the one next to us is the peer, and in no entry yet
	}
	address, entries := entry(h, skip)
	if !c.UseRemoteAddress {
		single = entries == 1
	}
	if !address.IsValid() {
		return peer, single && c.UseRemoteAddress
	}
	return address, single
}

// entry is an address of x-forwarded-for, the last but skip, and how many
// entries there are. It is no valid one if there are too few, or if it is none.
func entry(h *message.Headers, skip int) (address netip.Addr, entries int) {
	for i := h.Len() - 1; i >= 0; i-- {
		name, value := h.At(i)
		if string(name) != "x-forwarded-for" {
			continue
		}
		for rest, more := value, true; more; entries++ {
			part := rest
			comma := bytes.LastIndexByte(rest, ',')
			if more = comma >= 0; more {
				rest, part = rest[:comma], rest[comma+1:]
			}
			if entries == skip {
				if a, err := netip.ParseAddr(string(bytes.TrimSpace(part))); err == nil {
					address = a.Unmap()
				}
			}
		}
	}
	return address, entries
}

func (c *Config) internal(address netip.Addr) bool {
	for _, prefix := range c.Internal {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}

// reserved says whether only the own network may send a field: others could
// steer retries and timeouts with it. Some are for proxies behind an edge. Those
// that are not known to Envoy go through.
func reserved(name []byte, edge bool) bool {
	if !bytes.HasPrefix(name, []byte("x-envoy-")) {
		return false
	}
	switch string(name[len("x-envoy-"):]) {
	case "decorator-operation", "downstream-service-cluster", "downstream-service-node",
		"original-host", "original-path":
		return edge
	case "retry-on", "retry-grpc-on", "max-retries", "retriable-status-codes", "retriable-header-names",
		"upstream-rq-timeout-ms", "upstream-rq-per-try-timeout-ms", "upstream-rq-timeout-alt-response",
		"expected-rq-timeout-ms", "upstream-alt-stat-name", "hedge-on-per-try-timeout",
		"force-trace", "ip-tags", "original-url":
		return true
	}
	return false
}
