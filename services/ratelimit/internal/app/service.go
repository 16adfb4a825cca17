package app

import (
	"context"
	"errors"

	"google.golang.org/grpc/metadata"

	"github.com/weirproxy/weir/services/ratelimit/internal/rls"
	"github.com/weirproxy/weir/services/ratelimit/internal/tracing"
)

// makeService makes the rate limit service, which is served over HTTP and gRPC.
func (b *build) makeService() {
	o := &b.options
	options := rls.Options{
		Limiter: b.limiter, DynamicMetadata: o.DynamicMetadata, MaxDescriptors: o.MaxDescriptors, JSONTimeout: o.JSONTimeout,
		Log: b.log, Metrics: b.metrics,
	}
	if o.ResponseHeaders {
		options.Headers = &rls.Headers{Limit: o.LimitHeader, Remaining: o.RemainingHeader, Reset: o.ResetHeader}
	}
	if b.tracer != nil {
		options.Tracer = callTracer{b.tracer}
	}
	b.service = rls.New(options)
}

// callTracer makes a span of each call.
type callTracer struct{ tracer *tracing.Tracer }

// Begin is part of rls.Tracer.
func (t callTracer) Begin(ctx context.Context) (context.Context, func(string, bool, *rls.Error)) {
	traced, end := t.tracer.StartCall(ctx, "ShouldRateLimit Execution",
		func(key string) []string { return metadata.ValueFromIncomingContext(ctx, key) })
	return traced, func(domain string, over bool, e *rls.Error) {
		var err error // an *rls.Error that is nil would be an error that is not
		if e != nil {
			err = errors.New(e.Text)
		}
		end(domain, over, err)
	}
}
