// Package localratelimit is the listener filter that limits how many connections a
// listener takes, by a token bucket in this process
// (envoy.extensions.filters.listener.local_ratelimit.v3.LocalRateLimit). It closes
// those that are over the limit before anything is read from them. It asks nobody, and
// says nothing about requests.
package localratelimit

import (
	"time"

	localv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/local_ratelimit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/tokenbucket"
)

// Factory makes limits of connections. It implements listenerfilter.Factory.
type Factory struct {
	// Runtime has the values that the configuration leaves to it; nil is none.
	Runtime *layeredruntime.Runtime
}

// ConfigType implements listenerfilter.Factory.
func (Factory) ConfigType() protoreflect.FullName {
	return (&localv3.LocalRateLimit{}).ProtoReflect().Descriptor().FullName()
}

// Fields implements listenerfilter.Factory.
func (f Factory) Fields() strict.Fields {
	return strict.Fields{
		f.ConfigType(): {"stat_prefix", "token_bucket", "runtime_enabled"},
		"envoy.config.core.v3.RuntimeFeatureFlag": {"default_value", "runtime_key"},
	}
}

// Parse implements listenerfilter.Factory.
func (f Factory) Parse(message proto.Message, at strict.Path, report *strict.Report) listenerfilter.Filter {
	m, ok := message.(*localv3.LocalRateLimit)
	if !ok {
		report.Add(at, "is a %T, not a %s", message, f.ConfigType())
		return nil
	}
	l := &limit{runtime: f.Runtime, enabled: true, prefix: m.GetStatPrefix()}
	if flag := m.GetRuntimeEnabled(); flag != nil {
		l.enabled, l.key = flag.GetDefaultValue().GetValue(), flag.GetRuntimeKey()
	}
	if size := tokenbucket.Parse(m.GetTokenBucket(), at.Field("token_bucket"), report); size.Interval > 0 {
		l.bucket = tokenbucket.New(size)
	}
	return l
}

// limit is the filter of one listener, all of whose connections take from its bucket.
type limit struct {
	bucket  *tokenbucket.Bucket
	runtime *layeredruntime.Runtime
	// enabled is whether it limits unless the runtime's key says otherwise.
	enabled bool
	key     string
	prefix  string
	limited *stats.Counter
}

// Measure implements listenerfilter.Filter.
func (l *limit) Measure(registry *stats.Registry) {
	scope := registry.Scope("listener_local_ratelimit").Tagged("envoy_local_listener_ratelimit_prefix", l.prefix)
	l.limited = scope.Counter("rate_limited")
}

// Inspect implements listenerfilter.Filter. It never blocks.
func (l *limit) Inspect(*listenerfilter.Socket) error {
	if !l.runtime.Snapshot().Boolean(l.key, l.enabled) || l.bucket.Take(time.Now(), 1) {
		return nil
	}
	l.limited.Inc()
	return listenerfilter.ErrClose
}
