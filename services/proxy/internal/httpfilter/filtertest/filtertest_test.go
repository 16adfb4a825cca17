package filtertest_test

import (
	"bytes"
	"testing"

	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/filtertest"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// shout is a filter with every step: it writes bodies in capitals, marks heads
// and counts its last step.
type shout struct{ done int }

func (*shout) ConfigType() protoreflect.FullName {
	return (&routerv3.Router{}).ProtoReflect().Descriptor().FullName()
}
func (f *shout) Fields() strict.Fields {
	return strict.Fields{f.ConfigType(): {"suppress_envoy_headers"}}
}
func (f *shout) Parse(config proto.Message, at strict.Path, report *strict.Report) httpfilter.Config {
	if config.(*routerv3.Router).GetSuppressEnvoyHeaders() {
		report.Add(at.Field("suppress_envoy_headers"), "these are loud already")
	}
	return f
}
func (f *shout) NewFilter() httpfilter.Filter { return f }
func (f *shout) RequestHead(s *stream.Stream) *httpfilter.Reply {
	if string(s.Request.Path) == "/hush" {
		return &httpfilter.Reply{Status: 403, Headers: []httpfilter.Header{{Name: "x-said", Value: "no"}}, Body: "hush"}
	}
	s.Request.Headers.Add("x-client", s.ClientAddress.String())
	return nil
}
func (*shout) RequestBody(_ *stream.Stream, chunk []byte) ([]byte, error) {
	return bytes.ToUpper(chunk), nil
}
func (*shout) ResponseHead(s *stream.Stream) { s.Response.Headers.Add("x-shout", "yes") }
func (*shout) ResponseBody(_ *stream.Stream, chunk []byte) ([]byte, error) {
	return bytes.ToUpper(chunk), nil
}
func (f *shout) Done(*stream.Stream) { f.done++ }

func TestRun(t *testing.T) {
	for _, c := range []struct {
		name     string
		exchange filtertest.Exchange
		want     filtertest.Result
	}{
		{
			"a request and a response without bodies",
			filtertest.Exchange{Request: "GET /a"},
			filtertest.Result{Forwarded: "GET /a\nhost: a.example\nx-client: 192.0.2.1", Response: "200\nx-shout: yes"},
		},
		{
			"heads and bodies pass the filter both ways",
			filtertest.Exchange{
				Request: "PUT /b\nhost: b.example\nx-a: b", Body: []string{"one ", "two"},
				Response: "201\nx-c: d", ResponseBody: []string{"three ", "four"},
			},
			filtertest.Result{
				Forwarded: "PUT /b\nhost: b.example\nx-a: b\nx-client: 192.0.2.1\n\nONE TWO",
				Response:  "201\nx-c: d\nx-shout: yes\n\nTHREE FOUR",
			},
		},
		{
			"a reply keeps the request from the upstream",
			filtertest.Exchange{Request: "GET /hush"},
			filtertest.Result{Response: "403\nx-said: no\ncontent-type: text/plain\nx-shout: yes\n\nHUSH"},
		},
		{
			"a HEAD is answered without a body",
			filtertest.Exchange{Request: "GET /a", Prepare: func(s *stream.Stream) { s.Request.Method, s.Request.Path = []byte("HEAD"), []byte("/hush") }},
			filtertest.Result{Response: "403\nx-said: no\ncontent-type: text/plain\nx-shout: yes"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &shout{}
			config := filtertest.MustParse(t, f, `{}`)
			require.Equal(t, c.want, filtertest.Run(t, config, c.exchange))
			require.Equal(t, 1, f.done)
		})
	}
}

func TestParseReportsFaultsOfTheFileAndOfTheFactory(t *testing.T) {
	_, report := filtertest.Parse(t, &shout{}, "suppress_envoy_heeders: true")
	require.ErrorContains(t, report.Err(), "suppress_envoy_heeders")
	_, report = filtertest.Parse(t, &shout{}, "suppress_envoy_headers: true")
	require.ErrorContains(t, report.Err(), "suppress_envoy_headers: these are loud already")
}
