package tracing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// collector keeps the spans that it gets, by HTTP or gRPC.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	mu        sync.Mutex
	resources []*tracepb.ResourceSpans
	refuse    bool
}

func (c *collector) Export(_ context.Context, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resources = append(c.resources, r.GetResourceSpans()...)
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	req := &collectorpb.ExportTraceServiceRequest{}
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, req) != nil || c.refuses() {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_, _ = c.Export(r.Context(), req)
}

func (c *collector) refuses() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refuse
}

// spans are those that came, by name.
func (c *collector) spans(t *testing.T) map[string]*tracepb.Span {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	spans := map[string]*tracepb.Span{}
	for _, r := range c.resources {
		for _, scope := range r.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				require.NotContains(t, spans, s.GetName())
				spans[s.GetName()] = s
			}
		}
	}
	return spans
}

// serveHTTP runs c and has the standard variable name it.
func serveHTTP(t *testing.T, c http.Handler) {
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
}

func serveGRPC(t *testing.T, c *collector) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(server, c)
	done := make(chan struct{})
	// Ends with the server; the cleanup waits for it.
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
}

func on() Options {
	return Options{
		Enabled: true, ServiceName: "RateLimit", ServiceNamespace: "edge", ServiceInstanceID: "one", SamplingRate: 1,
		Getenv: func(string) string { return "" }, Log: slog.New(slog.DiscardHandler),
	}
}

func start(t *testing.T, o Options) *Tracer {
	t.Helper()
	tracer, err := New(o)
	require.NoError(t, err)
	require.NotNil(t, tracer)
	return tracer
}

// sent is metadata with these pairs of a key and a value.
func sent(pairs ...string) func(string) []string {
	return func(key string) []string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == key {
				return []string{pairs[i+1]}
			}
		}
		return nil
	}
}

// fails is a store that does nothing but fail, if it has an error.
type fails struct {
	limiter.Store
	err error
}

func (f fails) Apply(context.Context, *limiter.Call) error { return f.err }

const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	spanID  = "b7ad6b7169203331"
)

func TestSpansReachTheCollectorAsChildrenOfTheCallers(t *testing.T) {
	for protocol, serve := range map[string]func(*testing.T, *collector){
		"http": func(t *testing.T, c *collector) { serveHTTP(t, c) },
		"grpc": serveGRPC,
	} {
		t.Run(protocol, func(t *testing.T) {
			c := &collector{}
			serve(t, c)
			t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "zone=eu1")
			o := on()
			o.Protocol = protocol
			tracer := start(t, o)
			store := Store(fails{err: errors.New("redis is away")}, tracer, "pipeline")

			ctx, end := tracer.StartCall(t.Context(), "call", sent("traceparent", "00-"+traceID+"-"+spanID+"-01"))
			err := store.Apply(ctx, &limiter.Call{Ops: make([]limiter.Op, 3)})
			require.EqualError(t, err, "redis is away")
			end("d\xff", true, nil)
			require.NoError(t, tracer.Stop(t.Context()))

			spans := c.spans(t)
			require.Len(t, spans, 2)
			call, pipeline := spans["call"], spans["pipeline"]
			require.Equal(t, traceID, fmt.Sprintf("%x", call.GetTraceId()))
			require.Equal(t, spanID, fmt.Sprintf("%x", call.GetParentSpanId()))
			require.Equal(t, tracepb.Span_SPAN_KIND_SERVER, call.GetKind())
			require.Equal(t, "domain", call.GetAttributes()[0].GetKey())
			require.Equal(t, "d\uFFFD", call.GetAttributes()[0].GetValue().GetStringValue())
			require.Equal(t, "over_limit", call.GetAttributes()[1].GetKey())
			require.True(t, call.GetAttributes()[1].GetValue().GetBoolValue())
			require.Equal(t, tracepb.Status_STATUS_CODE_UNSET, call.GetStatus().GetCode())
			require.Equal(t, call.GetTraceId(), pipeline.GetTraceId())
			require.Equal(t, call.GetSpanId(), pipeline.GetParentSpanId())
			require.Equal(t, "pipeline length", pipeline.GetAttributes()[0].GetKey())
			require.Equal(t, int64(3), pipeline.GetAttributes()[0].GetValue().GetIntValue())
			require.Equal(t, tracepb.Status_STATUS_CODE_ERROR, pipeline.GetStatus().GetCode())
			require.Equal(t, "redis is away", pipeline.GetStatus().GetMessage())
			var resource []string
			for _, a := range c.resources[0].GetResource().GetAttributes() {
				resource = append(resource, a.GetKey()+"="+a.GetValue().GetStringValue())
			}
			require.Subset(t, resource, []string{"service.name=RateLimit", "service.namespace=edge", "service.instance.id=one", "zone=eu1"})
		})
	}
}

func TestTheCallersSpanIsFoundInEveryForm(t *testing.T) {
	const other = "11111111111111111111111111111111"
	w3c := []string{"traceparent", "00-" + other + "-" + spanID + "-01"}
	for _, c := range []struct {
		name     string
		metadata []string
		trace    string // "" if there is none
		sampled  bool
	}{
		{"of_none", nil, "", false},
		{"of_W3C", w3c, other, true},
		{"of_W3C_not_sampled", []string{"traceparent", "00-" + other + "-" + spanID + "-00"}, other, false},
		{"of_W3C_broken", []string{"traceparent", "00-zz"}, "", false},
		{"of_B3_in_one_header", []string{"b3", traceID + "-" + spanID + "-1"}, traceID, true},
		{"of_B3_with_its_parent", []string{"b3", traceID + "-" + spanID + "-d-" + spanID}, traceID, true},
		{"of_B3_not_sampled", []string{"b3", traceID + "-" + spanID + "-0"}, traceID, false},
		{"of_B3_undecided", []string{"b3", traceID + "-" + spanID}, traceID, false},
		{"of_B3_in_several_headers", []string{"x-b3-traceid", traceID, "x-b3-spanid", spanID, "x-b3-sampled", "1"}, traceID, true},
		{"of_B3_for_debugging", []string{"x-b3-traceid", traceID, "x-b3-spanid", spanID, "x-b3-flags", "1"}, traceID, true},
		{"of_B3_with_a_short_name", []string{"b3", traceID[16:] + "-" + spanID + "-1"}, "0000000000000000" + traceID[16:], true},
		{"of_B3_before_W3C", append([]string{"b3", traceID + "-" + spanID + "-1"}, w3c...), traceID, true},
		{"of_W3C_beside_a_mere_B3_decision", append([]string{"b3", "0"}, w3c...), other, true},
		{"of_W3C_beside_a_broken_B3", append([]string{"b3", "x-y-1", "x-b3-traceid", traceID}, w3c...), other, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			col := &collector{}
			serveHTTP(t, col)
			o := on()
			if c.trace != "" {
				o.SamplingRate = 0 // only the caller has it sampled
			}
			tracer := start(t, o)
			_, end := tracer.StartCall(t.Context(), "call", sent(c.metadata...))
			end("d", false, nil)
			require.NoError(t, tracer.Stop(t.Context()))
			call := col.spans(t)["call"]
			switch {
			case c.trace == "":
				require.NotNil(t, call)
				require.Empty(t, call.GetParentSpanId())
			case !c.sampled:
				require.Nil(t, call)
			default:
				require.NotNil(t, call)
				require.Equal(t, c.trace, fmt.Sprintf("%x", call.GetTraceId()))
				require.Equal(t, spanID, fmt.Sprintf("%x", call.GetParentSpanId()))
			}
		})
	}
}

func TestTheCallersSpanIsFoundInHTTPHeaders(t *testing.T) {
	c := &collector{}
	serveHTTP(t, c)
	tracer := start(t, on())
	h := FromHTTP(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, end := tracer.StartCall(r.Context(), "call", nil)
		end("d", false, errors.New("no rules"))
	}))
	r := httptest.NewRequest(http.MethodPost, "/json", nil)
	r.Header.Set("X-B3-TraceId", traceID)
	r.Header.Set("X-B3-SpanId", spanID)
	r.Header.Set("X-B3-Sampled", "1")
	h.ServeHTTP(httptest.NewRecorder(), r)
	require.NoError(t, tracer.Stop(t.Context()))
	call := c.spans(t)["call"]
	require.Equal(t, traceID, fmt.Sprintf("%x", call.GetTraceId()))
	require.Equal(t, "no rules", call.GetStatus().GetMessage())
}

func TestTheSamplingRateDecidesWhereNoCallerDid(t *testing.T) {
	c := &collector{}
	serveHTTP(t, c)
	o := on()
	o.SamplingRate = 0
	tracer := start(t, o)
	ctx, end := tracer.StartCall(t.Context(), "call", nil)
	require.NoError(t, Store(fails{}, tracer, "pipeline").Apply(ctx, &limiter.Call{}))
	require.NoError(t, Store(fails{}, tracer, "pipeline").Apply(t.Context(), &limiter.Call{}))
	end("d", false, nil)
	require.NoError(t, tracer.Stop(t.Context()))
	require.Empty(t, c.spans(t))
}

func TestTracingThatIsOffCostsNothing(t *testing.T) {
	tracer, err := New(Options{Protocol: "smoke"})
	require.NoError(t, err)
	require.Nil(t, tracer)
	inner := fails{}
	require.Equal(t, limiter.Store(inner), Store(inner, tracer, "pipeline"))
	store, call := Store(inner, tracer, "pipeline"), &limiter.Call{}
	servicetest.Allocations(t, 0, func() { _ = store.Apply(context.Background(), call) })
}

func TestACollectorThatRefusesIsLoggedOnceEachWay(t *testing.T) {
	c := &collector{refuse: true}
	serveHTTP(t, c)
	var log bytes.Buffer
	o := on()
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	tracer := start(t, o)
	call := func() {
		_, end := tracer.StartCall(t.Context(), "call", sent())
		end("d", false, nil)
		require.NoError(t, tracer.provider.ForceFlush(t.Context()))
	}
	call()
	call()
	require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
	require.Contains(t, log.String(), "spans are not taken and dropped")
	c.mu.Lock()
	c.refuse = false
	c.mu.Unlock()
	call()
	require.NoError(t, tracer.Stop(t.Context()))
	require.Equal(t, 2, strings.Count(log.String(), "\n"), log.String())
	require.Contains(t, log.String(), "spans are taken again")
}

func TestACollectorThatHangsHoldsUpNeitherCallsNorTheStop(t *testing.T) {
	released := make(chan struct{})
	serveHTTP(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-released }))
	t.Cleanup(func() { close(released) }) // before the server's, which waits
	tracer := start(t, on())
	begin := time.Now()
	for range 10_000 { // more than wait in line
		_, end := tracer.StartCall(t.Context(), "call", sent())
		end("d", false, nil)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.NoError(t, tracer.Stop(ctx))
	require.Less(t, time.Since(begin), 5*time.Second)
}

func TestNewNamesTheVariableThatIsWrong(t *testing.T) {
	o := on()
	o.Protocol = "udp"
	_, err := New(o)
	require.EqualError(t, err, "TRACING_EXPORTER_PROTOCOL=udp: not one of http, grpc")
	o.Protocol = ""
	o.Getenv = func(name string) string {
		return map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}[name]
	}
	_, err = New(o)
	require.EqualError(t, err, "OTEL_EXPORTER_OTLP_PROTOCOL=http/json: not one of http, grpc")
}

func BenchmarkStartCall(b *testing.B) {
	o := on()
	o.SamplingRate = 0
	tracer, err := New(o)
	require.NoError(b, err)
	defer func() { _ = tracer.Stop(context.Background()) }()
	metadata := sent("traceparent", "00-"+traceID+"-"+spanID+"-00")
	b.ReportAllocs()
	for b.Loop() {
		_, end := tracer.StartCall(context.Background(), "call", metadata)
		end("d", false, nil)
	}
}
