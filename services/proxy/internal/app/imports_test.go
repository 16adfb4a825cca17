package app_test

import (
	"testing"

	"github.com/weirproxy/weir/internal/archtest"
)

// TestImports holds the direction of imports: the command runs the app, the
// app wires everything, an implementation knows its contract and no sibling.
func TestImports(t *testing.T) {
	archtest.Check(t, "github.com/weirproxy/weir/services/proxy", archtest.Edges{
		"cmd/proxy": {"internal/app"},
		"internal/app": {
			"internal/accesslog", "internal/adminapi", "internal/bootstrap", "internal/builtin", "internal/cluster", "internal/coreconfig", "internal/format",
			"internal/grpcchannel", "internal/layeredruntime", "internal/listener", "internal/matcher", "internal/message", "internal/rds", "internal/rlsclient",
			"internal/route", "internal/stats", "internal/strict", "internal/web", "internal/xds",
			"weir/internal/admin", "weir/internal/daemon",
		},
		"internal/builtin": {
			"internal/accesslog", "internal/bootstrap", "internal/cluster", "internal/cluster/lb", "internal/coreconfig",
			"internal/descriptor", "internal/format", "internal/hashpolicy", "internal/headermutation",
			"internal/httpfilter", "internal/httpfilter/buffer", "internal/httpfilter/fault", "internal/httpfilter/healthcheck",
			"internal/httpfilter/iptagging", "internal/httpfilter/localratelimit", "internal/httpfilter/ratelimit",
			"internal/httpfilter/router", "internal/layeredruntime", "internal/listener", "internal/listenerfilter", "internal/listenerfilter/httpinspector",
			"internal/listenerfilter/localratelimit", "internal/matcher", "internal/networkfilter", "internal/networkfilter/hcm",
			"internal/rds", "internal/retry", "internal/rlsclient", "internal/route", "internal/stats", "internal/strict", "internal/tokenbucket", "internal/tracing",
		},
		"internal/adminapi": {
			"internal/cluster", "internal/cluster/breaker", "internal/layeredruntime", "internal/listener", "internal/rds", "internal/stats", "internal/strict",
			"internal/web", "internal/xds",
		},
		"internal/web": {},

		"internal/bootstrap":                  {"internal/coreconfig", "internal/layeredruntime", "internal/matcher", "internal/strict"},
		"internal/coreconfig":                 {"internal/fixedheader", "internal/http1", "internal/strict", "weir/internal/http2"},
		"internal/strict":                     {"weir/internal/protoyaml"},
		"internal/stats":                      {},
		"internal/layeredruntime/runtimetest": {"internal/layeredruntime", "internal/stats", "internal/strict"},
		"internal/layeredruntime":             {"internal/stats", "internal/strict", "weir/internal/protoyaml"},
		"internal/xds":                        {"internal/coreconfig", "internal/stats", "internal/strict", "weir/internal/filewatch"},
		"internal/rds":                        {"internal/coreconfig", "internal/route", "internal/stats", "internal/strict", "internal/xds"},

		"internal/listener": {
			"internal/coreconfig", "internal/listenerfilter", "internal/networkfilter", "internal/stats", "internal/strict", "internal/xds", "weir/internal/daemon",
		},
		"internal/listenerfilter": {"internal/stats", "internal/strict"},
		"internal/listenerfilter/listenerfiltertest": {
			"internal/coreconfig", "internal/listener", "internal/listenerfilter", "internal/readmetest", "internal/strict", "internal/tokenbucket",
			"weir/internal/servicetest",
		},
		"internal/readmetest":                    {},
		"internal/listenerfilter/httpinspector":  {"internal/listenerfilter", "internal/stats", "internal/strict"},
		"internal/listenerfilter/localratelimit": {"internal/layeredruntime", "internal/listenerfilter", "internal/stats", "internal/strict", "internal/tokenbucket"},
		"internal/networkfilter":                 {"internal/coreconfig", "internal/strict"},
		"internal/networkfilter/hcm": {
			"internal/accesslog", "internal/cluster", "internal/codecstats", "internal/coreconfig", "internal/deadline", "internal/format", "internal/http1", "internal/httpfilter", "internal/identity", "internal/layeredruntime", "internal/message", "internal/networkfilter", "internal/normalize", "internal/rds",
			"internal/requestid", "internal/route", "internal/stats", "internal/stream", "internal/strict", "internal/tracing",
			"weir/internal/http2",
		},
		"internal/message":    {"weir/internal/http2"},
		"internal/http1":      {"internal/message"},
		"internal/identity":   {"internal/message", "internal/requestid", "internal/uuid"},
		"internal/requestid":  {"internal/message"},
		"internal/tracing":    {"internal/layeredruntime", "internal/matcher", "internal/message", "internal/requestid", "internal/strict"},
		"internal/uuid":       {},
		"internal/normalize":  {},
		"internal/stream":     {"internal/cluster", "internal/format", "internal/hold", "internal/layeredruntime", "internal/message", "internal/route"},
		"internal/httpfilter": {"internal/format", "internal/grpcwire", "internal/message", "internal/route", "internal/stats", "internal/stream", "internal/strict"},
		"internal/httpfilter/filtertest": {
			"internal/coreconfig", "internal/descriptor", "internal/hashpolicy", "internal/headermutation", "internal/httpfilter",
			"internal/layeredruntime", "internal/matcher", "internal/message", "internal/readmetest", "internal/route", "internal/stats", "internal/stream", "internal/strict",
			"internal/tokenbucket",
		},
		"internal/httpfilter/ratelimit": {
			"internal/cluster", "internal/coreconfig", "internal/descriptor", "internal/format", "internal/grpcwire", "internal/headermutation", "internal/httpfilter",
			"internal/matcher", "internal/message", "internal/rlsclient", "internal/route", "internal/stats", "internal/stream",
			"internal/strict", "internal/upstream",
		},
		"internal/httpfilter/router": {
			"internal/accesslog", "internal/cluster", "internal/cluster/breaker", "internal/cluster/outlier", "internal/connpool", "internal/format",
			"internal/grpcwire", "internal/hashpolicy", "internal/http1", "internal/httpfilter", "internal/layeredruntime", "internal/message", "internal/retry", "internal/route", "internal/stats", "internal/stream", "internal/strict",
			"internal/upstream",
		},
		"internal/format":         {"internal/grpcwire", "internal/message", "internal/strict", "internal/uuid"},
		"internal/headermutation": {"internal/format", "internal/message", "internal/strict"},
		"internal/accesslog":      {"internal/format", "internal/layeredruntime", "internal/matcher", "internal/requestid", "internal/stats", "internal/strict"},

		"internal/route": {
			"internal/coreconfig", "internal/descriptor", "internal/format", "internal/grpcwire", "internal/hashpolicy", "internal/headermutation", "internal/http1", "internal/layeredruntime", "internal/matcher", "internal/message", "internal/pathindex", "internal/retry", "internal/strict", "internal/tracing",
		},
		"internal/retry":      {"internal/coreconfig", "internal/layeredruntime", "internal/matcher", "internal/message", "internal/strict"},
		"internal/pathindex":  {"internal/matcher"},
		"internal/matcher":    {"internal/layeredruntime", "internal/message", "internal/strict"},
		"internal/hashpolicy": {"internal/coreconfig", "internal/matcher", "internal/message", "internal/strict"},
		"internal/descriptor": {"internal/format", "internal/layeredruntime", "internal/matcher", "internal/message", "internal/strict"},
		"internal/cluster": {
			"internal/cluster/breaker", "internal/cluster/edf", "internal/cluster/healthcheck", "internal/cluster/outlier",
			"internal/codecstats", "internal/connpool", "internal/coreconfig", "internal/dns", "internal/http1", "internal/layeredruntime", "internal/stats", "internal/strict", "internal/xds",
			"weir/internal/http2",
		},
		"internal/cluster/edf":     {},
		"internal/dns":             {"internal/coreconfig", "internal/strict"},
		"internal/cluster/lb":      {"internal/cluster", "internal/cluster/edf", "internal/layeredruntime", "internal/stats", "internal/strict"},
		"internal/connpool":        {"internal/cluster/breaker", "internal/http1", "internal/message", "weir/internal/http2"},
		"internal/upstream":        {"internal/cluster", "internal/cluster/breaker", "internal/cluster/outlier", "internal/connpool", "internal/grpcwire", "internal/hold", "internal/message"},
		"internal/fixedheader":     {"internal/message", "internal/strict"},
		"internal/cluster/outlier": {"internal/coreconfig", "internal/stats", "internal/strict"},
		"internal/codecstats":      {"internal/stats", "weir/internal/http2"},
		"internal/deadline":        {},
		"internal/hold":            {"internal/message"},
		"internal/grpcchannel":     {"internal/cluster"},
		"internal/grpcwire":        {},
		"internal/grpccall":        {"internal/cluster", "internal/connpool", "internal/grpcwire", "internal/layeredruntime", "internal/message", "internal/upstream"},
		"internal/rlsclient":       {"internal/cluster", "internal/coreconfig", "internal/descriptor", "internal/grpccall", "internal/hold", "internal/layeredruntime", "internal/message", "internal/upstream"},
		"internal/cluster/breaker": {"internal/stats", "internal/strict"},
		"internal/cluster/healthcheck": {
			"internal/coreconfig", "internal/format", "internal/grpcwire", "internal/headermutation", "internal/http1", "internal/matcher", "internal/message", "internal/stats",
			"internal/strict", "weir/internal/http2",
		},
		"internal/httpfilter/buffer":      {"internal/httpfilter", "internal/message", "internal/stream", "internal/strict"},
		"internal/httpfilter/iptagging":   {"internal/fixedheader", "internal/httpfilter", "internal/matcher", "internal/stats", "internal/stream", "internal/strict"},
		"internal/httpfilter/healthcheck": {"internal/coreconfig", "internal/format", "internal/httpfilter", "internal/matcher", "internal/stats", "internal/stream", "internal/strict"},
		"internal/httpfilter/fault":       {"internal/format", "internal/grpcwire", "internal/httpfilter", "internal/layeredruntime", "internal/matcher", "internal/message", "internal/stats", "internal/stream", "internal/strict"},
		"internal/httpfilter/localratelimit": {
			"internal/descriptor", "internal/format", "internal/headermutation", "internal/httpfilter", "internal/matcher", "internal/route",
			"internal/stats", "internal/stream", "internal/strict", "internal/tokenbucket",
		},
		"internal/tokenbucket": {"internal/strict"},
	})
}
