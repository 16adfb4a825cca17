package app_test

import (
	"testing"

	"github.com/weirproxy/weir/internal/archtest"
)

// TestImports holds the direction of imports: a command runs one package, the
// app wires everything, faces and stores know the registry and not each other.
func TestImports(t *testing.T) {
	archtest.Check(t, "github.com/weirproxy/weir/services/discovery", archtest.Edges{
		"cmd/discovery":       {"internal/app"},
		"cmd/discovery-agent": {"internal/agent"},
		"internal/agent":      {"internal/client", "internal/pause", "internal/replacefile", "weir/internal/daemon", "weir/internal/setting"},
		"internal/client":     {},
		"internal/app": {
			"internal/auth", "internal/beats", "internal/builtin", "internal/check", "internal/denial", "internal/gate", "internal/guard",
			"internal/hds", "internal/httpjson", "internal/lrs", "internal/quota", "internal/registry", "internal/resourcefiles",
			"internal/resources", "internal/rest/call", "internal/rest/prometheus", "internal/rest/v1", "internal/rest/v2", "internal/statsd",
			"internal/templatefile", "internal/web", "internal/xds",
			"weir/internal/admin", "weir/internal/certificates", "weir/internal/command", "weir/internal/daemon", "weir/internal/filewatch",
			"weir/internal/grpchttp2", "weir/internal/http2", "weir/internal/setting",
		},
		"internal/beats":                 {"internal/auth", "internal/registry", "weir/internal/grpchttp2", "weir/proto/discovery/v2"},
		"internal/auth":                  {"internal/denial", "weir/internal/filewatch"},
		"internal/builtin":               {"internal/registry", "internal/store/*"},
		"internal/registry":              {"internal/guard", "internal/pause"},
		"internal/gate":                  {"internal/auth", "internal/denial", "internal/httpjson", "internal/quota"},
		"internal/quota":                 {"internal/denial"},
		"internal/denial":                {},
		"internal/pause":                 {},
		"internal/replacefile":           {},
		"internal/registry/registrytest": {"internal/registry", "internal/store/memory"},
		"internal/httpjson":              {},
		"internal/rest/call":             {"internal/denial", "internal/httpjson", "internal/registry"},
		"internal/rest/prometheus":       {"internal/httpjson", "internal/registry", "internal/rest/call"},
		"internal/rest/v1": {
			"internal/auth", "internal/httpjson", "internal/registry", "internal/rest/call", "internal/rest/jsontext", "internal/rest/sheet",
			"internal/rule",
		},
		"internal/statsd":        {"internal/registry", "internal/rule"},
		"internal/rest/jsontext": {},
		"internal/rest/sheet":    {"internal/httpjson", "internal/registry"},
		"internal/rule":          {},
		"internal/rest/v2": {
			"internal/auth", "internal/httpjson", "internal/lrs", "internal/registry", "internal/resourcefiles", "internal/rest/call",
			"internal/rest/jsontext", "internal/rest/sheet", "internal/rule", "internal/xds",
		},
		"internal/web":   {"internal/httpjson", "internal/rest/call"},
		"internal/hello": {},
		"internal/xds": {
			"internal/hello", "internal/httpjson", "internal/registry", "internal/resources", "internal/rest/call",
			"weir/internal/grpchttp2", "weir/internal/http2",
		},
		"internal/lrs": {"internal/hello"},
		"internal/hds": {
			"internal/auth", "internal/hello", "internal/registry", "internal/resources",
			"weir/internal/filewatch", "weir/internal/grpchttp2", "weir/internal/protoyaml",
		},
		"internal/resources":       {"internal/registry", "weir/internal/protoyaml"},
		"internal/check":           {"internal/resourcefiles", "internal/resources", "weir/internal/filewatch"},
		"internal/resourcefiles":   {"internal/resources", "weir/internal/filewatch", "weir/internal/protoyaml"},
		"internal/templatefile":    {"internal/resources", "weir/internal/filewatch"},
		"internal/store/memory":    {"internal/registry"},
		"internal/store/fallback":  {"internal/pause", "internal/registry"},
		"internal/store/file":      {"internal/registry", "internal/replacefile", "internal/store/record"},
		"internal/store/record":    {"internal/registry"},
		"internal/guard":           {},
		"internal/store/redis":     {"internal/registry", "internal/store/record"},
		"internal/store/storetest": {"internal/registry", "weir/internal/servicetest"},
	})
}
