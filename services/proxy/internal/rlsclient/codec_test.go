package rlsclient

import (
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// descriptors is a list of two: (remote_address, 192.0.2.7) and (user, <user>),
// (tier, gold).
func descriptors(t testing.TB, user string) *descriptor.List {
	t.Helper()
	report := &strict.Report{}
	policies := descriptor.Parse([]*routev3.RateLimit{
		{Actions: []*routev3.RateLimit_Action{
			{ActionSpecifier: &routev3.RateLimit_Action_RemoteAddress_{RemoteAddress: &routev3.RateLimit_Action_RemoteAddress{}}},
		}},
		{Actions: []*routev3.RateLimit_Action{
			{ActionSpecifier: &routev3.RateLimit_Action_RequestHeaders_{RequestHeaders: &routev3.RateLimit_Action_RequestHeaders{HeaderName: "x-user", DescriptorKey: "user"}}},
			{ActionSpecifier: &routev3.RateLimit_Action_GenericKey_{GenericKey: &routev3.RateLimit_Action_GenericKey{DescriptorKey: "tier", DescriptorValue: "gold"}}},
		}},
	}, "rate_limits", report)
	require.NoError(t, report.Err())
	request := &message.Request{}
	request.Headers.Add("x-user", user)
	list := &descriptor.List{}
	for i := range policies {
		require.True(t, policies[i].Append(list, &descriptor.Input{Request: request, ClientAddress: netip.MustParseAddr("192.0.2.7")}))
	}
	return list
}

func TestEncodeIsReadByGeneratedCode(t *testing.T) {
	for name, user := range map[string]string{
		"plain":                       "ann",
		"empty value":                 "",
		"longer than one length byte": strings.Repeat("x", 20_000),
		"not ASCII":                   "Zoë",
	} {
		t.Run(name, func(t *testing.T) {
			text := (&Request{Domain: "edge", Descriptors: descriptors(t, user)}).AppendTo(nil)
			got := &rlsv3.RateLimitRequest{}
			require.NoError(t, proto.Unmarshal(text, got))
			want := &rlsv3.RateLimitRequest{Domain: "edge", Descriptors: []*commonv3.RateLimitDescriptor{
				{Entries: []*commonv3.RateLimitDescriptor_Entry{{Key: "remote_address", Value: "192.0.2.7"}}},
				{Entries: []*commonv3.RateLimitDescriptor_Entry{{Key: "user", Value: user}, {Key: "tier", Value: "gold"}}},
			}}
			require.True(t, proto.Equal(want, got), "%v", got)
		})
	}
}

func TestEncodeHasTheDetailsOfDescriptors(t *testing.T) {
	for _, c := range []struct {
		limit, want string
	}{
		{`"limit": {"rate_limit": {"requests_per_unit": 300, "unit": "HOUR"}}`, `{"limit": {"requests_per_unit": 300, "unit": "HOUR"}}`},
		{`"limit": {"rate_limit": {"unit": "DAY"}}`, `{"limit": {"unit": "DAY"}}`},
		{`"hits_addend": {"number": 0}`, `{"hits_addend": 0}`},
		{`"hits_addend": {"number": 1000000000, "is_negative_hits": true}`, `{"hits_addend": 1000000000, "is_negative_hits": true}`},
	} {
		m, want := &routev3.RateLimit{}, &commonv3.RateLimitDescriptor{}
		require.NoError(t, protojson.Unmarshal([]byte(`{"actions": [{"generic_key": {"descriptor_value": "v"}}], `+c.limit+`}`), m))
		require.NoError(t, protojson.Unmarshal([]byte(c.want), want))
		want.Entries = []*commonv3.RateLimitDescriptor_Entry{{Key: "generic_key", Value: "v"}}
		list, report := &descriptor.List{}, &strict.Report{}
		policies := descriptor.ParseOfFilter([]*routev3.RateLimit{m}, "", report)
		require.NoError(t, report.Err())
		require.True(t, policies[0].Append(list, &descriptor.Input{}))
		text, got := (&Request{Domain: "edge", Descriptors: list}).AppendTo(nil), &rlsv3.RateLimitRequest{}
		require.NoError(t, proto.Unmarshal(text, got))
		require.True(t, proto.Equal(want, got.GetDescriptors()[0]), "%v", got)
	}
}

func TestDecodeReadsGeneratedCode(t *testing.T) {
	text, err := proto.Marshal(&rlsv3.RateLimitResponse{
		OverallCode: rlsv3.RateLimitResponse_OVER_LIMIT,
		Statuses: []*rlsv3.RateLimitResponse_DescriptorStatus{
			{Code: rlsv3.RateLimitResponse_OVER_LIMIT, LimitRemaining: 1, DurationUntilReset: durationpb.New(1500 * time.Millisecond)},
			{Code: rlsv3.RateLimitResponse_OK, DurationUntilReset: durationpb.New(-time.Second), CurrentLimit: &rlsv3.RateLimitResponse_RateLimit{
				Name: "a", RequestsPerUnit: 7, Unit: rlsv3.RateLimitResponse_RateLimit_MONTH, UnitMultiplier: wrapperspb.UInt32(2),
			}},
			{CurrentLimit: &rlsv3.RateLimitResponse_RateLimit{}},
		},
		DynamicMetadata: &structpb.Struct{Fields: map[string]*structpb.Value{"tier": structpb.NewStringValue("gold")}},
		ResponseHeadersToAdd: []*corev3.HeaderValue{
			{Key: "X-Limit", Value: " 10 "}, {Key: "x-raw", RawValue: []byte("\xff")}, {Key: "x-empty"},
		},
		RequestHeadersToAdd: []*corev3.HeaderValue{{Key: "x-tier", Value: "gold"}},
		RawBody:             []byte("slow down"),
	})
	require.NoError(t, err)
	got := &Response{Code: 99, Body: "from before", Statuses: []Status{{Name: "from before"}}}
	require.NoError(t, got.Decode(text))
	require.Equal(t, "gold", got.Metadata.GetFields()["tier"].GetStringValue())
	got.Metadata = nil
	require.Equal(t, &Response{
		Code:            rlsv3.RateLimitResponse_OVER_LIMIT,
		ResponseHeaders: []Header{{"x-limit", "10"}, {"x-raw", "\xff"}, {"x-empty", ""}},
		RequestHeaders:  []Header{{"x-tier", "gold"}},
		Body:            "slow down",
		Statuses: []Status{
			{Code: rlsv3.RateLimitResponse_OVER_LIMIT, Remaining: 1, Reset: 1500 * time.Millisecond},
			{Code: rlsv3.RateLimitResponse_OK, Limited: true, Name: "a", Requests: 7, Window: 60 * 24 * time.Hour},
			{Limited: true},
		},
	}, got)
}

func TestDecodeTellsWindowsOfSeveralUnits(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, c := range []struct {
		unit       rlsv3.RateLimitResponse_RateLimit_Unit
		multiplier *wrapperspb.UInt32Value
		want       time.Duration
	}{
		{rlsv3.RateLimitResponse_RateLimit_SECOND, nil, time.Second},
		{rlsv3.RateLimitResponse_RateLimit_SECOND, wrapperspb.UInt32(0), time.Second},
		{rlsv3.RateLimitResponse_RateLimit_SECOND, wrapperspb.UInt32(5000), 5000 * time.Second},
		{rlsv3.RateLimitResponse_RateLimit_YEAR, wrapperspb.UInt32(292), 292 * year},
		{rlsv3.RateLimitResponse_RateLimit_YEAR, wrapperspb.UInt32(math.MaxUint32), 292 * year},
		{rlsv3.RateLimitResponse_RateLimit_UNKNOWN, wrapperspb.UInt32(2), 0},
	} {
		text, err := proto.Marshal(&rlsv3.RateLimitResponse{Statuses: []*rlsv3.RateLimitResponse_DescriptorStatus{
			{CurrentLimit: &rlsv3.RateLimitResponse_RateLimit{Unit: c.unit, UnitMultiplier: c.multiplier}},
		}})
		require.NoError(t, err)
		got := &Response{}
		require.NoError(t, got.Decode(text))
		require.Equal(t, c.want, got.Statuses[0].Window, "%v times %v", c.unit, c.multiplier)
	}
}

func TestDecodeLeavesOutHeadersThatWouldBreakAMessage(t *testing.T) {
	for _, h := range []*corev3.HeaderValue{
		{Key: "", Value: "a"},
		{Key: "x y", Value: "a"},
		{Key: ":path", Value: "/admin"},
		{Key: "x-a", Value: "b\r\nx-c: d"},
		{Key: "x-a", Value: "\x00"},
		{Key: "Content-Length", Value: "10"},
		{Key: "Transfer-Encoding", Value: "chunked"},
		{Key: "Connection", Value: "close"},
		{Key: "Host", Value: "b.example"},
	} {
		text, err := proto.Marshal(&rlsv3.RateLimitResponse{
			ResponseHeadersToAdd: []*corev3.HeaderValue{h, {Key: "x-good", Value: "1"}},
		})
		require.NoError(t, err)
		got := &Response{}
		require.NoError(t, got.Decode(text))
		require.Equal(t, []Header{{"x-good", "1"}}, got.ResponseHeaders, "%v", h)
	}
}

// FuzzDecode holds the decoder to generated code: what that reads, it reads
// alike. It passes over more, since it looks into no part that it doesn't use.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"",
		"\x08\x01",          // OK
		"\x08\x02*\x04slow", // OVER_LIMIT with a body
		"\x08\x07",          // a code of a later version
		"\x12\x02\x18\x09\x1a\x0a\x0a\x03x-a\x12\x03b c",                   // a status, a response header
		"\"\x08\x0a\x03x-a\x1a\x01\xff",                                    // a request header with a raw value
		"\x1a\x07\x0a\x01a\x12\x02\r\n",                                    // a header with a line end in its value
		"\x1a\x05\x0a\x7f",                                                 // a length beyond the end
		"\x12\x0e\x08\x01\x12\x06\x08\x05\x10\x02\x1a\x00\x22\x02\x08\x1e", // a status with a limit and a reset
		"2\x0b\x0a\x09\x0a\x01a\x12\x04\x1a\x02ok",                         // dynamic metadata
		"\x0b\x0c", "\x0f", "\x00", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, want := &Response{}, &rlsv3.RateLimitResponse{}
		err := got.Decode(text)
		if proto.Unmarshal(text, want) != nil {
			return
		}
		require.NoError(t, err)
		require.Equal(t, want.GetOverallCode(), got.Code)
		require.Equal(t, string(want.GetRawBody()), got.Body)
		require.LessOrEqual(t, len(got.ResponseHeaders), len(want.GetResponseHeadersToAdd()))
		require.LessOrEqual(t, len(got.RequestHeaders), len(want.GetRequestHeadersToAdd()))
		require.Len(t, got.Statuses, len(want.GetStatuses()))
		for i, s := range got.Statuses {
			w := want.GetStatuses()[i]
			require.Equal(t, w.GetCode(), s.Code)
			require.Equal(t, w.GetLimitRemaining(), s.Remaining)
			require.Equal(t, w.GetCurrentLimit() != nil, s.Limited)
			require.Equal(t, w.GetCurrentLimit().GetName(), s.Name)
			require.Equal(t, w.GetCurrentLimit().GetRequestsPerUnit(), s.Requests)
			require.GreaterOrEqual(t, s.Reset, time.Duration(0))
		}
		require.True(t, proto.Equal(want.GetDynamicMetadata(), got.Metadata))
		for _, h := range got.ResponseHeaders {
			require.NotContains(t, h.Name+h.Value, "\n")
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	request := &Request{Domain: "edge", Descriptors: descriptors(b, "ann")}
	var buffer []byte
	b.ReportAllocs()
	for b.Loop() {
		buffer = request.AppendTo(buffer[:0])
	}
}

func BenchmarkDecode(b *testing.B) {
	text, err := proto.Marshal(&rlsv3.RateLimitResponse{
		OverallCode: rlsv3.RateLimitResponse_OK,
		Statuses:    []*rlsv3.RateLimitResponse_DescriptorStatus{{Code: rlsv3.RateLimitResponse_OK, LimitRemaining: 9}},
	})
	require.NoError(b, err)
	var response Response
	b.ReportAllocs()
	for b.Loop() {
		if err := response.Decode(text); err != nil {
			b.Fatal(err)
		}
	}
}
