package adminapi

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"runtime"
	"slices"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// certificates serves /certs. There are none without TLS.
func certificates(w http.ResponseWriter, _ url.Values) error {
	return writeMessage(w, &adminv3.Certificates{}, true)
}

// hotRestartVersion serves /hot_restart_version.
func hotRestartVersion(w http.ResponseWriter, _ url.Values) error {
	writeText(w, []byte("disabled\n"))
	return nil
}

// memory serves /memory: what Go's heap has, in the fields that Envoy has for its
// own. All are bytes.
func (a *api) memory(w http.ResponseWriter, _ url.Values) error {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return writeMessage(w, &adminv3.Memory{
		Allocated:          m.HeapAlloc,
		HeapSize:           m.HeapSys - m.HeapReleased,
		PageheapUnmapped:   m.HeapReleased,
		PageheapFree:       m.HeapIdle - m.HeapReleased,
		TotalThreadCache:   m.MCacheInuse,
		TotalPhysicalBytes: m.Sys - m.HeapReleased,
	}, true)
}

// runtimeEntry is the value of a key in each layer, "" where it has none, and the
// one that holds: the last.
type runtimeEntry struct {
	LayerValues []string `json:"layer_values"`
	FinalValue  string   `json:"final_value"`
}

// runtime serves /runtime, which is JSON always.
func (a *api) runtime(w http.ResponseWriter, query url.Values) error {
	if _, err := choice(query, "format", "json"); err != nil {
		return err
	}
	layers := []string{}
	entries := map[string]*runtimeEntry{}
	all := a.Bootstrap.GetLayeredRuntime().GetLayers()
	for i, layer := range all {
		layers = append(layers, layer.GetName())
		eachValue("", layer.GetStaticLayer(), func(key, value string) {
			if entries[key] == nil {
				entries[key] = &runtimeEntry{LayerValues: make([]string, len(all))}
			}
			entries[key].LayerValues[i] = value
			entries[key].FinalValue = value
		})
	}
	text, err := json.Marshal(map[string]any{"layers": layers, "entries": entries})
	if err != nil {
		return err
	}
	writeJSON(w, text)
	return nil
}

// eachValue calls f for each value of a layer. A struct within it adds to the key.
func eachValue(prefix string, layer *structpb.Struct, f func(key, value string)) {
	for _, name := range slices.Sorted(maps.Keys(layer.GetFields())) {
		value := layer.GetFields()[name]
		if inner := value.GetStructValue(); inner != nil {
			eachValue(prefix+name+".", inner, f)
			continue
		}
		text, ok := value.GetKind().(*structpb.Value_StringValue)
		if ok {
			f(prefix+name, text.StringValue)
			continue
		}
		written, err := value.MarshalJSON()
		if err == nil { // it came from JSON
			f(prefix+name, string(written))
		}
	}
}
