// Package listenerfiltertest runs a listener filter on real connections, for the tests
// of filters: what the filter found, and whether it left the bytes where they were. It
// chooses no filter chain.
package listenerfiltertest

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/listener"
	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter"
	"github.com/weirproxy/weir/services/proxy/internal/readmetest"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/tokenbucket"
)

func newSchema(t testing.TB, factory listenerfilter.Factory) *strict.Schema {
	t.Helper()
	schema, err := strict.NewSchema(factory.Fields(), listener.Fields(), coreconfig.Fields(), tokenbucket.Fields())
	require.NoError(t, err)
	return schema
}

// Parse makes a filter of a config in YAML. It is for use only if the report has no
// faults.
func Parse(t testing.TB, factory listenerfilter.Factory, yaml string) (listenerfilter.Filter, *strict.Report) {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(factory.ConfigType())
	require.NoError(t, err)
	message := kind.New().Interface()
	report := strict.Load("filter.yaml", []byte(yaml), message, newSchema(t, factory))
	return factory.Parse(message, "", report), report
}

// MustParse is Parse of a config that has no faults.
func MustParse(t testing.TB, factory listenerfilter.Factory, yaml string) listenerfilter.Filter {
	t.Helper()
	filter, report := Parse(t, factory, yaml)
	require.NoError(t, report.Err())
	return filter
}

// Inspect has a filter look at a connection whose client sends text and nothing behind
// it, and returns what it found, and its error. Of a connection that may go on it holds
// the filter to leave all bytes.
func Inspect(t testing.TB, filter listenerfilter.Filter, text string) (listenerfilter.Facts, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	accepted, err := l.Accept()
	require.NoError(t, err)
	var sending sync.WaitGroup
	defer func() {
		_, _ = accepted.Close(), client.Close()
		sending.Wait()
	}()
	// Ends with the connection: there may be no room for all of it.
	sending.Go(func() {
		_, _ = io.WriteString(client, text)
		_ = client.(*net.TCPConn).CloseWrite()
	})
	require.NoError(t, accepted.SetDeadline(time.Now().Add(servicetest.Patience)))
	s, err := listenerfilter.NewSocket(accepted)
	require.NoError(t, err)
	defer s.Release()
	if err := filter.Inspect(s); err != nil {
		return s.Facts, err
	}
	left, err := io.ReadAll(accepted)
	require.NoError(t, err)
	require.Equal(t, text, string(left), "what is left for the filter chain")
	return s.Facts, nil
}

// Readme holds the README.md beside a filter's test to its form, and loads its
// examples: every YAML block is a listener with the filter in it, whose filter chains
// have no network filters.
func Readme(t testing.TB, factory listenerfilter.Factory) {
	t.Helper()
	schema := newSchema(t, factory)
	for _, example := range readmetest.Examples(t) {
		message := &listenerv3.Listener{}
		report := strict.Load("README.md", []byte(example), message, schema)
		listener.Parse(message, "", listener.Filters{Listener: []listenerfilter.Factory{factory}}, report)
		require.NoError(t, report.Err())
		require.Len(t, message.GetListenerFilters(), 1, "listener filters in the example")
	}
}
