package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/connpool"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/upstream"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestWhy(t *testing.T) {
	broken := errors.New("the peer is gone")
	for _, c := range []struct {
		err                    error
		connecting, exchanging upstream.Failure // before there is a connection, and then
	}{
		{connpool.ErrOverflow, upstream.Overflow, upstream.Overflow},
		{upstream.ErrFull, upstream.Overflow, upstream.Overflow},
		{connpool.ErrPools, upstream.NoPool, upstream.NoPool},
		{&message.ProtocolError{Status: 400, Detail: "no"}, upstream.Malformed, upstream.Malformed},
		{&connpool.UnprocessedError{Err: broken}, upstream.Refused, upstream.Refused},
		{&connpool.ResetError{Err: broken}, upstream.Reset, upstream.Reset},
		{os.ErrDeadlineExceeded, upstream.TimedOut, upstream.TimedOut},
		{context.DeadlineExceeded, upstream.TimedOut, upstream.TimedOut},
		{syscall.ETIMEDOUT, upstream.Unconnected, upstream.Terminated},
		{syscall.ECONNREFUSED, upstream.Unconnected, upstream.Terminated},
		{io.ErrUnexpectedEOF, upstream.Unconnected, upstream.Terminated},
		{broken, upstream.Unconnected, upstream.Terminated},
	} {
		for _, err := range []error{c.err, fmt.Errorf("read: %w", c.err)} {
			require.Equal(t, c.connecting, (&upstream.Attempt{}).Why(err), "%v", err)
			require.Equal(t, c.exchanging, (&upstream.Attempt{Conn: &connpool.Conn{}}).Why(err), "%v", err)
		}
	}
}
