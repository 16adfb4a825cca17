package v2

import (
	"net/http"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	"github.com/weirproxy/weir/services/discovery/internal/rule"
)

// pathKey reads which host a call is about.
func pathKey(r *http.Request, f *call.Faults) registry.Key {
	return registry.Key{Service: pathService(r, f), ID: pathName(r, "id", rule.Name, f)}
}

// pathService reads which service a call is about.
func pathService(r *http.Request, f *call.Faults) string {
	return pathName(r, "service", rule.ServiceName, f)
}

// pathKind reads the kind of setting that a call is about.
func pathKind(r *http.Request, f *call.Faults) registry.SettingKind {
	name := pathName(r, "kind", rule.Name, f)
	kind := registry.SettingKind(name)
	switch kind {
	case registry.Weigh, registry.Drain, registry.Maintenance:
	default:
		f.Add("kind", "%q is not one of weight, drain, maintenance", name)
	}
	return kind
}

// pathName returns what a segment of the path names.
func pathName(r *http.Request, segment string, check func(string) error, f *call.Faults) string {
	name := r.PathValue(segment)
	if err := check(name); err != nil {
		f.Add(segment, "%v", err)
	}
	return name
}
