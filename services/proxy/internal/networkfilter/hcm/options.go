package hcm

import (
	"net/netip"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	uuidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/identity"
	"github.com/weirproxy/weir/services/proxy/internal/normalize"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
	"github.com/weirproxy/weir/services/proxy/internal/tracing"
)

// parseProtocol reads what concerns the codec, and the headers of responses.
func (m *manager) parseProtocol(c *hcmv3.HttpConnectionManager, at strict.Path, report *strict.Report) {
	m.limits = http1.Limits{HeadBytes: defaultHeadKiB << 10, Headers: defaultHeaders}
	if kib := c.GetMaxRequestHeadersKb(); kib != nil { // which the message's own rules bound
		m.limits.HeadBytes = int(kib.GetValue()) << 10
	}
	common := c.GetCommonHttpProtocolOptions()
	if n := common.GetMaxHeadersCount(); n != nil {
		m.limits.Headers = int(n.GetValue())
	}
	if common.GetMaxResponseHeadersKb() != nil {
		report.Add(at.Field("common_http_protocol_options").Field("max_response_headers_kb"), "has no meaning for a connection manager: it is for clusters")
	}
	m.maxRequests = common.GetMaxRequestsPerConnection().GetValue()
	m.http1 = coreconfig.DownstreamHTTP1(c.GetHttpProtocolOptions(), at.Field("http_protocol_options"), report)
	switch common.GetHeadersWithUnderscoresAction() {
	case corev3.HttpProtocolOptions_REJECT_REQUEST:
		m.http1.Options.Underscores = http1.RejectUnderscores
	case corev3.HttpProtocolOptions_DROP_HEADER:
		m.http1.Options.Underscores = http1.DropUnderscores
	}
	invalid := c.GetStreamErrorOnInvalidHttpMessage()
	if o := c.GetHttpProtocolOptions().GetOverrideStreamErrorOnInvalidHttpMessage(); o != nil {
		invalid = o
	}
	m.closeOnInvalid = !invalid.GetValue()
	m.proxyContinue = c.GetProxy_100Continue()

	m.serverName = serverName
	if c.GetServerName() != "" {
		m.serverName = c.GetServerName()
	}
	switch c.GetServerHeaderTransformation() {
	case hcmv3.HttpConnectionManager_APPEND_IF_ABSENT:
		m.server = appendServerIfAbsent
	case hcmv3.HttpConnectionManager_PASS_THROUGH:
		m.server = passServer
	}
}

// parseHTTP2 reads what concerns HTTP/2 alone, once all else is read. A malformed
// message ends its connection unless one of the options says that it does not.
func (m *manager) parseHTTP2(c *hcmv3.HttpConnectionManager, at strict.Path, report *strict.Report) {
	config := c.GetHttp2ProtocolOptions()
	o := coreconfig.HTTP2(config, at, report)
	coreconfig.FieldSize(config, m.limits.HeadBytes>>10, "max_request_headers_kb", at, report)
	o.MaxHeaderBytes, o.MaxHeaders = uint32(m.limits.HeadBytes), m.limits.Headers
	invalid := c.GetStreamErrorOnInvalidHttpMessage()
	if own := config.GetOverrideStreamErrorOnInvalidHttpMessage(); own != nil {
		invalid = own
	}
	o.MalformedEndsConnection = !invalid.GetValue()
	o.ConnectProtocol = config.GetAllowConnect() // routes may allow upgrades, too
	o.HeaderTimeout = m.headLimit.after
	o.WriteTimeout = m.streamIdleTimeout
	if o.Linger = m.delayedClose; o.Linger == 0 {
		o.Linger = time.Nanosecond
	}
	m.ownWindow = config.GetInitialStreamWindowSize() != nil
	m.servers.options = o
}

func (m *manager) parseTimeouts(c *hcmv3.HttpConnectionManager, at strict.Path, report *strict.Report) {
	common := c.GetCommonHttpProtocolOptions()
	commonAt := at.Field("common_http_protocol_options")
	read := func(into *time.Duration, d *durationpb.Duration, fallback time.Duration, at strict.Path) {
		*into = coreconfig.Duration(d, fallback, at, report)
	}
	read(&m.idleTimeout, common.GetIdleTimeout(), defaultIdleTimeout, commonAt.Field("idle_timeout"))
	read(&m.maxConnectionDuration, common.GetMaxConnectionDuration(), 0, commonAt.Field("max_connection_duration"))
	if jitter := common.GetMaxConnectionDurationJitter(); jitter != nil {
		m.durationJitter = jitter.GetValue() / 100
		if m.maxConnectionDuration == 0 {
			report.Add(commonAt.Field("max_connection_duration_jitter"), "has no meaning without max_connection_duration")
		}
	}
	read(&m.maxStreamDuration, common.GetMaxStreamDuration(), 0, commonAt.Field("max_stream_duration"))
	read(&m.streamIdleTimeout, c.GetStreamIdleTimeout(), defaultStreamIdleTimeout, at.Field("stream_idle_timeout"))
	read(&m.streamFlushTimeout, c.GetStreamFlushTimeout(), -1, at.Field("stream_flush_timeout"))
	read(&m.requestTimeout, c.GetRequestTimeout(), 0, at.Field("request_timeout"))
	var headersTimeout time.Duration
	read(&headersTimeout, c.GetRequestHeadersTimeout(), 0, at.Field("request_headers_timeout"))
	for _, limit := range []headLimit{
		{headersTimeout, headerTime}, {m.requestTimeout, requestTime}, {m.maxStreamDuration, durationRequest}, {m.streamIdleTimeout, idleRequest},
	} {
		if limit.after > 0 && (m.headLimit.after == 0 || limit.after < m.headLimit.after) {
			m.headLimit = limit
		}
	}
	read(&m.drainTimeout, c.GetDrainTimeout(), defaultDrainTimeout, at.Field("drain_timeout"))
	read(&m.delayedClose, c.GetDelayedCloseTimeout(), defaultDelayedClose, at.Field("delayed_close_timeout"))
}

// parseIdentity reads who is trusted, and what becomes of request ids. That unix_sockets
// has no effect is since listeners have addresses of IP.
func (m *manager) parseIdentity(c *hcmv3.HttpConnectionManager, at strict.Path, report *strict.Report) {
	m.identity = identity.Config{
		UseRemoteAddress:      c.GetUseRemoteAddress().GetValue(),
		TrustedHops:           int(c.GetXffNumTrustedHops()),
		SkipAppend:            c.GetSkipXffAppend(),
		KeepClientCert:        c.GetForwardClientCertDetails() == hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY,
		Via:                   c.GetVia(),
		GenerateRequestID:     c.GetGenerateRequestId() == nil || c.GetGenerateRequestId().GetValue(),
		KeepExternalRequestID: c.GetPreserveExternalRequestId(),
	}
	m.answerRequestID = c.GetAlwaysSetRequestIdInResponse()
	for i, r := range c.GetInternalAddressConfig().GetCidrRanges() {
		at := at.Field("internal_address_config").Field("cidr_ranges").Index(i)
		address, err := netip.ParseAddr(r.GetAddressPrefix())
		prefix, bad := address.Prefix(int(r.GetPrefixLen().GetValue()))
		switch {
		case err != nil:
			report.Add(at.Field("address_prefix"), "%q is not an IP address", r.GetAddressPrefix())
		case bad != nil:
			report.Add(at.Field("prefix_len"), "%d is longer than the address", r.GetPrefixLen().GetValue())
		default:
			m.identity.Internal = append(m.identity.Internal, prefix)
		}
	}
	uuids := parseRequestIDs(c.GetRequestIdExtension(), at.Field("request_id_extension"), report)
	m.identity.MarkRequestID = uuids.GetPackTraceReason() == nil || uuids.GetPackTraceReason().GetValue()
	// Without ids every request would be taken for one of the random share, which nobody
	// hears of.
	if byID := uuids.GetUseRequestIdForTraceSampling(); byID == nil || byID.GetValue() {
		m.tracing = tracing.Parse(c.GetTracing())
	}
}

// parseRequestIDs reads the extension for request ids, of which one is known; nil is
// none.
func parseRequestIDs(extension *hcmv3.RequestIDExtension, at strict.Path, report *strict.Report) *uuidv3.UuidRequestIdConfig {
	if extension == nil {
		return nil
	}
	config, err := strict.Unpack(extension.GetTypedConfig())
	uuids, ok := config.(*uuidv3.UuidRequestIdConfig)
	if err == nil && !ok {
		report.Add(at.Field("typed_config"), "%s is no extension known here: use envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
			config.ProtoReflect().Descriptor().FullName())
	}
	return uuids
}

func (m *manager) parseNormalization(c *hcmv3.HttpConnectionManager, at strict.Path, report *strict.Report) {
	if c.GetStripMatchingHostPort() && c.GetStripAnyHostPort() {
		report.Add(at.Field("strip_matching_host_port"), "cannot be set beside strip_any_host_port")
	}
	m.paths = normalize.Paths{Normalize: c.GetNormalizePath().GetValue(), MergeSlashes: c.GetMergeSlashes()}
	switch c.GetPathWithEscapedSlashesAction() {
	case hcmv3.HttpConnectionManager_REJECT_REQUEST:
		m.paths.EscapedSlashes = normalize.Reject
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT:
		m.paths.EscapedSlashes = normalize.UnescapeAndRedirect
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD:
		m.paths.EscapedSlashes = normalize.UnescapeAndForward
	}
	m.hosts = normalize.Hosts{StripAnyPort: c.GetStripAnyHostPort(), StripDot: c.GetStripTrailingHostDot()}
	m.stripListenerPort = c.GetStripMatchingHostPort()
}
