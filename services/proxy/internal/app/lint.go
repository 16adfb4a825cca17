package app

import (
	"io"
	"log/slog"
	"math"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/proxy/internal/bootstrap"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Lint checks the configuration as Validate does, and then what a proxy that
// strangers reach should have otherwise: the defaults are Envoy's, which are for
// clients that are trusted. The error lists all of that, with file, line and path.
func Lint(o Options) error {
	if _, err := daemon.Logger(io.Discard, daemon.LogOptions{Level: o.LogLevel, Format: o.LogFormat}); err != nil {
		return err
	}
	c, err := configure(o, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return err
	}
	lintAdmin(c.boot, c.report)
	for _, l := range c.boot.Listeners {
		if name := l.Message.GetName(); c.connectionLimit(name)() == math.MaxInt64 {
			c.report.Add(l.At, "any number of connections: set %s in a static_layer of layered_runtime", layeredruntime.ConnectionLimitKey(name))
		}
		lintListener(l, c.report)
	}
	return c.report.Err()
}

func lintAdmin(boot *bootstrap.Bootstrap, report *strict.Report) {
	if address, err := netip.ParseAddrPort(boot.AdminAddress); err == nil && !address.Addr().IsLoopback() {
		report.Add("admin.address", "%s is not of the loopback: whoever reaches it can stop the proxy, and nobody is asked who they are", address)
	}
}

func lintListener(l bootstrap.Listener, report *strict.Report) {
	if t := l.Message.GetListenerFiltersTimeout(); t != nil && t.AsDuration() == 0 && len(l.Message.GetListenerFilters()) > 0 {
		report.Add(l.At.Field("listener_filters_timeout"), "0s: connections of which listener filters wait for more stay for ever")
	}
	chain := func(c *listenerv3.FilterChain, at strict.Path) {
		for i, filter := range c.GetFilters() {
			if m, err := strict.Unpack(filter.GetTypedConfig()); err == nil {
				if manager, ok := m.(*hcmv3.HttpConnectionManager); ok {
					lintManager(manager, at.Field("filters").Index(i).Field("typed_config"), report)
				}
			}
		}
	}
	for i, c := range l.Message.GetFilterChains() {
		chain(c, l.At.Field("filter_chains").Index(i))
	}
	chain(l.Message.GetDefaultFilterChain(), l.At.Field("default_filter_chain"))
}

// Most that an edge should let one client of HTTP/2 have.
const (
	edgeStreams          = 100
	edgeStreamWindow     = 64 << 10
	edgeConnectionWindow = 1 << 20
)

func lintManager(m *hcmv3.HttpConnectionManager, at strict.Path, report *strict.Report) {
	if !m.GetUseRemoteAddress().GetValue() {
		report.Add(at.Field("use_remote_address"), "not true: clients say who they are by x-forwarded-for, and x-envoy- headers of theirs count")
	}
	if !m.GetNormalizePath().GetValue() {
		report.Add(at.Field("normalize_path"), "not true: /a/../b and /%%62 meet routes as they are spelt, and upstreams may read them otherwise")
	}
	if !m.GetMergeSlashes() {
		report.Add(at.Field("merge_slashes"), "not true: //a does not meet the routes of /a, and upstreams may read it so")
	}
	if a := m.GetPathWithEscapedSlashesAction(); a <= hcmv3.HttpConnectionManager_KEEP_UNCHANGED {
		report.Add(at.Field("path_with_escaped_slashes_action"), "%%2F stays, and upstreams may take it for a slash: use UNESCAPE_AND_REDIRECT or REJECT_REQUEST")
	}
	common, commonAt := m.GetCommonHttpProtocolOptions(), at.Field("common_http_protocol_options")
	if common.GetHeadersWithUnderscoresAction() == corev3.HttpProtocolOptions_ALLOW {
		report.Add(commonAt.Field("headers_with_underscores_action"), "ALLOW: upstreams may take x_a for x-a; use REJECT_REQUEST or DROP_HEADER")
	}
	if t := common.GetIdleTimeout(); t != nil && t.AsDuration() == 0 {
		report.Add(commonAt.Field("idle_timeout"), "0s: connections without a request stay for ever")
	}
	if t := m.GetStreamIdleTimeout(); t != nil && t.AsDuration() == 0 {
		report.Add(at.Field("stream_idle_timeout"), "0s: requests on which nothing moves stay for ever")
	}
	if m.GetRequestHeadersTimeout().AsDuration() == 0 {
		report.Add(at.Field("request_headers_timeout"), "none: a client may take as long as it wants over the head of a request; 5s to 10s are usual")
	}
	if m.GetRequestTimeout().AsDuration() == 0 {
		report.Add(at.Field("request_timeout"), "none: a client may take as long as it wants over a request; 300s are usual")
	}
	if m.GetCodecType() != hcmv3.HttpConnectionManager_HTTP1 {
		lintHTTP2(m.GetHttp2ProtocolOptions(), at.Field("http2_protocol_options"), report)
	}
}

func lintHTTP2(o *corev3.Http2ProtocolOptions, at strict.Path, report *strict.Report) {
	for _, field := range []struct {
		name string
		set  *wrapperspb.UInt32Value
		most uint32
	}{
		{"max_concurrent_streams", o.GetMaxConcurrentStreams(), edgeStreams},
		{"initial_stream_window_size", o.GetInitialStreamWindowSize(), edgeStreamWindow},
		{"initial_connection_window_size", o.GetInitialConnectionWindowSize(), edgeConnectionWindow},
	} {
		switch {
		case field.set == nil:
			report.Add(at.Field(field.name), "its default is for clients that are trusted: use %d at most", field.most)
		case field.set.GetValue() > field.most:
			report.Add(at.Field(field.name), "%d: use %d at most", field.set.GetValue(), field.most)
		}
	}
}
