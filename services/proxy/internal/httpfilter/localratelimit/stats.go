package localratelimit

import "github.com/weirproxy/weir/services/proxy/internal/stats"

// limitStats are the metrics below <stat_prefix>.http_local_rate_limit, by
// Envoy's names.
type limitStats struct{ enabled, ok, limited, enforced, shadow *stats.Counter }

func newStats(registry *stats.Registry, prefix string) *limitStats {
	scope := registry.Scope("").Tagged("envoy_local_http_ratelimit_prefix", prefix).Scope("http_local_rate_limit")
	return &limitStats{
		enabled:  scope.Counter("enabled"),
		ok:       scope.Counter("ok"),
		limited:  scope.Counter("rate_limited"),
		enforced: scope.Counter("enforced"),
		shadow:   scope.Counter("shadow_mode"),
	}
}
