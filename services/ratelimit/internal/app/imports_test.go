package app_test

import (
	"testing"

	"github.com/weirproxy/weir/internal/archtest"
)

// TestImports holds the direction of imports: the command runs the app, the
// app wires everything, an implementation knows its contract and no sibling.
func TestImports(t *testing.T) {
	archtest.Check(t, "github.com/weirproxy/weir/services/ratelimit", archtest.Edges{
		"cmd/ratelimit":       {"internal/app"},
		"cmd/ratelimit-check": {"internal/check"},
		"internal/app": {
			"internal/builtin", "internal/grpcserver", "internal/limiter", "internal/limits", "internal/limitsource",
			"internal/limitsource/directory", "internal/limitsource/xds", "internal/localcache", "internal/prommap", "internal/refusals", "internal/rls",
			"internal/statsd", "internal/tracing", "internal/web",
			"internal/store/redis", // for its options, its driver's log, and the address to log
			"weir/internal/admin", "weir/internal/command", "weir/internal/daemon", "weir/internal/environ", "weir/internal/setting",
		},
		"internal/check": {
			"internal/builtin", "internal/limiter", "internal/limits", "internal/limitsource", "internal/limitsource/directory",
			"internal/peerstats",
			"weir/internal/daemon", // for the version
		},
		"internal/algorithm":               {},
		"internal/algorithm/algorithmtest": {"internal/algorithm"},
		"internal/algorithm/fixedwindow":   {"internal/algorithm"},
		"internal/builtin":                 {"internal/algorithm", "internal/algorithm/*", "internal/limiter", "internal/store/*"},
		"internal/grpcserver":              {"internal/rls", "weir/internal/certificates", "weir/internal/daemon", "weir/internal/filewatch", "weir/proto/ratelimit/lyft"},
		"internal/limiter":                 {"internal/limits", "internal/algorithm", "internal/localcache"},
		"internal/limits":                  {"internal/algorithm"},
		"internal/limitsource":             {"internal/limits"},
		"internal/limitsource/directory":   {"internal/limits", "internal/limitsource", "weir/internal/filewatch"},
		"internal/limitsource/xds":         {"internal/limits", "internal/limitsource"},
		"internal/localcache":              {},
		"internal/peerstats":               {},
		"internal/prommap":                 {"internal/peerstats"},
		"internal/refusals":                {"internal/limits"},
		"internal/rls":                     {"internal/limiter", "internal/limits"},
		"internal/statsd":                  {"internal/peerstats"},
		"internal/store/bywindow":          {"internal/limiter", "internal/algorithm"},
		"internal/store/memory":            {"internal/limiter", "internal/algorithm"},
		"internal/store/redis":             {"internal/limiter", "internal/algorithm"},
		"internal/store/storetest":         {"internal/limiter", "internal/algorithm", "internal/algorithm/fixedwindow"},
		"internal/tracing":                 {"internal/limiter"},
		"internal/web":                     {"internal/limits", "internal/refusals"},
	})
}
