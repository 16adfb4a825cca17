package listenerfilter

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// pair is a Socket of an accepted connection, with that and its client's end.
func pair(t *testing.T) (s *Socket, accepted, client net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	accepted, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = accepted.Close(), client.Close() })
	s, err = NewSocket(accepted)
	require.NoError(t, err)
	return s, accepted, client
}

func write(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(conn, text)
	require.NoError(t, err)
}

func TestPeekTakesNothing(t *testing.T) {
	s, accepted, client := pair(t)
	text := strings.Repeat("0123456789", 2000) // more than a buffer has
	for _, part := range []string{text[:3], text[3:5000], text[5000:]} {
		write(t, client, part)
	}
	for _, n := range []int{1, 3, 4, 5000, len(text)} {
		got, err := s.Peek(n)
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(got), n)
		require.True(t, strings.HasPrefix(text, string(got)))
	}
	s.Release()
	got := make([]byte, len(text))
	_, err := io.ReadFull(accepted, got)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
}

func TestPeekHoldsNoBufferWhileThereIsNothing(t *testing.T) {
	s, _, client := pair(t)
	got, err := s.peekNow(t, 1)
	require.NoError(t, err)
	require.Zero(t, got)
	require.Nil(t, s.buffer)
	write(t, client, "a")
	_, err = s.Peek(1)
	require.NoError(t, err)
	require.NotNil(t, s.buffer)
}

// peekNow is peek without a wait.
func (s *Socket) peekNow(t *testing.T, n int) (got int, err error) {
	t.Helper()
	require.NoError(t, s.raw.Control(func(fd uintptr) { got, err = s.peek(int(fd), n) }))
	return got, err
}

func TestPeekSaysWhyItEnds(t *testing.T) {
	t.Run("the client says nothing more", func(t *testing.T) {
		s, _, client := pair(t)
		write(t, client, "ab")
		require.NoError(t, client.(*net.TCPConn).CloseWrite())
		got, err := s.Peek(2)
		require.NoError(t, err)
		require.Equal(t, "ab", string(got), "what it has sent is there")
		_, err = s.Peek(3)
		require.ErrorIs(t, err, io.EOF)
	})
	t.Run("it hangs up while it is waited for", func(t *testing.T) {
		s, _, client := pair(t)
		write(t, client, "ab")
		_, err := s.Peek(2)
		require.NoError(t, err)
		failed := make(chan error)
		go func() { // ends with the close
			_, err := s.Peek(3)
			failed <- err
		}()
		require.NoError(t, client.Close())
		require.ErrorIs(t, <-failed, io.EOF)
	})
	t.Run("its connection is reset", func(t *testing.T) {
		s, _, client := pair(t)
		require.NoError(t, client.(*net.TCPConn).SetLinger(0))
		require.NoError(t, client.Close())
		_, err := s.Peek(1)
		require.ErrorContains(t, err, "recvfrom: connection reset by peer")
	})
	t.Run("it is late", func(t *testing.T) {
		s, accepted, _ := pair(t)
		require.NoError(t, accepted.SetReadDeadline(time.Now().Add(time.Millisecond)))
		_, err := s.Peek(1)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	})
	t.Run("the connection was closed here", func(t *testing.T) {
		s, accepted, _ := pair(t)
		require.NoError(t, accepted.Close())
		_, err := s.Peek(1)
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

func TestFactsBeginAsTheKernelHasThem(t *testing.T) {
	s, accepted, client := pair(t)
	require.Equal(t, client.RemoteAddr().String(), s.Local.String())
	require.Equal(t, client.LocalAddr().String(), s.Remote.String())
	require.Equal(t, s.Remote, s.Direct)
	require.Equal(t, RawBuffer, s.Transport)
	require.Empty(t, s.Applications)
	require.Equal(t, s.Facts, FactsOf(accepted))
}

func TestWhatIsNoSocketHasNoBytesToLookAt(t *testing.T) {
	one, other := net.Pipe()
	defer other.Close()
	defer one.Close()
	_, err := NewSocket(one)
	require.EqualError(t, err, "look at a connection before it is read: a *net.pipe is no socket")
	require.False(t, FactsOf(one).Local.IsValid())
}
