package peerstats

import (
	"math"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"
)

// row is one flat name of a family.
type row struct {
	kind Kind
	// name is the flat name of the metric with these labels, not yet sanitised.
	name func(labels) string
	// scale turns the family's unit into that of the flat name; 0 is 1.
	scale float64
	// ofSum has a Counter grow by what a summary sums up, in whole numbers, and
	// not by how much it has seen.
	ofSum bool
}

func (r row) scaled() float64 {
	if r.scale == 0 {
		return 1
	}
	return r.scale
}

// Rounded takes away what a change of unit added: 0.010000000000000002 is
// 0.01.
func Rounded(value float64) float64 {
	if math.IsInf(value, 0) {
		return value
	}
	short, err := strconv.ParseFloat(strconv.FormatFloat(value, 'g', 12, 64), 64)
	if err != nil {
		return value
	}
	return short
}

// labels gives the labels of one metric by name.
type labels struct{ metric *dto.Metric }

// get is the label's value, or otherwise.
func (l labels) get(name, otherwise string) string {
	for _, pair := range l.metric.GetLabel() {
		if pair.GetName() == name && pair.GetValue() != "" {
			return pair.GetValue()
		}
	}
	return otherwise
}

// rows are the flat names of each family that has one. Those of the peer's that
// have no family are of memcached; most of what we count beyond it has no name
// there.
var rows = map[string][]row{
	"ratelimit_service_rate_limit_total_hits":                  {ofRule("total_hits")},
	"ratelimit_service_rate_limit_within_limit":                {ofRule("within_limit")},
	"ratelimit_service_rate_limit_over_limit":                  {ofRule("over_limit")},
	"ratelimit_service_rate_limit_near_limit":                  {ofRule("near_limit")},
	"ratelimit_service_rate_limit_over_limit_with_local_cache": {ofRule("over_limit_with_local_cache")},
	"ratelimit_service_rate_limit_shadow_mode":                 {ofRule("shadow_mode")},
	"ratelimit_service_rate_limit_total_negative_hits":         {ofRule("total_negative_hits")},
	"ratelimit_service_rate_limit_domain_not_found":            {{kind: Counter, name: domainNotFound}},

	"ratelimit_service_total_requests":          {{kind: Counter, name: ofMethod("total_requests")}},
	"ratelimit_service_response_time_seconds":   {{kind: Timer, name: ofMethod("response_time"), scale: 1000}},
	"ratelimit_service_should_rate_limit_error": {{kind: Counter, name: callError}},

	// The peer's library of files counts by itself what there is to load.
	"ratelimit_service_config_load_success": {plain(Counter, "ratelimit.service.config_load_success"), plain(Counter, "runtime.load_attempts")},
	"ratelimit_service_config_load_error":   {plain(Counter, "ratelimit.service.config_load_error"), plain(Counter, "runtime.load_attempts")},
	"ratelimit_service_config_unread":       {plain(Counter, "runtime.load_failures")},
	"ratelimit_service_config_sources":      {plain(Gauge, "runtime.num_values")},
	"ratelimit_service_global_shadow_mode":  {plain(Counter, "ratelimit.service.global_shadow_mode")},

	"ratelimit_certificates_load_success": {plain(Counter, "certs.load_attempts")},
	"ratelimit_certificates_load_error":   {plain(Counter, "certs.load_attempts"), plain(Counter, "certs.load_failures")},
	"ratelimit_certificates_files":        {plain(Gauge, "certs.num_values")},

	"ratelimit_localcache_entries":           {plain(Gauge, "ratelimit.localcache.entryCount")},
	"ratelimit_localcache_last_used_seconds": {plain(Gauge, "ratelimit.localcache.averageAccessTime")},
	"ratelimit_localcache_hits_total":        {plain(Gauge, "ratelimit.localcache.hitCount"), plain(Gauge, "ratelimit.localcache.lookupCount")},
	"ratelimit_localcache_misses_total":      {plain(Gauge, "ratelimit.localcache.missCount"), plain(Gauge, "ratelimit.localcache.lookupCount")},
	"ratelimit_localcache_evicted_total":     {plain(Gauge, "ratelimit.localcache.evacuateCount")},
	"ratelimit_localcache_expired_total":     {plain(Gauge, "ratelimit.localcache.expiredCount")},
	"ratelimit_localcache_overwritten_total": {plain(Gauge, "ratelimit.localcache.overwriteCount")},

	"ratelimit_redis_connections":              {{kind: Gauge, name: ofPool("cx_active")}},
	"ratelimit_redis_connections_opened_total": {{kind: Counter, name: ofPool("cx_total")}},
	"ratelimit_redis_connections_closed_total": {{kind: Counter, name: ofPool("cx_local_close")}},

	"go_memstats_alloc_bytes":          {plain(Gauge, "ratelimit.go.alloc"), plain(Gauge, "ratelimit.go.heapAlloc")},
	"go_memstats_alloc_bytes_total":    {plain(Counter, "ratelimit.go.totalAlloc")},
	"go_memstats_sys_bytes":            {plain(Gauge, "ratelimit.go.sys")},
	"go_memstats_mallocs_total":        {plain(Counter, "ratelimit.go.mallocs")},
	"go_memstats_frees_total":          {plain(Counter, "ratelimit.go.frees")},
	"go_memstats_heap_sys_bytes":       {plain(Gauge, "ratelimit.go.heapSys")},
	"go_memstats_heap_idle_bytes":      {plain(Gauge, "ratelimit.go.heapIdle")},
	"go_memstats_heap_inuse_bytes":     {plain(Gauge, "ratelimit.go.heapInuse")},
	"go_memstats_heap_released_bytes":  {plain(Gauge, "ratelimit.go.heapReleased")},
	"go_memstats_heap_objects":         {plain(Gauge, "ratelimit.go.heapObjects")},
	"go_memstats_next_gc_bytes":        {plain(Gauge, "ratelimit.go.nextGC")},
	"go_memstats_last_gc_time_seconds": {{kind: Gauge, name: called("ratelimit.go.lastGC"), scale: 1e9}},
	"go_gc_duration_seconds": {
		plain(Counter, "ratelimit.go.numGC"),
		{kind: Counter, name: called("ratelimit.go.pauseTotalNs"), scale: 1e9, ofSum: true},
	},
	"go_goroutines":                  {plain(Gauge, "ratelimit.go.numGoroutine")},
	"ratelimit_process_gc_cpu_ratio": {{kind: Gauge, name: called("ratelimit.go.gcCPUPercent"), scale: 100}},
}

func plain(kind Kind, name string) row { return row{kind: kind, name: called(name)} }

func called(name string) func(labels) string { return func(labels) string { return name } }

// ruleScope is what the names of all statistics of rules begin with.
const ruleScope = "ratelimit.service.rate_limit."

func ofRule(suffix string) row {
	return row{kind: Counter, name: func(l labels) string {
		return scopeOf(l.get("domain", ""), l.get("rule", "")) + "." + suffix
	}}
}

// scopeOf is what the names of one rule's statistics begin with, not yet
// sanitised.
func scopeOf(domain, rule string) string { return ruleScope + domain + "." + spelled(rule) }

// RuleName returns what the flat names of all statistics of a rule begin with,
// but for the dot behind it. domain and rule are labels of its metrics.
func RuleName(domain, rule string) string { return Sanitize(scopeOf(domain, rule)) }

// spelled is a rule's name as the peer spells it, key_value.key2. One in
// quotes, `"key"="value"."key2"`, loses them: to the peer, rules whose names
// read the same share their statistics.
func spelled(rule string) string {
	if !strings.HasPrefix(rule, `"`) {
		return rule
	}
	var name strings.Builder
	for rest := rule; ; {
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return rule
		}
		text, err := strconv.Unquote(quoted)
		if err != nil {
			return rule
		}
		name.WriteString(text)
		rest = rest[len(quoted):]
		switch {
		case rest == "":
			return name.String()
		case rest[0] == '=':
			name.WriteByte('_')
		default:
			name.WriteByte('.')
		}
		rest = rest[1:]
	}
}

func domainNotFound(l labels) string { return ruleScope + l.get("domain", "") + ".domain_not_found" }

func ofMethod(suffix string) func(labels) string {
	return func(l labels) string {
		return "ratelimit_server." + l.get("grpc_method", "ShouldRateLimit") + "." + suffix
	}
}

// callError knows two causes, as the peer does: the store, and all else.
func callError(l labels) string {
	if l.get("err_type", "") == "store_error" {
		return "ratelimit.service.call.should_rate_limit.redis_error"
	}
	return "ratelimit.service.call.should_rate_limit.service_error"
}

// ofPool names the pool of one Redis: redis_pool, or redis_per_second_pool for
// that of the limits per second.
func ofPool(suffix string) func(labels) string {
	return func(l labels) string { return "ratelimit." + l.get("pool", "redis_pool") + "." + suffix }
}
