package bootstrap

import (
	"maps"
	"math"
	"slices"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Runtime is the runtime that the bootstrap sets (layered_runtime): later layers
// lie over earlier ones.
type Runtime struct{ values map[string]*structpb.Value }

// A listener's key is its name between these two.
const (
	beforeListener = "envoy.resource_limits.listener."
	afterListener  = ".connection_limit"
)

// ConnectionLimit bounds the connections of a listener at once; 0 is no bound.
func (r Runtime) ConnectionLimit(listener string) int64 {
	return int64(r.values[beforeListener+listener+afterListener].GetNumberValue())
}

func readRuntime(m *bootstrapv3.LayeredRuntime, at strict.Path, report *strict.Report) Runtime {
	r := Runtime{map[string]*structpb.Value{}}
	names := map[string]bool{}
	for i, layer := range m.GetLayers() {
		at := at.Field("layers").Index(i)
		if names[layer.GetName()] {
			report.Add(at.Field("name"), "layer %q is there twice", layer.GetName())
		}
		names[layer.GetName()] = true
		r.add("", layer.GetStaticLayer(), at.Field("static_layer"), report)
	}
	return r
}

// add takes the values of a struct, whose keys go on from a prefix.
func (r Runtime) add(prefix string, layer *structpb.Struct, at strict.Path, report *strict.Report) {
	for _, name := range slices.Sorted(maps.Keys(layer.GetFields())) {
		value, key, at := layer.GetFields()[name], prefix+name, at.Field(name)
		if inner := value.GetStructValue(); inner != nil {
			r.add(key+".", inner, at, report)
			continue
		}
		listener := strings.TrimSuffix(strings.TrimPrefix(key, beforeListener), afterListener)
		if len(listener)+len(beforeListener)+len(afterListener) != len(key) || listener == "" {
			report.Add(at, "runtime key %q: nothing here reads it; known is %s<listener>%s", key, beforeListener, afterListener)
			continue
		}
		n, ok := value.GetKind().(*structpb.Value_NumberValue)
		if !ok || n.NumberValue < 0 || n.NumberValue > math.MaxInt32 || n.NumberValue != math.Trunc(n.NumberValue) {
			report.Add(at, "runtime key %q: want a number of connections", key)
			continue
		}
		r.values[key] = value
	}
}
