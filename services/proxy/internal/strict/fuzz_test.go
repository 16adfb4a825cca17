package strict_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// FuzzLoad wants no panic, faults that print, and the same verdict of Check on
// every message that Load lets pass.
func FuzzLoad(f *testing.F) {
	files, _ := filepath.Glob("testdata/*/*.yaml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(text)
	}
	schema := newSchema(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		var b bootstrapv3.Bootstrap
		report := strict.Load("f", text, &b, schema)
		if err := report.Err(); err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		var again strict.Report
		strict.Check(&b, "", schema, &again)
		require.NoError(t, again.Err())
	})
}

// FuzzCheck wants no panic for any bytes that are a message.
func FuzzCheck(f *testing.F) {
	seed, err := proto.Marshal(listener(pack(f, address())))
	require.NoError(f, err)
	f.Add(seed)
	f.Add([]byte{0xff, 0xff})
	schema := newSchema(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var b bootstrapv3.Bootstrap
		if proto.Unmarshal(raw, &b) != nil {
			return
		}
		var report strict.Report
		strict.Check(&b, "x", schema, &report)
		for _, fault := range report.Faults() {
			require.NotEmpty(t, fault.Text)
			require.True(t, len(fault.Path) > 0 && fault.Path[0] == 'x')
		}
	})
}

// thousandRoutes is a bootstrap with a virtual host of 1,000 routes.
func thousandRoutes() []byte {
	var b bytes.Buffer
	b.WriteString(`static_resources:
  listeners:
  - name: ingress
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
`)
	for i := range 1000 {
		fmt.Fprintf(&b, `              - name: route-%d
                match: {prefix: /service/%d/}
                route: {cluster: echo, timeout: 15s}
`, i, i)
	}
	return b.Bytes()
}

func BenchmarkLoad(b *testing.B) {
	text, schema := thousandRoutes(), newSchema(b)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if err := strict.Load("f", text, &bootstrapv3.Bootstrap{}, schema).Err(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	schema := newSchema(b)
	var m bootstrapv3.Bootstrap
	require.NoError(b, strict.Load("f", thousandRoutes(), &m, schema).Err())
	b.ReportAllocs()
	for b.Loop() {
		var report strict.Report
		strict.Check(&m, "", schema, &report)
		if err := report.Err(); err != nil {
			b.Fatal(err)
		}
	}
}
