package format

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// moved is a Meter.
type moved struct{}

func (moved) Traffic() (received, sent message.Traffic) {
	return message.Traffic{Wire: 1}, message.Traffic{Wire: 2}
}

func TestASnapshotHasAllThatCanBeSaid(t *testing.T) {
	request, response := &message.Request{Method: []byte("GET"), Path: []byte("/a"), Authority: []byte("b"), Scheme: []byte("http")}, &message.Response{Status: 200}
	request.Headers.Add("x", "1")
	response.Headers.Add("y", "2")
	some := map[reflect.Type]any{reflect.TypeFor[Meter](): moved{}}
	for _, value := range []any{
		request, response, &Connection{ID: 1}, time.Unix(1, 0), netip.MustParseAddrPort("1.2.3.4:5"), "text", 7, uint64(7), true,
		UpstreamOverflow, &corev3.Metadata{}, map[string]*structpb.Struct{"a": {}}, &message.Headers{},
	} {
		some[reflect.TypeOf(value)] = value
	}
	var f Facts
	var c Snapshot
	live := reflect.ValueOf(&f).Elem()
	for i := range live.NumField() {
		if field := live.Type().Field(i); field.IsExported() {
			require.Contains(t, some, field.Type, field.Name)
			live.Field(i).Set(reflect.ValueOf(some[field.Type]))
		}
	}
	c.Take(&f)
	f.AddReceived(3)
	f.AddSent(4)
	f.Mark(RequestEnd, f.Start.Add(time.Second))
	taken := reflect.ValueOf(c.Facts(&f)).Elem()
	for i := range live.NumField() {
		switch field := live.Type().Field(i); {
		case field.Name == "ResponseTrailers":
			require.Nil(t, c.facts.ResponseTrailers, "they may be coming")
		case field.IsExported():
			require.Equal(t, live.Field(i).Interface(), taken.Field(i).Interface(), field.Name)
		}
	}
	require.EqualValues(t, 3, c.facts.ReceivedBytes())
	require.EqualValues(t, 4, c.facts.SentBytes())
	at, ok := c.facts.Since(RequestEnd)
	require.True(t, ok)
	require.Equal(t, time.Second, at)

	f.Request.Headers.Set("x", "3")
	f.Request.Path[1] = 'z'
	f.DynamicMetadata["b"] = nil
	value, _ := c.facts.Request.Headers.Get("x")
	require.Equal(t, "1", string(value))
	require.Equal(t, "/a", string(c.facts.Request.Path))
	require.Len(t, c.facts.DynamicMetadata, 1)
	f.Response = nil
	c.Take(&f)
	require.Nil(t, c.facts.Response)
}
