package daemon

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// pipes is a listener of connections within the process.
type pipes struct {
	net.Listener
	clients []net.Conn
}

func (p *pipes) Accept() (net.Conn, error) {
	client, server := net.Pipe()
	p.clients = append(p.clients, client)
	return server, nil
}

func TestCutOffClosesWhatCameLatelyAndWhatComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := &pipes{}
		arrivals := newArrivals(listener, 5*time.Second)
		old, err := arrivals.Accept()
		require.NoError(t, err)
		defer old.Close()
		time.Sleep(10*time.Second + 1)
		for range 2 {
			_, err := arrivals.Accept()
			require.NoError(t, err)
		}
		arrivals.cutOff()
		late, err := arrivals.Accept()
		require.NoError(t, err)
		_, err = late.Write([]byte("x"))
		require.ErrorIs(t, err, io.ErrClosedPipe)
		for _, client := range listener.clients[1:] {
			_, err := client.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF)
		}
		require.NoError(t, listener.clients[0].SetDeadline(time.Now().Add(time.Second)))
		_, err = listener.clients[0].Read(make([]byte, 1))
		require.ErrorContains(t, err, "timeout", "the server's own stop ends the old one")
	})
}
