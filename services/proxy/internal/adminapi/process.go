package adminapi

import (
	"encoding/json"
	"net/http"
	"net/url"
	"runtime"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
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
	values := a.Runtime.Snapshot()
	entries := map[string]runtimeEntry{}
	for key, e := range values.Entries() {
		entries[key] = runtimeEntry{e.Layers, e.Final}
	}
	text, err := json.Marshal(map[string]any{"layers": values.Layers(), "entries": entries})
	if err != nil {
		return err
	}
	writeJSON(w, text)
	return nil
}
