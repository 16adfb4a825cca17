package format_test

import (
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// facts are those of a whole exchange: a GET whose path was rewritten, answered
// by an upstream.
func facts(t testing.TB) *format.Facts {
	t.Helper()
	request := &message.Request{Method: []byte("GET"), Path: []byte("/re/x?a=%41b&b=xyz&e="), Authority: []byte("Example.com:8080")}
	for _, h := range [][2]string{
		{"user-agent", "curl/8"}, {"x-twice", "one"}, {"x-twice", "two"}, {"x-envoy-original-path", "/up/x?a=%41b&b=xyz&e="},
		{"x-request-id", "def78d41-3818-4b6e-a21d-2062c8fb2d55"}, {"x-tab", "a\tb"}, {"x-quotes", `q"\é`},
	} {
		request.Headers.Add(h[0], h[1])
	}
	response := &message.Response{Status: 200}
	response.Headers.Add("x-envoy-upstream-service-time", "7")
	response.Headers.Add("content-length", "5")
	f := &format.Facts{}
	f.Reset(request, response, &format.Connection{
		ID: 4, Peer: netip.MustParseAddrPort("10.1.2.3:42526"), Local: netip.MustParseAddrPort("10.0.0.1:80"), FilterChain: "fc",
	})
	f.Start = time.Date(2026, 11, 26, 21, 46, 9, 912213004, time.UTC)
	f.Remote = netip.MustParseAddrPort("192.0.2.7:0")
	f.Protocol, f.UpstreamProtocol = "HTTP/1.1", "HTTP/1.1"
	f.ResponseCode, f.Details = 200, "via_upstream"
	f.RouteName, f.Cluster = "up", "backend"
	f.UpstreamHost, f.UpstreamLocal = netip.MustParseAddrPort("127.0.0.1:50447"), netip.MustParseAddrPort("127.0.0.1:44440")
	f.UpstreamConnection, f.Attempts = 5, 1
	f.AddReceived(10)
	f.AddSent(5)
	for m, after := range map[format.Moment]time.Duration{
		format.RequestEnd: 1 * time.Millisecond, format.UpstreamConnectBegin: 1500 * time.Microsecond, format.UpstreamConnectEnd: 1565 * time.Microsecond,
		format.UpstreamRequestBegin: 1600 * time.Microsecond, format.UpstreamRequestEnd: 2 * time.Millisecond, format.ResponseBegin: 5 * time.Millisecond,
		format.UpstreamResponseEnd: 7 * time.Millisecond, format.SendBegin: 6 * time.Millisecond, format.SendEnd: 9 * time.Millisecond,
	} {
		f.Mark(m, f.Start.Add(after))
	}
	metadata, err := structpb.NewStruct(map[string]any{"text": "a\nb", "number": 3, "deep": map[string]any{"list": []any{true, nil}}})
	require.NoError(t, err)
	f.DynamicMetadata = map[string]*structpb.Struct{"ns": metadata}
	of := func(text string) *corev3.Metadata {
		s, err := structpb.NewStruct(map[string]any{"is": text})
		require.NoError(t, err)
		return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"ns": s}}
	}
	f.RouteMetadata, f.VirtualHostMetadata, f.ClusterMetadata, f.HostMetadata = of("route"), of("virtual host"), of("cluster"), of("host")
	f.Connection.ChainMetadata = of("chain")
	f.Downstream, f.Upstream = meter{1}, meter{100}
	return f
}

// meter tells numbers from one on.
type meter struct{ first uint64 }

func (m meter) Traffic() (received, sent message.Traffic) {
	n := m.first
	return message.Traffic{Wire: n, Headers: n + 1, Decompressed: n + 2}, message.Traffic{Wire: n + 3, Headers: n + 4, Decompressed: n + 5}
}

// none are the facts of a request whose head could not be read.
func none() *format.Facts {
	f := &format.Facts{}
	f.Reset(&message.Request{}, &message.Response{}, nil)
	return f
}

func TestOperators(t *testing.T) {
	t.Setenv("WEIR_FORMAT_TEST", "set")
	host, err := os.Hostname()
	require.NoError(t, err)
	local := time.Local
	time.Local = time.FixedZone("there", 2*60*60)
	defer func() { time.Local = local }()
	cases := []struct{ text, want, wantNone string }{
		{"plain", "plain", "plain"},
		{"100%% %PROTOCOL%%%%%", "100% HTTP/1.1%%", "100% -%%"},
		{"%START_TIME%", "2026-11-26T21:46:09.912Z", "0001-01-01T00:00:00.000Z"},
		{"%START_TIME()%", "2026-11-26T21:46:09.912Z", "0001-01-01T00:00:00.000Z"},
		{"%START_TIME(%s.%3f|%f|%1f|%9f)%", "1795729569.912|912213004|9|912213004", "-62135596800.000|000000000|0|000000000"},
		{"%START_TIME(%Y/%m/%d %e %j %H:%M:%S %y %b %B %a %A %p %I %F %T %D %R %z %Z %%)%",
			"2026/11/26 26 330 21:46:09 26 Nov November Thu Thursday PM 09 2026-11-26 21:46:09 11/26/26 21:46 +0000 UTC %",
			"0001/01/01  1 001 00:00:00 01 Jan January Mon Monday AM 12 0001-01-01 00:00:00 01/01/01 00:00 +0000 UTC %"},
		{"%START_TIME_LOCAL(%H:%M %z %s)%", "23:46 +0200 1795729569", "02:00 +0200 -62135596800"},
		{"%START_TIME_LOCAL%", "2026-11-26T23:46:09.912+0200", "0001-01-01T02:00:00.000+0200"},
		{`%COALESCE({"operators": ["UPSTREAM_HOST", "PROTOCOL"]})% %COALESCE({"operators": ["TRACE_ID", {"command": "REQ", "param": "X-NONE?USER-AGENT"}, "LOCAL_REPLY_BODY"]})%`,
			"127.0.0.1:50447 curl/8", "- "},
		{`%COALESCE({"operators": [{"command": "REQ", "param": "user-agent", "max_length": 3}, "PROTOCOL"]})% %COALESCE({"operators": ["PROTOCOL"]}):2%`, "cur HT", "- -"},
		{"%REQUEST_HEADERS_BYTES%", "220", "0"},
		{"%RESPONSE_HEADERS_BYTES%", "55", "0"},
		{"%RESPONSE_TRAILERS_BYTES%", "0", "0"},
		{"%BYTES_RECEIVED% %BYTES_SENT%", "10 5", "0 0"},
		{"%DOWNSTREAM_WIRE_BYTES_RECEIVED% %DOWNSTREAM_HEADER_BYTES_RECEIVED% %DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED%", "1 2 3", "0 0 0"},
		{"%DOWNSTREAM_WIRE_BYTES_SENT% %DOWNSTREAM_HEADER_BYTES_SENT% %DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT%", "4 5 6", "0 0 0"},
		{"%UPSTREAM_WIRE_BYTES_RECEIVED% %UPSTREAM_HEADER_BYTES_RECEIVED% %UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED%", "100 101 102", "0 0 0"},
		{"%UPSTREAM_WIRE_BYTES_SENT% %UPSTREAM_HEADER_BYTES_SENT% %UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT%", "103 104 105", "0 0 0"},
		{"%PROTOCOL% %UPSTREAM_PROTOCOL%", "HTTP/1.1 HTTP/1.1", "- -"},
		{"%RESPONSE_CODE% %RESPONSE_CODE_DETAILS%", "200 via_upstream", "0 -"},
		{"%CONNECTION_TERMINATION_DETAILS%", "-", "-"},
		{"%DURATION%", "9", ""}, // without an end it is running
		{"%REQUEST_DURATION% %REQUEST_TX_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION% %ROUNDTRIP_DURATION%", "1 2 5 4 -", "- - - - -"},
		{"%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%", "9000", "-"},
		{"%COMMON_DURATION(US_CX_BEG:US_CX_END:us)%", "65", "-"},
		{"%COMMON_DURATION(US_TX_BEG:US_TX_END:ns)%", "400000", "-"},
		{"%COMMON_DURATION(US_RX_BEG:US_RX_END)% %COMMON_DURATION(DS_TX_BEG:DS_TX_END:ms)% %COMMON_DURATION(DS_RX_END:US_TX_BEG:us)%", "2 3 600", "- - -"},
		{"%COMMON_DURATION(DS_TX_END:DS_RX_BEG:ms)% %COMMON_DURATION(US_CX_END:US_HS_END:ms)%", "- -", "- -"},
		{"%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%", "- -", "- -"},
		{"%ROUTE_NAME% %VIRTUAL_CLUSTER_NAME%", "up -", "- -"},
		{"%UPSTREAM_HOST% %UPSTREAM_CLUSTER% %UPSTREAM_CLUSTER_RAW%", "127.0.0.1:50447 backend backend", "- - -"},
		{"%UPSTREAM_REQUEST_ATTEMPT_COUNT% %UPSTREAM_CONNECTION_ID%", "1 5", "0 0"},
		{"%UPSTREAM_LOCAL_ADDRESS% %UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %UPSTREAM_LOCAL_PORT%", "127.0.0.1:44440 127.0.0.1 44440", "- - -"},
		{"%UPSTREAM_REMOTE_ADDRESS% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT%", "127.0.0.1:50447 127.0.0.1 50447", "- - -"},
		{"%UPSTREAM_TRANSPORT_FAILURE_REASON% %DOWNSTREAM_TRANSPORT_FAILURE_REASON%", "- -", "- -"},
		{"%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_PORT%", "192.0.2.7:0 192.0.2.7 0", "- - -"},
		{"%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT(16)% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT(24,64)%", "10.1.0.0/16 10.1.2.0/24", "- -"},
		{"%DOWNSTREAM_DIRECT_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_PORT%", "10.1.2.3:42526 42526", "- -"},
		{"%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_PORT% %DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_DIRECT_LOCAL_PORT%",
			"10.0.0.1:80 80 10.0.0.1 80", "- - - -"},
		{"%CONNECTION_ID% %STREAM_ID%", "4 def78d41-3818-4b6e-a21d-2062c8fb2d55", "- -"},
		{"%GRPC_STATUS% %GRPC_STATUS_NUMBER%", "- -", "- -"},
		{"%REQ(:METHOD)% %REQ(:path)% %REQ(:AUTHORITY)% %REQ(host)% %REQ(:scheme)%", "GET /re/x?a=%41b&b=xyz&e= Example.com:8080 Example.com:8080 http", "- - - - -"},
		{"%REQ(X-TWICE)% %REQUEST_HEADER(x-none)%", "one -", "- -"},
		{"%REQ(X-NONE?USER-AGENT):4% %REQ(USER-AGENT?X-TWICE)% %REQ(a?b)%", "curl curl/8 -", "- - -"},
		{"%REQ(user-agent):0%|%REQ(user-agent):100%", "|curl/8", "-|-"},
		{"%REQ(x-tab)%", `a\x09b`, "-"},
		{"%RESP(:STATUS)% %RESPONSE_HEADER(content-length)% %RESP(none)%", "200 5 -", "- - -"},
		{"%TRAILER(a)% %RESPONSE_TRAILER(a)%", "- -", "- -"},
		{"%PATH% %PATH(NQ)% %PATH(NQ:ORIG)% %PATH(WQ:PATH)% %PATH(NQ:ORIG_OR_PATH):3%", "/up/x?a=%41b&b=xyz&e= /up/x /up/x /re/x?a=%41b&b=xyz&e= /up", "- - - - -"},
		{"%QUERY_PARAM(a)% %QUERY_PARAM(b):1% [%QUERY_PARAM(e)%] %QUERY_PARAM(none)%", "Ab x [] -", "- - [-] -"},
		{"%QUERY_PARAMS% %QUERY_PARAMS(ORIG):3% %QUERY_PARAMS(DECODED)%", "a=%41b&b=xyz&e= a=% a=Ab&b=xyz&e=", "- - -"},
		{"%DYNAMIC_METADATA(ns:text)% %DYNAMIC_METADATA(ns:number)% %DYNAMIC_METADATA(ns:deep:list)% %DYNAMIC_METADATA(ns:text:x)% %DYNAMIC_METADATA(x)%",
			`a\x0ab 3 [true,null] - -`, "- - - - -"},
		{"%METADATA(DYNAMIC:ns:number)% %METADATA(ROUTE:a:b)% %METADATA(LISTENER:ns:is)% %METADATA(ROUTE:ns)%", `3 - - {"is":"route"}`, "- - - -"},
		{"%METADATA(ROUTE:ns:is)%, %METADATA(VIRTUAL_HOST:ns:is)%, %METADATA(CLUSTER:ns:is)%, %METADATA(UPSTREAM_HOST:ns:is)%, %METADATA(LISTENER_FILTER_CHAIN:ns:is)%",
			"route, virtual host, cluster, host, chain", "-, -, -, -, -"},
		{`%UPSTREAM_METADATA(ns:is)% %UPSTREAM_METADATA(["ns", "is"])% %CLUSTER_METADATA(ns:is)%`, "host host cluster", "- - -"},
		{"%REQUESTED_SERVER_NAME% %REQUESTED_SERVER_NAME(SNI_FIRST)% %REQUESTED_SERVER_NAME(HOST_FIRST:ORIG)%", "- Example.com -", "- - -"},
		{"%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_PEER_CERT_V_START(%Y)% %TRACE_ID% %SPAN_ID%", "- - - -", "- - - -"},
		{"%HOSTNAME%", host, host},
		{"[%LOCAL_REPLY_BODY%]", "[]", "[]"},
		{"%FILTER_CHAIN_NAME%", "fc", "-"},
		{"%ENVIRONMENT(WEIR_FORMAT_TEST)% %ENVIRONMENT(WEIR_FORMAT_TEST):2% %ENVIRONMENT(WEIR_NOT_SET)%", "set se -", "set se -"},
		{"%ACCESS_LOG_TYPE%", "DownstreamEnd", "DownstreamEnd"},
	}
	template, err := format.Parse("%ACCESS_LOG_TYPE%", format.Log)
	require.NoError(t, err)
	require.Equal(t, "DownstreamStart", string(template.Append(nil, &format.Facts{LogType: "DownstreamStart"})))
	for _, c := range cases {
		t.Run(c.text, func(t *testing.T) {
			template, err := format.Parse(c.text, format.Log)
			require.NoError(t, err)
			require.Equal(t, c.want, string(template.Append(nil, facts(t))))
			if c.wantNone != "" {
				require.Equal(t, c.wantNone, string(template.Append(nil, none())))
			}
		})
	}
}

func TestUniqueIDIsAnotherUUIDEachTime(t *testing.T) {
	template, err := format.Parse("%UNIQUE_ID%", format.Log)
	require.NoError(t, err)
	first, second := string(template.Append(nil, none())), string(template.Append(nil, none()))
	require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, first)
	require.NotEqual(t, first, second)
}

func TestStatusOfAGRPCCall(t *testing.T) {
	template, err := format.Parse("%GRPC_STATUS% %GRPC_STATUS(CAMEL_STRING)% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%", format.Log)
	require.NoError(t, err)
	call := func(status int, head, trailer string) string {
		f := none()
		f.Request.Headers.Add("content-type", "application/grpc+proto")
		f.Response.Status = status
		if head != "" {
			f.Response.Headers.Add("grpc-status", head)
		}
		if trailer != "" {
			f.ResponseTrailers = &message.Headers{}
			f.ResponseTrailers.Add("grpc-status", trailer)
		}
		return string(template.Append(nil, f))
	}
	require.Equal(t, "PermissionDenied PermissionDenied PERMISSION_DENIED 7 7", call(200, "7", ""))
	require.Equal(t, "OK OK OK 0 0", call(200, "7", "0"))
	require.Equal(t, "Unavailable Unavailable UNAVAILABLE 14 14", call(503, "", ""))
	require.Equal(t, "99 99 99 99 99", call(200, "99", ""))
	require.Equal(t, "- - - - -", call(200, "x", ""))
}

func TestFlags(t *testing.T) {
	f := none()
	f.Flags = format.NoClusterFound | format.NoHealthyUpstream | format.OverloadManager
	template, err := format.Parse("%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%", format.Log)
	require.NoError(t, err)
	require.Equal(t, "UH,NC,OM NoHealthyUpstream,NoClusterFound,OverloadManagerTerminated", string(template.Append(nil, f)))
	for _, name := range []string{
		"LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX", "SI", "IH", "DPE", "UMSDR",
		"RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR", "UDO",
	} {
		flag, ok := format.Flag(name)
		require.True(t, ok, name)
		require.Equal(t, name, flag.String())
	}
	require.Equal(t, "DI,FI", (format.FaultInjected | format.DelayInjected).String())
	require.Equal(t, "URX,UF", (format.UpstreamConnectionFailure | format.UpstreamRetryLimitExceeded).String())
	_, ok := format.Flag("XX")
	require.False(t, ok)
	require.Equal(t, "UDO", format.UnconditionalDropOverload.String(), "the last one")
}

func TestDetailsHaveNoSpacesUnlessAllowed(t *testing.T) {
	f := none()
	f.Details = "a b\tc"
	template, err := format.Parse("%RESPONSE_CODE_DETAILS% %RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%", format.Header)
	require.NoError(t, err)
	require.Equal(t, "a_b_c a b\tc", string(template.Append(nil, f)))
}

func TestStylesOfWhatIsMissingAndOfControls(t *testing.T) {
	f := none()
	f.Request.Headers.Add("x-tab", "a\tb")
	f.Request.Path = []byte("/?x=%0d%0aevil:%201%7f")
	const text = "[%REQ(none)%] %REQ(x-tab)% %QUERY_PARAM(x)% %RESPONSE_FLAGS%"
	for style, want := range map[format.Style]string{
		format.Log:         `[-] a\x09b \x0d\x0aevil: 1\x7f -`,
		format.LogOmitting: `[] a\x09b \x0d\x0aevil: 1\x7f -`,
		format.Header:      "[] a\tb " + `\x0d\x0aevil: 1\x7f -`,
	} {
		template, err := format.Parse(text, style)
		require.NoError(t, err)
		require.Equal(t, want, string(template.Append(nil, f)))
	}
}

func TestFaultsNameTheirColumn(t *testing.T) {
	for text, want := range map[string]string{
		"100% x":                                "column 4: no operator follows the % (%% is a percent sign)",
		"a %":                                   "column 3: no operator follows the % (%% is a percent sign)",
		"%unknown%":                             "column 1: no operator follows the % (%% is a percent sign)",
		"ok %NOPE%":                             "column 4: unknown operator NOPE",
		"%NOPE% %NONE(x:%):3% %REQ% %PROTOCOL%": "column 1: unknown operator NOPE; column 8: unknown operator NONE; column 22: REQ needs an argument",
		"100% %NOPE%":                           "column 4: no operator follows the % (%% is a percent sign); column 6: unknown operator NOPE",
		"%REQ(a):x% %NOPE% %REQ(":               "column 1: REQ: a length of digits must follow the colon; column 12: unknown operator NOPE; column 19: REQ: the argument has no closing bracket",
		"%PROTOCOL %NOPE":                       "column 1: PROTOCOL: the operator does not end in %",
		"%REQ(a":                                "column 1: REQ: the argument has no closing bracket",
		"%REQ(a)":                               "column 1: REQ: the operator does not end in %",
		"%PROTOCOL":                             "column 1: PROTOCOL: the operator does not end in %",
		"%REQ%":                                 "column 1: REQ needs an argument",
		"%REQ()%":                               "column 1: REQ needs an argument",
		"%REQ(a):x%":                            "column 1: REQ: a length of digits must follow the colon",
		"%REQ(a):-1%":                           "column 1: REQ: a length of digits must follow the colon",
		"%REQ(a?b?c)%":                          "column 1: REQ(a?b?c): more than one alternative",
		"%REQ(a b)%":                            `column 1: REQ(a b): "a b" is no name of a header`,
		"%REQ(:)%":                              `column 1: REQ(:): ":" is no name of a header`,
		"%START_TIME:10%":                       "column 1: START_TIME takes no length",
		"%START_TIME(%Q)%":                      "column 1: START_TIME(%Q): unknown specifier %Q",
		"%START_TIME(%3s)%":                     "column 1: START_TIME(%3s): %3 is not followed by f",
		"%START_TIME(%)%":                       "column 1: START_TIME(%): a % without specifier at the end",
		"%EMIT_TIME(%Q)%":                       "column 1: EMIT_TIME(%Q): unknown specifier %Q",
		"%COALESCE%":                            "column 1: COALESCE needs an argument",
		"%COALESCE(x)%":                         "column 1: COALESCE(x): invalid character 'x' looking for beginning of value",
		`%COALESCE({})%`:                        "column 1: COALESCE({}): there are no operators",
		`%COALESCE({"operators":["PROTOCOL"]}x)%`:                                  "column 1: COALESCE({\"operators\":[\"PROTOCOL\"]}x): something follows the JSON",
		`%COALESCE({"operators":["PROTOCOL","NOPE"]})%`:                            "column 1: COALESCE: operators[1]: unknown operator NOPE",
		`%COALESCE({"operators":[{"command":"REQ"}]})%`:                            "column 1: COALESCE: operators[0]: REQ needs an argument",
		`%COALESCE({"operators":[{"command":"PROTOCOL","max_length":3}]})%`:        "column 1: COALESCE: operators[0]: PROTOCOL takes no length",
		`%COALESCE({"operators":[{"command":"REQ","param":"a","max_length":0}]})%`: "column 1: COALESCE: operators[0]: max_length 0 is not positive",
		`%COALESCE({"operators":[{"command":"REQ","params":"a"}]})%`:               `column 1: COALESCE: operators[0]: json: unknown field "params"`,
		"%PROTOCOL(x)%":                                "column 1: PROTOCOL takes no argument",
		"%PROTOCOL:3%":                                 "column 1: PROTOCOL takes no length",
		"%RESPONSE_CODE_DETAILS(X)%":                   "column 1: RESPONSE_CODE_DETAILS(X): it is ALLOW_WHITESPACES or nothing",
		"%COMMON_DURATION(a)%":                         "column 1: COMMON_DURATION(a): it is two points and perhaps ms, us or ns, with colons between",
		"%COMMON_DURATION(DS_RX_BEG:DS_TX_END:s)%":     `column 1: COMMON_DURATION(DS_RX_BEG:DS_TX_END:s): "s" is not ms, us or ns`,
		"%COMMON_DURATION(foo:DS_TX_END:ms)%":          `column 1: COMMON_DURATION(foo:DS_TX_END:ms): there is no point "foo": nothing here sets points of its own`,
		"%GRPC_STATUS(X)%":                             "column 1: GRPC_STATUS(X): it is CAMEL_STRING, SNAKE_STRING or NUMBER",
		`%UPSTREAM_METADATA(["ns)%`:                    `column 1: UPSTREAM_METADATA(["ns): ["ns is no list of a namespace and keys`,
		"%METADATA(FOO:a)%":                            `column 1: METADATA(FOO:a): "FOO" is no type of metadata`,
		"%PATH(X)%":                                    `column 1: PATH(X): "X" is not WQ or NQ`,
		"%PATH(NQ:X)%":                                 `column 1: PATH(NQ:X): "X" is not ORIG, PATH or ORIG_OR_PATH`,
		"%QUERY_PARAMS(X)%":                            "column 1: QUERY_PARAMS(X): it is ORIG or DECODED",
		"%REQUESTED_SERVER_NAME(X)%":                   `column 1: REQUESTED_SERVER_NAME(X): "X" is not SNI_ONLY, SNI_FIRST or HOST_FIRST`,
		"%DOWNSTREAM_REMOTE_ADDRESS(24)%":              "column 1: DOWNSTREAM_REMOTE_ADDRESS takes no argument",
		"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(33)%": `column 1: DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(33): "33" is no length of a prefix, 0 to 32`,
	} {
		_, err := format.Parse(text, format.Log)
		require.EqualError(t, err, want, text)
	}
}

func TestConstant(t *testing.T) {
	for text, want := range map[string]bool{"": true, "a%%": true, "%PROTOCOL%": false, "a%PROTOCOL%b": false} {
		template, err := format.Parse(text, format.Log)
		require.NoError(t, err)
		_, ok := template.Constant()
		require.Equal(t, want, ok, text)
	}
}

func TestEmitTimeIsThatOfTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		template, err := format.Parse("%START_TIME(%s)% %EMIT_TIME(%s)% %EMIT_TIME% %EMIT_TIME_LOCAL(%s)%", format.Log)
		require.NoError(t, err)
		f := none()
		f.Start = time.Now()
		time.Sleep(time.Minute)
		require.Equal(t, "946684800 946684860 2000-01-01T00:01:00.000Z 946684860", string(template.Append(nil, f)))
	})
}

func TestStartTimeIsThatOfEachRequest(t *testing.T) {
	template, err := format.Parse("%START_TIME%", format.Log)
	require.NoError(t, err)
	f := facts(t)
	noon := time.Date(2026, 12, 31, 12, 0, 0, 0, time.FixedZone("", 3600))
	// Requests end in another order than that in which they began.
	for _, after := range []time.Duration{0, 999 * time.Millisecond, 1900 * time.Millisecond, time.Second, 12*time.Hour + time.Second, 12 * time.Hour, 13 * time.Hour} {
		f.Start = noon.Add(after)
		require.Equal(t, f.Start.UTC().Format("2006-01-02T15:04:05.000Z"), string(template.Bytes(f)))
	}
}

// everything is a line with an operator of each kind.
const everything = "%START_TIME% %START_TIME(%s.%3f)% %REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH):20% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% " +
	"%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(content-length)% %REQ(none)% %UPSTREAM_HOST% %COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)% " +
	"%PATH(NQ)% %QUERY_PARAM(a)% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(24)% %GRPC_STATUS% %RESPONSE_CODE_DETAILS% %UNIQUE_ID% %REQUEST_HEADERS_BYTES%"

func TestUseAllocatesNothing(t *testing.T) {
	template, err := format.Parse(everything, format.Log)
	require.NoError(t, err)
	f := facts(t)
	template.Bytes(f)
	servicetest.Allocations(t, 0, func() { template.Bytes(f) })
	line := format.DefaultLine()
	servicetest.Allocations(t, 0, func() { line.Bytes(f) })
}

func BenchmarkDefaultLine(b *testing.B) {
	line, f := format.DefaultLine(), facts(b)
	b.ReportAllocs()
	for b.Loop() {
		line.Bytes(f)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{everything, "100%% %REQ(a?b):3%", `%COALESCE({"operators": ["TRACE_ID", {"command": "REQ", "param": "a", "max_length": 2}]}):3%`, "%START_TIME(%Y%9f%%)%", "%DYNAMIC_METADATA(a:b:c):5%", "%", "%A(", "%A:", "%REQ(%"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		template, err := format.Parse(text, format.Log)
		if err != nil {
			return
		}
		template.Append(nil, none())
		template.Append(nil, facts(t))
	})
}
