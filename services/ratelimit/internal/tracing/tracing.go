// Package tracing sends spans of calls and of what the store does for them to
// an OpenTelemetry collector, by OTLP. rls begins a span at each call, and
// Store wraps the store that the limiter uses. Where tracing is off there is
// no Tracer and no wrapper, so that it costs nothing; it never holds up a call,
// since spans that the collector does not take in time are dropped.
//
// The collector's address, headers, certificates and time-outs are those of
// the standard variables OTEL_EXPORTER_OTLP_…, the batches those of OTEL_BSP_…,
// and OTEL_RESOURCE_ATTRIBUTES adds to what is said of the service.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Options are the variables of the environment that stand beside them.
type Options struct {
	// Enabled is TRACING_ENABLED.
	Enabled bool
	// Protocol is TRACING_EXPORTER_PROTOCOL: "http" or "grpc". "" is what
	// OTEL_EXPORTER_OTLP_TRACES_PROTOCOL or OTEL_EXPORTER_OTLP_PROTOCOL say,
	// and if they don't, http.
	Protocol string
	// ServiceName, ServiceNamespace and ServiceInstanceID are
	// TRACING_SERVICE_NAME, TRACING_SERVICE_NAMESPACE and
	// TRACING_SERVICE_INSTANCE_ID: how spans name this process. An empty
	// instance is a random UUID.
	ServiceName, ServiceNamespace, ServiceInstanceID string
	// SamplingRate is TRACING_SAMPLING_RATE: the share of calls that get a
	// span if their caller did not decide it; 1 or more is all, 0 or less none.
	SamplingRate float64
	// Getenv reads the standard variables for the protocol; all others are
	// read by OpenTelemetry itself, from the process' environment.
	Getenv func(variable string) string
	// Log gets a line when the collector goes away and one when it is back.
	Log *slog.Logger
}

// Tracer makes spans. It is used by many goroutines.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	exporter *exporter
}

// New makes a Tracer, or none if the options ask for none. It connects to
// nothing yet. The error joins all that is wrong; each part names the variable
// and its value.
func New(o Options) (*Tracer, error) {
	if !o.Enabled {
		return nil, nil
	}
	var errs []error
	if math.IsNaN(o.SamplingRate) {
		errs = append(errs, fmt.Errorf("TRACING_SAMPLING_RATE=%v: not a number", o.SamplingRate))
	}
	client, err := o.client()
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	otlp, err := otlptrace.New(context.Background(), client)
	if err != nil {
		return nil, fmt.Errorf("open the exporter of traces: %w", err)
	}
	instance := o.ServiceInstanceID
	if instance == "" {
		instance = uuid.NewString()
	}
	out := &exporter{SpanExporter: otlp, log: o.Log}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(o.SamplingRate))),
		sdktrace.WithBatcher(out),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", o.ServiceName),
			attribute.String("service.namespace", o.ServiceNamespace),
			attribute.String("service.instance.id", instance),
		)),
	)
	return &Tracer{provider, provider.Tracer("github.com/weirproxy/weir/services/ratelimit"), out}, nil
}

// client is the client of the collector for the protocol of the options.
func (o *Options) client() (otlptrace.Client, error) {
	name, protocol := "TRACING_EXPORTER_PROTOCOL", o.Protocol
	for _, standard := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if protocol == "" {
			name, protocol = standard, o.Getenv(standard)
		}
	}
	switch protocol {
	case "", "http", "http/protobuf":
		return otlptracehttp.NewClient(), nil
	case "grpc":
		return otlptracegrpc.NewClient(), nil
	}
	return nil, fmt.Errorf("%s=%s: not one of http, grpc", name, protocol)
}

// stopWait is what the collector has to take the last spans in.
const stopWait = 2 * time.Second

// Stop sends the spans that wait, until ctx ends or for a moment at most, and
// disconnects. The error is always nil: that the collector did not take them
// is no fault of this process, and logged. Spans of calls that go on are lost.
func (t *Tracer) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopWait)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.exporter.log.Warn("the last spans were not taken", "error", err)
		// Ends what the provider left under way. Its error is the one above.
		_ = t.exporter.Shutdown(ctx)
	}
	return nil
}

// StartCall begins the span of one call, as a child of the caller's if its
// metadata tells of one, in W3C's form or in B3's. metadata returns the values
// of a key in lower case; nil is no metadata. It is not asked in a request that
// FromHTTP let through. Work on the call goes on in the context that comes
// back. end is called once, with the request's domain, whether the answer was
// over the limit, and the error if it was none.
func (t *Tracer) StartCall(ctx context.Context, name string, metadata func(key string) []string) (_ context.Context, end func(domain string, over bool, err error)) {
	if headers, ok := ctx.Value(headersKey{}).(http.Header); ok {
		metadata = headers.Values
	} else if metadata == nil {
		metadata = func(string) []string { return nil }
	}
	ctx, span := t.tracer.Start(extract(ctx, metadata), name, trace.WithSpanKind(trace.SpanKindServer))
	return ctx, func(domain string, over bool, err error) {
		if span.IsRecording() {
			span.SetAttributes(attribute.String("domain", printable(domain)), attribute.Bool("over_limit", over))
		}
		finish(span, err)
	}
}

// headersKey is where a context has the headers of its HTTP request.
type headersKey struct{}

// FromHTTP lets requests through to h, and their headers to StartCall.
func FromHTTP(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), headersKey{}, r.Header)))
	})
}

// finish ends span, with its error if it has one.
func finish(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, printable(err.Error()))
	}
	span.End()
}

// printable is text as OTLP can hold it: one string that is not UTF-8 would
// lose all spans of a batch.
func printable(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

// exporter keeps errors of the collector from OpenTelemetry, which would write
// each of them to standard error, and logs the first and the end of them.
type exporter struct {
	sdktrace.SpanExporter
	log  *slog.Logger
	away bool
}

// ExportSpans is part of sdktrace.SpanExporter, which calls it one at a time.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err != nil && !e.away:
		e.away = true
		e.log.Warn("spans are not taken and dropped", "error", err)
	case err == nil && e.away:
		e.away = false
		e.log.Info("spans are taken again")
	}
	return nil
}
