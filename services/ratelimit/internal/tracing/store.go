package tracing

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

// Store is inner with a span of that name around each Apply of a call that has
// one. Without a Tracer it is inner itself.
func Store(inner limiter.Store, t *Tracer, name string) limiter.Store {
	if t == nil {
		return inner
	}
	return &store{inner, t.tracer, name}
}

type store struct {
	limiter.Store
	tracer trace.Tracer
	name   string
}

// Apply is part of limiter.Store.
func (s *store) Apply(ctx context.Context, call *limiter.Call) error {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return s.Store.Apply(ctx, call)
	}
	ctx, span := s.tracer.Start(ctx, s.name,
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.Int("pipeline length", len(call.Ops))))
	err := s.Store.Apply(ctx, call)
	finish(span, err)
	return err
}
