package httpfilter_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

func TestARequestWhoseBodyFailsIsAnsweredWithTheReason(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string // status, text, flags and details
	}{
		{&message.ProtocolError{Status: 400, Detail: "no chunk", ResponseCodeDetails: "http1.codec_error"}, "400 no chunk DPE http1.codec_error"},
		{fmt.Errorf("in a chain: %w", &message.ProtocolError{Status: 431, Detail: "too long", ResponseCodeDetails: "http1.headers_too_large"}), "431 too long DPE http1.headers_too_large"},
		{os.ErrDeadlineExceeded, "408 stream timeout SI stream_idle_timeout"},
		{syscall.ETIMEDOUT, "400 the request's body ended early DC downstream_remote_disconnect"},
		{&net.OpError{Op: "read", Err: net.ErrClosed}, "400 the request's body ended early DC downstream_local_disconnect"},
		{errors.New("the client has gone"), "400 the request's body ended early DC downstream_remote_disconnect"},
	} {
		s := &stream.Stream{}
		reply := httpfilter.BodyFailed(s, c.err)
		require.Equal(t, c.want, fmt.Sprintf("%d %s %s %s", reply.Status, reply.Body, s.Facts.Flags, s.Facts.Details))
	}
}

func TestABodyThatAStreamWithoutTimeCutOffIsAnsweredByThat(t *testing.T) {
	s := &stream.Stream{}
	s.Expire(&stream.Expiry{Status: 408, Text: "request timeout", Details: "request_overall_timeout"})
	reply := httpfilter.BodyFailed(s, os.ErrDeadlineExceeded)
	require.Equal(t, &httpfilter.Reply{Status: 408, Body: "request timeout"}, reply)
	require.Equal(t, "- request_overall_timeout", s.Facts.Flags.String()+" "+s.Facts.Details)
}

func TestARequestOfGRPCThatIsOutOfTimeIsToldItsOwnStatus(t *testing.T) {
	s := &stream.Stream{}
	why := &stream.Expiry{Status: 408, Text: "too late", GRPCStatus: 4}
	require.Equal(t, &httpfilter.Reply{Status: 408, Body: "too late"}, httpfilter.Expired(s, why))
	s.Request.Headers.Add("content-type", "application/grpc")
	require.Equal(t, httpfilter.GRPCReply(4, "too late"), httpfilter.Expired(s, why))
}
