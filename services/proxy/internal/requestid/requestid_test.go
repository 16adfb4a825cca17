package requestid_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/requestid"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestAnIDTellsItsNumberAndWhyItIsTraced(t *testing.T) {
	for id, want := range map[string]struct {
		number uint32
		ok     bool
		reason requestid.TraceReason
		marked string // as ByService
	}{
		"00001387-1111-4111-8111-111111111111": {4999, true, requestid.NotTraced, "00001387-1111-a111-8111-111111111111"},
		"ffffffff-1111-9111-8111-111111111111": {1<<32 - 1, true, requestid.Sampled, "ffffffff-1111-a111-8111-111111111111"},
		"00000000-1111-a111-8111-111111111111": {0, true, requestid.ByService, "00000000-1111-a111-8111-111111111111"},
		"00000000-1111-b111-8111-111111111111": {0, true, requestid.ByClient, "00000000-1111-a111-8111-111111111111"},
		"00000000-1111-A111-8111-111111111111": {0, true, requestid.NotTraced, "00000000-1111-a111-8111-111111111111"},
		"zzzzzzzz-1111-4111-8111-111111111111": {0, false, requestid.NotTraced, "zzzzzzzz-1111-a111-8111-111111111111"},
		"0000000bxyz":                          {11, true, requestid.NotTraced, "0000000bxyz"},
		"000001":                               {0, false, requestid.NotTraced, "000001"},
		"":                                     {0, false, requestid.NotTraced, ""},
	} {
		h := &message.Headers{}
		h.Add("x-request-id", id)
		number, ok := requestid.Number(h)
		require.Equal(t, want.number, number, id)
		require.Equal(t, want.ok, ok, id)
		require.Equal(t, want.reason, requestid.Marked(h), id)
		requestid.Mark(h, requestid.ByService)
		marked, _ := h.Get("x-request-id")
		require.Equal(t, want.marked, string(marked))
	}
}

func TestARequestWithoutAnIDIsNotTraced(t *testing.T) {
	h := &message.Headers{}
	_, ok := requestid.Number(h)
	require.False(t, ok)
	require.Equal(t, requestid.NotTraced, requestid.Marked(h))
	requestid.Mark(h, requestid.Sampled)
	require.Zero(t, h.Len())
}
