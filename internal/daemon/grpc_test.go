package daemon

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

// calls is a GRPCServer with one connection and one call, which ends when it is
// told to or cut off.
type calls struct {
	accepted chan struct{} // closed when the connection has come
	told     chan struct{} // closed when the call is to end
	cut      chan struct{} // closed by Stop
	quit     chan struct{} // closed by GracefulStop
	broken   error         // what Serve fails with
}

func newCalls() *calls {
	return &calls{make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{}), nil}
}

func (c *calls) Serve(l net.Listener) error {
	defer l.Close()
	select {
	case <-c.quit:
		return errors.New("the server has been stopped")
	default:
	}
	if c.broken != nil {
		return c.broken
	}
	if _, err := l.Accept(); err != nil {
		return err
	}
	close(c.accepted)
	<-c.quit
	return nil
}

func (c *calls) GracefulStop() {
	close(c.quit)
	select {
	case <-c.told:
	case <-c.cut:
	}
}

func (c *calls) Stop() { close(c.cut) }

// served runs a part with one client.
func served(t *testing.T, server *calls, endStreams func()) (part Part, client net.Conn, ended <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	part = ServeGRPC("calls", l, server, time.Minute, endStreams)
	ends := make(chan error, 1)
	go func() { ends <- part.Run() }() // ends with the part's Stop
	client, err = net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	<-server.accepted
	return part, client, ends
}

func TestAStopOfGRPCEndsItsStreamsAndLetsCallsEnd(t *testing.T) {
	server := newCalls()
	part, _, ended := served(t, server, func() { close(server.told) })
	require.NoError(t, part.Stop(t.Context()))
	require.NoError(t, <-ended)
	select {
	case <-server.cut:
		t.Fatal("calls were cut off before the deadline")
	default:
	}
}

func TestAStopOfGRPCCutsOffCallsAndConnectionsAtItsDeadline(t *testing.T) {
	server := newCalls()
	part, client, ended := served(t, server, func() {})
	past, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, part.Stop(past))
	require.NoError(t, <-ended)
	<-server.cut
	require.NoError(t, client.SetDeadline(time.Now().Add(servicetest.Patience)))
	_, err := client.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the connection ends, though it said nothing")
}

func TestAStopOfGRPCBeforeItServesIsNoError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := newCalls()
	part := ServeGRPC("calls", l, server, time.Minute, func() { close(server.told) })
	require.NoError(t, part.Stop(t.Context()))
	require.NoError(t, part.Run())
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestAGRPCServerThatFailsSaysSo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := newCalls()
	server.broken = errors.New("too many open files")
	require.Equal(t, server.broken, ServeGRPC("calls", l, server, time.Minute, func() {}).Run())
}
