package tracing

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// extract puts the caller's span into ctx. B3 stands before W3C's form where a
// caller sends both, as at the peer; within B3 the single header stands first.
// Baggage is left where it is, as nothing is sent on.
func extract(ctx context.Context, metadata func(key string) []string) context.Context {
	get := func(key string) string {
		if values := metadata(key); len(values) > 0 {
			return values[0]
		}
		return ""
	}
	parent, ok := single(get("b3"))
	if !ok {
		parent, ok = multiple(get)
	}
	if ok {
		return trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	return propagation.TraceContext{}.Extract(ctx, carrier(get))
}

// carrier is metadata as OpenTelemetry reads it. Nothing is ever set.
type carrier func(key string) string

// Get is part of propagation.TextMapCarrier.
func (c carrier) Get(key string) string { return c(key) }

// Set is part of propagation.TextMapCarrier.
func (c carrier) Set(string, string) {}

// Keys is part of propagation.TextMapCarrier.
func (c carrier) Keys() []string { return nil }

// single reads "traceid-spanid", with "-sampled" and "-parentid" behind it or
// not.
func single(header string) (trace.SpanContext, bool) {
	traceID, rest, ok := strings.Cut(header, "-")
	if !ok {
		return trace.SpanContext{}, false
	}
	spanID, rest, _ := strings.Cut(rest, "-")
	sampled, _, _ := strings.Cut(rest, "-")
	return b3(traceID, spanID, sampled)
}

// multiple reads a header for each part.
func multiple(get func(string) string) (trace.SpanContext, bool) {
	traceID := get("x-b3-traceid")
	if traceID == "" {
		return trace.SpanContext{}, false
	}
	sampled := get("x-b3-sampled")
	if get("x-b3-flags") == "1" {
		sampled = "d"
	}
	return b3(traceID, get("x-b3-spanid"), sampled)
}

// b3 puts the parts together. A trace's name may be half as long as ours.
func b3(traceID, spanID, sampled string) (trace.SpanContext, bool) {
	if len(traceID) == 16 {
		traceID = strings.Repeat("0", 16) + traceID
	}
	t, err := trace.TraceIDFromHex(traceID)
	if err != nil {
		return trace.SpanContext{}, false
	}
	s, err := trace.SpanIDFromHex(spanID)
	if err != nil {
		return trace.SpanContext{}, false
	}
	c := trace.SpanContextConfig{TraceID: t, SpanID: s, Remote: true}
	switch sampled {
	case "1", "d", "true":
		c.TraceFlags = trace.FlagsSampled
	}
	return trace.NewSpanContext(c), true
}
