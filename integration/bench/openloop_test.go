package bench

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// loopRequest is answered with loopLength bytes.
const (
	loopRequest = "GET " + target66 + " HTTP/1.1\r\nHost: bench\r\n\r\n"
	loopLength  = 66
)

// openLoop sends so many requests a second to an address, at random times, for a
// duration. It returns how long each took from when it was due: one that finds no
// connection free waits, and that counts.
func openLoop(t testing.TB, address string, rate float64, d time.Duration) (delays []time.Duration) {
	t.Helper()
	const connections = 256
	l := loop{free: make(chan *loopConnection, connections), failed: make(chan error, connections)}
	all := make([]*loopConnection, connections)
	var readers sync.WaitGroup
	for i := range all {
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(d+time.Minute)))
		all[i] = &loopConnection{conn: conn}
		l.free <- all[i]
		// Ends when the connection is closed; waited for below.
		readers.Go(func() { l.read(all[i]) })
	}
	err := l.send(rate, d)
	for range connections { // until all is answered
		if err == nil {
			_, err = l.next()
		}
	}
	for _, one := range all {
		_ = one.conn.Close()
	}
	readers.Wait()
	require.NoError(t, err)
	for _, one := range all {
		delays = append(delays, one.delays...)
	}
	return delays
}

// loop is the connections of an open loop.
type loop struct {
	free   chan *loopConnection
	failed chan error // of connections, which are not free again
}

// loopConnection has at most one request in flight.
type loopConnection struct {
	conn   net.Conn
	due    atomic.Int64 // of its request, nanoseconds of the clock
	delays []time.Duration
}

// next returns a connection once one is free, or why one failed.
func (l *loop) next() (*loopConnection, error) {
	select {
	case one := <-l.free:
		return one, nil
	case err := <-l.failed:
		return nil, err
	}
}

// send sends the requests. It sleeps in the kernel, since timers of Go are late
// by up to a millisecond; a request counts from when it awoke, for that it awoke
// late is no fault of the program under test.
func (l *loop) send(rate float64, d time.Duration) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	random := rand.New(rand.NewPCG(1, 2))
	began := time.Now()
	for at := time.Duration(0); at < d; at += time.Duration(random.ExpFloat64() / rate * float64(time.Second)) {
		if wait := at - time.Since(began); wait > 0 {
			pause := syscall.NsecToTimespec(wait.Nanoseconds())
			_ = syscall.Nanosleep(&pause, nil) // sooner if a signal came
		}
		due := time.Now().UnixNano()
		one, err := l.next()
		if err != nil {
			return err
		}
		one.due.Store(due)
		if _, err := io.WriteString(one.conn, loopRequest); err != nil {
			return err
		}
	}
	return nil
}

// read reads answers until the connection ends.
func (l *loop) read(one *loopConnection) {
	answer := make([]byte, 4096)
	for {
		if err := readAnswer(one.conn, answer); err != nil {
			l.failed <- err // nobody minds if all is over
			return
		}
		one.delays = append(one.delays, time.Duration(time.Now().UnixNano()-one.due.Load()))
		l.free <- one
	}
}

// readAnswer reads an answer of 200 with a body of loopLength, alone on its
// connection. An error says that it is none.
func readAnswer(conn io.Reader, buffer []byte) error {
	for n := 0; ; {
		more, err := conn.Read(buffer[n:])
		if err != nil {
			return fmt.Errorf("read an answer: %w after %q", err, buffer[:n])
		}
		n += more
		if end := bytes.Index(buffer[:n], []byte("\r\n\r\n")); end >= 0 && n >= end+len("\r\n\r\n")+loopLength {
			if !bytes.HasPrefix(buffer, []byte("HTTP/1.1 200 ")) {
				return fmt.Errorf("an answer that is no 200: %q", buffer[:n])
			}
			return nil
		}
	}
}

func TestAnOpenLoopReadsAnswersInPieces(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nX: y\r\n\r\n0123456789012345678901234567890123456789012345678901234567890123\r\n"
	pieces := func(text string) io.Reader {
		var list []io.Reader
		for _, one := range text {
			list = append(list, bytes.NewReader([]byte(string(one))))
		}
		return io.MultiReader(list...)
	}
	require.NoError(t, readAnswer(pieces(answer), make([]byte, 4096)))
	require.ErrorContains(t, readAnswer(pieces(answer[:40]), make([]byte, 4096)), "EOF after")
	require.ErrorContains(t, readAnswer(pieces("HTTP/1.1 503 no"+answer[15:]), make([]byte, 4096)), "no 200")
}
