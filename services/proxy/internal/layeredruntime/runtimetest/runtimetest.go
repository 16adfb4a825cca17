// Package runtimetest gives tests of what reads the runtime one with the values that
// they want. It reads them as the bootstrap does, and proves nothing by itself.
package runtimetest

import (
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// New is a runtime of a static_layer in YAML, "{a: 1}", with an admin_layer over it.
func New(t testing.TB, values string) *layeredruntime.Runtime {
	t.Helper()
	schema, err := strict.NewSchema(layeredruntime.Fields())
	require.NoError(t, err)
	m := &bootstrapv3.LayeredRuntime{}
	report := strict.Load("runtime.yaml", []byte("layers: [{name: static, static_layer: "+values+"}, {name: admin, admin_layer: {}}]"), m, schema)
	config := layeredruntime.Parse(m, "", report)
	require.NoError(t, report.Err())
	return layeredruntime.New(config, stats.NewRegistry().Scope("runtime"))
}

// Values is a snapshot of New.
func Values(t testing.TB, values string) *layeredruntime.Snapshot {
	t.Helper()
	return New(t, values).Snapshot()
}
