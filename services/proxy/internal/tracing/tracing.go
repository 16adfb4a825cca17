// Package tracing decides which requests are to be traced, as the tracing of a
// http_connection_manager and of its routes says. The connection manager asks it for
// each request that has its route. No spans are made here: what comes of it are the
// mark in x-request-id, which proxies further on heed, and the requests that the
// traceable_filter of access logs lets through.
package tracing

import (
	"math/rand/v2"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/requestid"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the messages that Parse and ParseRoute read.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing": {"client_sampling", "random_sampling", "overall_sampling"},
		"envoy.config.route.v3.Tracing": {"client_sampling", "random_sampling", "overall_sampling"},
		"envoy.type.v3.Percent":         {"value"},
	}
}

// Sampling is which shares of the requests are traced. It never changes.
type Sampling struct {
	client  matcher.RuntimeFraction // of those whose clients ask for it
	random  matcher.RuntimeFraction // of those that nobody asks for it
	overall matcher.RuntimeFraction // of all that would be traced
}

// Parse reads the tracing of a http_connection_manager; nil traces nothing. As in
// Envoy client_sampling counts in whole percents, the others in hundredths of one.
func Parse(m *hcmv3.HttpConnectionManager_Tracing) *Sampling {
	if m == nil {
		return nil
	}
	return under(
		share(m.GetClientSampling(), 100, typev3.FractionalPercent_HUNDRED),
		share(m.GetRandomSampling(), 10_000, typev3.FractionalPercent_TEN_THOUSAND),
		share(m.GetOverallSampling(), 10_000, typev3.FractionalPercent_TEN_THOUSAND),
	)
}

// ParseRoute reads the tracing of a route, which stands in the place of the
// manager's; nil leaves that.
func ParseRoute(m *routev3.Tracing) *Sampling {
	if m == nil {
		return nil
	}
	return under(m.GetClientSampling(), m.GetRandomSampling(), m.GetOverallSampling())
}

// share is a percentage, nil for none, as so many in most.
func share(m *typev3.Percent, most uint32, denominator typev3.FractionalPercent_DenominatorType) *typev3.FractionalPercent {
	if m == nil {
		return nil
	}
	return &typev3.FractionalPercent{Numerator: uint32(float64(most) * (m.GetValue() / 100)), Denominator: denominator}
}

// under makes a Sampling of shares that the runtime may change; nil is all.
func under(client, random, overall *typev3.FractionalPercent) *Sampling {
	read := func(m *typev3.FractionalPercent, key string) matcher.RuntimeFraction {
		if m == nil {
			return matcher.Always(true).Under(key)
		}
		return matcher.ParseFraction(m).Under(key)
	}
	return &Sampling{
		client:  read(client, layeredruntime.ClientTracing),
		random:  read(random, layeredruntime.RandomTracing),
		overall: read(overall, layeredruntime.OverallTracing),
	}
}

// Decide says why a request is traced, by its x-request-id, which is marked with that
// if marks is set (pack_trace_reason). Steps, as in Envoy:
//
//  1. a request whose id has no number is not traced;
//  2. the reason is what the id is marked with, or else that the client asked for it,
//     that a service did, or that the request is among the random share;
//  3. whatever the reason, it holds for the overall share alone.
func (s *Sampling) Decide(h *message.Headers, marks bool, values *layeredruntime.Snapshot) requestid.TraceReason {
	id, ok := requestid.Number(h)
	if !ok {
		return requestid.NotTraced
	}
	number, reason := uint64(id), requestid.NotTraced
	if marks {
		reason = requestid.Marked(h)
	}
	switch {
	case reason != requestid.NotTraced:
	case h.Has("x-client-trace-id") && s.client.Has(rand.Uint64(), values):
		reason = requestid.ByClient
	case h.Has("x-envoy-force-trace"):
		reason = requestid.ByService
	case s.random.Has(number, values):
		reason = requestid.Sampled
	default:
		return requestid.NotTraced
	}
	if !s.overall.Has(number, values) {
		reason = requestid.NotTraced
	}
	if marks {
		requestid.Mark(h, reason)
	}
	return reason
}
