package httpfilter_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

func TestGRPCIsKnownByItsContentType(t *testing.T) {
	for value, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "application/grpc;a=b": true,
		"application/grpc-web": false, "application/json": false, "": false,
	} {
		r := &message.Request{}
		r.Headers.Add("content-type", value)
		require.Equal(t, want, httpfilter.IsGRPC(r), value)
	}
	require.False(t, httpfilter.IsGRPC(&message.Request{}))
}

func TestGRPCStatus(t *testing.T) {
	for http, want := range map[int]int{200: 0, 400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14, 500: 2, 418: 2} {
		require.Equal(t, want, httpfilter.GRPCStatus(http), http)
	}
}
