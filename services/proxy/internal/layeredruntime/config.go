package layeredruntime

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Fields are the supported fields of the messages that Parse reads.
func Fields() strict.Fields {
	return strict.Fields{
		"envoy.config.bootstrap.v3.LayeredRuntime":          {"layers"},
		"envoy.config.bootstrap.v3.RuntimeLayer":            {"name", "static_layer", "admin_layer"},
		"envoy.config.bootstrap.v3.RuntimeLayer.AdminLayer": {},
	}
}

// Config is a checked layered_runtime. The zero value has no layers.
type Config struct {
	layers []layer
	admin  int // the number of the admin_layer; −1 for none
}

// layer is the values of one layer; it is not changed once it is in a Snapshot.
type layer struct {
	name   string
	values map[string]value
}

// Parse makes a Config of a message, nil for none, that lies at the path at.
// Faults go to report; the result is for use only if there are none.
func Parse(m *bootstrapv3.LayeredRuntime, at strict.Path, report *strict.Report) *Config {
	c := &Config{admin: -1}
	names := map[string]bool{}
	for i, given := range m.GetLayers() {
		at := at.Field("layers").Index(i)
		if names[given.GetName()] {
			report.Add(at.Field("name"), "layer %q is there twice", given.GetName())
		}
		names[given.GetName()] = true
		l := layer{name: given.GetName(), values: map[string]value{}}
		if given.GetAdminLayer() != nil {
			if c.admin >= 0 {
				report.Add(at.Field("admin_layer"), "there is an admin_layer already, and one is all there can be")
			}
			c.admin = i
		}
		l.add("", given.GetStaticLayer(), at.Field("static_layer"), report)
		c.layers = append(c.layers, l)
	}
	return c
}

// add takes the values of a struct, whose keys go on from a prefix.
func (l *layer) add(prefix string, from *structpb.Struct, at strict.Path, report *strict.Report) {
	for _, name := range slices.Sorted(maps.Keys(from.GetFields())) {
		given, key, at := from.GetFields()[name], prefix+name, at.Key(name)
		if inner := given.GetStructValue(); inner != nil && !isShare(inner) {
			l.add(key+".", inner, at, report)
			continue
		}
		v, err := valueOf(given)
		if err == nil {
			err = check(key, v)
		}
		if err != nil {
			report.Add(at, "runtime key %q: %v", key, err)
			continue
		}
		l.values[key] = v
	}
}

// isShare says whether a struct is a FractionalPercent, and not keys that go on.
func isShare(s *structpb.Struct) bool {
	return len(s.GetFields()) == 0 || s.GetFields()["numerator"] != nil || s.GetFields()["denominator"] != nil
}

// valueOf reads a value of a static_layer.
func valueOf(given *structpb.Value) (value, error) {
	switch kind := given.GetKind().(type) {
	case *structpb.Value_StringValue:
		return textValue(kind.StringValue), nil
	case *structpb.Value_NumberValue:
		v := numberValue(kind.NumberValue)
		v.text = jsonOf(given)
		return v, nil
	case *structpb.Value_BoolValue:
		v := booleanValue(kind.BoolValue)
		v.text = jsonOf(given)
		return v, nil
	case *structpb.Value_StructValue:
		text := jsonOf(given)
		var share typev3.FractionalPercent
		if err := protojson.Unmarshal([]byte(text), &share); err != nil {
			return value{}, fmt.Errorf("%s is no FractionalPercent", text)
		}
		return shareValue(text, &share)
	}
	return value{}, fmt.Errorf("want a number, a text, a truth value or a FractionalPercent")
}

// jsonOf is a value in JSON.
func jsonOf(v *structpb.Value) string {
	text, err := json.Marshal(v.AsInterface()) // other than protojson it writes the same always
	if err != nil {                            // of a number that JSON does not have
		return fmt.Sprint(v.AsInterface())
	}
	return string(text)
}

// A listener's key is its name between these two.
const (
	beforeListener = "envoy.resource_limits.listener."
	afterListener  = ".connection_limit"
)

// HealthyPanicThreshold is the key of the least percentage of hosts that must serve in
// a priority of a cluster, whatever its configuration says; more than 100 is 100.
const HealthyPanicThreshold = "upstream.healthy_panic_threshold"

// MaintenanceKey is the key of the share of a cluster's requests that are answered 503.
func MaintenanceKey(cluster string) string { return beforeMaintained + cluster }

// TotalConnectionLimit is the key of the most connections that all listeners have
// together at once.
const TotalConnectionLimit = "overload.global_downstream_max_connections"

// UseRetry is the key of the share of requests that are retried where their routes say
// so.
const UseRetry = "upstream.use_retry"

// The keys of the shares of requests that are traced (ClientTracing of those whose
// clients ask for it, RandomTracing of those that nobody asks for it, OverallTracing of
// all of them), where there is tracing.
const (
	ClientTracing  = "tracing.client_enabled"
	RandomTracing  = "tracing.random_sampling"
	OverallTracing = "tracing.global_enabled"
)

// BaseRetryBackOff is the key of the base interval, in milliseconds, of retries whose
// policies have none of their own.
const BaseRetryBackOff = "upstream.base_retry_backoff_ms"

// mostRetryBackOff is the most of it, a day: ten times as much is a wait still.
const mostRetryBackOff = 24 * 60 * 60 * 1000

// beforeMaintained is what a cluster's name follows.
const beforeMaintained = "upstream.maintenance_mode."

// ConnectionLimitKey is the key of the most connections that a listener has at once.
func ConnectionLimitKey(listener string) string { return beforeListener + listener + afterListener }

// ofEnvoy begins the keys that Envoy reads by itself.
var ofEnvoy = []string{"envoy.", "health_check.", "mongo.", "outlier_detection.", "overload.", "re2.", "redis.", "tracing.", "upstream."}

// faultsOfClusters end the keys of faults by the client's cluster.
var faultsOfClusters = []string{"delay.fixed_delay_percent", "delay.fixed_duration_ms", "abort.abort_percent", "abort.http_status", "abort.grpc_status"}

// check says what is wrong with a key, or with its value.
func check(key string, v value) error {
	listener, limits := strings.CutPrefix(key, beforeListener)
	listener, limit := strings.CutSuffix(listener, afterListener)
	switch {
	case key == "":
		return fmt.Errorf("it is empty")
	case limits && limit && listener != "", key == TotalConnectionLimit:
		if !v.isInteger || v.integer > math.MaxInt64 {
			return fmt.Errorf("want a number of connections, not %s", v.text)
		}
		return nil
	case key == BaseRetryBackOff:
		if !v.isInteger || v.integer > mostRetryBackOff {
			return fmt.Errorf("want a number of milliseconds, %d at most, not %s", mostRetryBackOff, v.text)
		}
		return nil
	case key == HealthyPanicThreshold:
		if !v.isInteger {
			return fmt.Errorf("want a percentage of hosts, not %s", v.text)
		}
		return nil
	case key == UseRetry, key == ClientTracing, key == RandomTracing, key == OverallTracing, len(key) > len(beforeMaintained) && strings.HasPrefix(key, beforeMaintained):
		if !v.isShare && !v.isInteger {
			return fmt.Errorf("want a share of requests, a FractionalPercent or so many in a hundred, not %s", v.text)
		}
		return nil
	}
	if cluster, ok := strings.CutPrefix(key, "fault.http."); ok {
		for _, fault := range faultsOfClusters {
			if strings.HasSuffix(cluster, "."+fault) {
				return fmt.Errorf("nothing here reads it: faults are not told apart by the client's cluster")
			}
		}
	}
	for _, prefix := range ofEnvoy {
		if strings.HasPrefix(key, prefix) {
			return fmt.Errorf("nothing here reads it; of Envoy's own, known are %s, %s, %s, %s<cluster>, %s<listener>%s, %s, %s, %s and %s",
				HealthyPanicThreshold, BaseRetryBackOff, UseRetry, beforeMaintained, beforeListener, afterListener, TotalConnectionLimit,
				ClientTracing, RandomTracing, OverallTracing)
		}
	}
	return nil
}
