package http2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	x "golang.org/x/net/http2"

	"github.com/weirproxy/weir/internal/http2"
)

// dial starts a client whose peer answers with frames from their bytes, behind
// SETTINGS that were exchanged.
func dial(t *testing.T, options http2.Options) (*http2.Client, *peer) {
	near, far := net.Pipe()
	return greet(t, options, near, far)
}

// greet is dial over a connection that is there.
func greet(t *testing.T, options http2.Options, near, far net.Conn) (*http2.Client, *peer) {
	client := http2.NewClient(far, http2.NewClientOptions(options))
	// Reads the preface, then frames; ends with the connection.
	hello := make([]byte, len(preface))
	_, err := io.ReadFull(near, hello)
	require.NoError(t, err)
	require.Equal(t, preface, string(hello))
	p := newPeer(t, near)
	t.Cleanup(func() {
		_ = client.Close()
		near.Close()
	})
	p.got()
	p.send(settings(), raw(4, ack, 0, ""))
	require.Equal(t, []string{"SETTINGS ack"}, p.got())
	return client, p
}

func request(method, path string) *http2.Request {
	return &http2.Request{Method: []byte(method), Scheme: []byte("http"), Authority: []byte("a"), Path: []byte(path)}
}

// outcome reads a whole response, as text.
func outcome(s *http2.Stream) string {
	var told []string
	var head http2.Head
	for head.Status < 200 {
		if err := s.ReadHead(&head); err != nil {
			return strings.Join(append(told, err.Error()), ", ")
		}
		told = append(told, fmt.Sprint(head.Status))
		for i := range head.Fields.Len() {
			name, value := head.Fields.At(i)
			told = append(told, fmt.Sprintf("%s=%s", name, value))
		}
	}
	for {
		chunk, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return strings.Join(append(told, err.Error()), ", ")
		}
		told = append(told, fmt.Sprintf("%q", chunk))
	}
	var trailers http2.Fields
	if s.ReadTrailers(&trailers) {
		for i := range trailers.Len() {
			name, value := trailers.At(i)
			told = append(told, fmt.Sprintf("%s=%s", name, value))
		}
	}
	return strings.Join(told, ", ")
}

// TestClientTranscripts sends a client what a row holds as the answer to its
// request, and compares what its user sees, and what it sends.
func TestClientTranscripts(t *testing.T) {
	const ok = ":status: 200\n"
	for _, c := range []struct {
		rule    string
		method  string
		answer  []string
		want    string // what the user sees
		sent    string // by the client behind its request, and at the stream's close
		options http2.Options
	}{
		{"8.1 a response", "GET", []string{headers(whole, 1, ok+"a: b\n"), data(0, 1, "ab"), data(end, 1, "c")}, `200, a=b, "abc"`, "", http2.Options{}},
		{"8.1 a response without a body", "GET", []string{headers(end|whole, 1, ok)}, "200", "", http2.Options{}},
		{"8.1 trailers", "GET", []string{headers(whole, 1, ok), data(0, 1, "a"), headers(end|whole, 1, "x: y\n")}, `200, "a", x=y`, "", http2.Options{}},
		{"8.1 interim responses", "GET", []string{headers(whole, 1, ":status: 103\na: b\n"), headers(whole, 1, ":status: 100\n"), headers(end|whole, 1, ok)}, "103, a=b, 100, 200", "", http2.Options{}},
		{"8.1.1 a HEAD has no body whatever is said", "HEAD", []string{headers(end|whole, 1, ok+"content-length: 5\n")}, "200, content-length=5", "", http2.Options{}},
		{"8.1.1 nor has a 304", "GET", []string{headers(end|whole, 1, ":status: 304\ncontent-length: 5\n")}, "304, content-length=5", "", http2.Options{}},
		{"8.1 a reset behind a whole response", "POST", []string{headers(end|whole, 1, ok), reset(1, x.ErrCodeNo)}, "200", "", http2.Options{}},
		{"a user who has enough", "POST", []string{headers(end|whole, 1, ok)}, "200", "RST_STREAM 1 CANCEL", http2.Options{}},

		{"8.1.1 DATA behind a HEAD", "HEAD", []string{headers(whole, 1, ok), data(end, 1, "a")}, "stream 1 error PROTOCOL_ERROR: more DATA than content-length says", "RST_STREAM 1 PROTOCOL_ERROR", http2.Options{}},
		{"8.1.1 less DATA than content-length", "GET", []string{headers(whole, 1, ok+"content-length: 3\n"), data(end, 1, "ab")},
			"stream 1 error PROTOCOL_ERROR: less DATA than content-length says", "RST_STREAM 1 PROTOCOL_ERROR", http2.Options{}},
		{"8.1 DATA before the head", "GET", []string{data(end, 1, "ab")}, "stream 1 error PROTOCOL_ERROR: DATA before the head", "RST_STREAM 1 PROTOCOL_ERROR", http2.Options{}},
		{"8.1 an interim response that ends", "GET", []string{headers(end|whole, 1, ":status: 100\n")}, "stream 1 error PROTOCOL_ERROR: an interim response that ends the stream", "RST_STREAM 1 PROTOCOL_ERROR", http2.Options{}},
		{"8.3.2 no :status", "GET", []string{headers(end|whole, 1, "a: b\n")}, `stream 1 error PROTOCOL_ERROR: :status ""`, "RST_STREAM 1 PROTOCOL_ERROR", http2.Options{}},
		{"8.3.2 :status of two digits", "GET", []string{headers(end|whole, 1, ":status: 99\n")}, `stream 1 error PROTOCOL_ERROR: :status "99"`, "RST_STREAM 1 PROTOCOL_ERROR", http2.Options{}},
		{"8.6 :status 101", "GET", []string{headers(whole, 1, ":status: 101\n")}, "stream 1 error PROTOCOL_ERROR: :status 101, which HTTP/2 does not have", "RST_STREAM 1 PROTOCOL_ERROR", http2.Options{}},
		{"8.3 :path in a response", "GET", []string{headers(end|whole, 1, ok+":path: /\n")}, `stream 1 error PROTOCOL_ERROR: pseudo-header field ":path"`, "RST_STREAM 1 PROTOCOL_ERROR", http2.Options{}},
		{"too many interim responses", "GET", []string{strings.Repeat(headers(whole, 1, ":status: 103\n"), 3)}, "stream 1 error ENHANCE_YOUR_CALM: too many interim responses", "RST_STREAM 1 ENHANCE_YOUR_CALM", http2.Options{MaxInterim: 2}},
		{"a head over the limit", "GET", []string{headers(end|whole, 1, ok+"a: "+strings.Repeat("b", 500)+"\n")}, "stream 1 error INTERNAL_ERROR: a head or trailers over the limit", "RST_STREAM 1 INTERNAL_ERROR", http2.Options{MaxHeaderBytes: 400}},
		{"DATA over the window", "GET", []string{headers(whole, 1, ok), data(0, 1, "abcd")}, "stream 1 error FLOW_CONTROL_ERROR: DATA over the stream's window", "RST_STREAM 1 FLOW_CONTROL_ERROR", http2.Options{StreamWindow: 3}},

		{"6.4 a reset", "GET", []string{headers(whole, 1, ok), reset(1, x.ErrCodeInternal)}, "200, stream 1: peer reset it with INTERNAL_ERROR", "", http2.Options{}},
		{"6.4 a reset within the body", "POST", []string{headers(whole, 1, ok), data(0, 1, "ab"), reset(1, x.ErrCodeCancel)}, `200, "ab", stream 1: peer reset it with CANCEL`, "", http2.Options{}},
		{"6.4 a reset behind an interim response", "GET", []string{headers(whole, 1, ":status: 103\n"), reset(1, x.ErrCodeCancel)}, "103, stream 1: peer reset it with CANCEL", "", http2.Options{}},
		{"8.7 a refusal", "GET", []string{reset(1, x.ErrCodeRefusedStream)}, "stream 1: peer reset it with REFUSED_STREAM", "", http2.Options{}},
		{"6.8 GOAWAY before the stream", "GET", []string{raw(7, 0, 0, word(0)+word(0))}, "stream 1: REFUSED_STREAM: the peer drains", "closed", http2.Options{}},
		{"6.8 GOAWAY behind the stream", "GET", []string{raw(7, 0, 0, word(1)+word(0)), headers(end|whole, 1, ok)}, "200", "closed", http2.Options{}},

		{"5.1 HEADERS on an idle stream", "GET", []string{headers(end|whole, 3, ok)}, "connection error PROTOCOL_ERROR: frame of type 1 on the idle stream 3", "GOAWAY 0 PROTOCOL_ERROR\nclosed", http2.Options{}},
		{"5.1 HEADERS behind the end", "GET", []string{headers(end|whole, 1, ok), headers(end|whole, 1, ok)}, "200", "GOAWAY 0 STREAM_CLOSED\nclosed", http2.Options{}},
		{"6.5.2 ENABLE_PUSH of a server", "GET", []string{settings(2, 1)}, "connection error PROTOCOL_ERROR: SETTINGS_ENABLE_PUSH of 1", "GOAWAY 0 PROTOCOL_ERROR\nclosed", http2.Options{}},
		{"8.4 PUSH_PROMISE", "GET", []string{raw(5, whole, 1, word(2)+block(get))}, "connection error PROTOCOL_ERROR: PUSH_PROMISE", "GOAWAY 0 PROTOCOL_ERROR\nclosed", http2.Options{}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, p := dial(t, c.options)
				s, err := client.Open(request(c.method, "/"), nil, c.method != "POST")
				require.NoError(t, err)
				require.NoError(t, s.Flush())
				p.got()
				p.send(c.answer...)
				synctest.Wait()
				require.Equal(t, c.want, outcome(s))
				s.Close()
				require.Equal(t, c.sent, strings.Join(p.got(), "\n"))
			})
		})
	}
}

// TestWhatCameOutlivesTheConnection has a server end the connection behind what a row
// holds, before the client has sent all of its request.
func TestWhatCameOutlivesTheConnection(t *testing.T) {
	const ok = ":status: 200\n"
	for _, c := range []struct {
		name   string
		answer []string
		want   string // what the user sees
	}{
		{"a whole response", []string{headers(whole, 1, ok), data(0, 1, "ab"), headers(end|whole, 1, "x: y\n")}, `200, "ab", x=y`},
		{"a part of one", []string{headers(whole, 1, ok), data(0, 1, "ab")}, `200, "ab", unexpected EOF`},
		{"a part, and a GOAWAY", []string{headers(whole, 1, ok), raw(7, 0, 0, word(1)+word(uint32(x.ErrCodeInternal)))}, `200, peer ended the connection with INTERNAL_ERROR: ""`},
		{"nothing", nil, "unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, p := dial(t, http2.Options{})
				s, err := client.Open(request("POST", "/"), nil, false)
				require.NoError(t, err)
				wrote := make(chan error, 1)
				go func() { wrote <- s.WriteData(make([]byte, 100_000), true) }()
				p.got()
				p.send(c.answer...)
				require.NoError(t, p.conn.Close())
				require.Error(t, <-wrote)
				require.Equal(t, c.want, outcome(s))
				s.Close()
			})
		})
	}
}

// deaf is a connection whose other end takes nothing any more, once it does not.
type deaf struct {
	net.Conn
	not atomic.Bool
}

var errDeaf = errors.New("nobody takes it")

func (d *deaf) Write(p []byte) (int, error) {
	if d.not.Load() {
		return 0, errDeaf
	}
	return d.Conn.Write(p)
}

// TestWhatCameOutlivesAFailureToWrite has a server close its side of the connection
// with something of it on the way.
func TestWhatCameOutlivesAFailureToWrite(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer []string
		want   string // what the user sees
	}{
		{"a whole response", []string{headers(whole, 1, ":status: 200\n"), data(end, 1, "ab")}, `200, "ab"`},
		{"a part of one", []string{headers(whole, 1, ":status: 200\n"), ping(0, "12345678"), data(0, 1, "ab")}, `200, "ab", nobody takes it`},
		{"nothing", nil, "nobody takes it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				conn := &deaf{Conn: far}
				client, p := greet(t, http2.Options{Linger: time.Second}, near, conn)
				s, err := client.Open(request("POST", "/"), nil, false)
				require.NoError(t, err)
				conn.not.Store(true)
				require.NoError(t, s.Flush()) // which does not wait for the socket
				synctest.Wait()
				require.ErrorIs(t, s.WriteData([]byte("x"), true), errDeaf)
				_, err = client.Open(request("GET", "/"), nil, true)
				require.ErrorIs(t, err, http2.ErrUnavailable)
				p.send(c.answer...)
				require.Equal(t, c.want, outcome(s))
				s.Close()
				<-client.Done()
				require.ErrorIs(t, client.Err(), errDeaf)
			})
		})
	}
}

// TestAResponseThatBrokeOffHoldsTheWindow resets streams whose responses nobody has
// read: what they hold in memory is no credit for others before.
func TestAResponseThatBrokeOffHoldsTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, p := dial(t, http2.Options{ConnectionWindow: 65535})
		s, err := client.Open(request("GET", "/"), nil, true)
		require.NoError(t, err)
		p.got()
		p.send(headers(whole, 1, ":status: 200\n"))
		for range 4 {
			p.send(data(0, 1, strings.Repeat("a", 16000)))
		}
		p.send(reset(1, x.ErrCodeCancel))
		require.Empty(t, p.got())
		s.Close()
		require.Equal(t, []string{"WINDOW_UPDATE 0 64000"}, p.got())
	})
}

func TestClientSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, p := dial(t, http2.Options{})
		var fields http2.Fields
		fields.Add("x-a", "b")
		s, err := client.Open(request("POST", "/a"), &fields, false)
		require.NoError(t, err)
		require.Empty(t, p.got(), "a head waits for more")
		require.NoError(t, s.WriteData([]byte("abc"), false))
		require.NoError(t, s.Flush())
		require.Equal(t, []string{"HEADERS 1 :method=POST :scheme=http :authority=a :path=/a x-a=b", `DATA 1 "abc"`}, p.got())
		require.NoError(t, s.WriteTrailers(&fields))
		require.Equal(t, []string{"HEADERS 1 x-a=b end"}, p.got())
		require.ErrorContains(t, s.WriteData([]byte("d"), true), "ended already")

		second, err := client.Open(request("GET", "/b"), nil, true)
		require.NoError(t, err)
		require.Equal(t, []string{"HEADERS 3 :method=GET :scheme=http :authority=a :path=/b end"}, p.got())
		open, _ := client.Streams()
		require.Equal(t, 2, open)
		s.Close()
		second.Close()
		require.Equal(t, []string{"RST_STREAM 1 CANCEL", "RST_STREAM 3 CANCEL"}, p.got())
		open, since := client.Streams()
		require.Zero(t, open)
		require.Equal(t, time.Now(), since)
	})
}

func TestSettingsAreAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		client := http2.NewClient(far, http2.NewClientOptions(http2.Options{}))
		_, err := io.ReadFull(near, make([]byte, len(preface)))
		require.NoError(t, err)
		p := newPeer(t, near)
		p.got()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, client.AwaitSettings(ctx), context.DeadlineExceeded)
		known := make(chan error, 1)
		go func() { known <- client.AwaitSettings(t.Context()) }() // ends with the SETTINGS
		synctest.Wait()
		require.Empty(t, known)
		p.send(settings(8, 1))
		require.NoError(t, <-known)
		extended := request("CONNECT", "/")
		extended.Protocol = []byte("websocket")
		s, err := client.Open(extended, nil, false)
		require.NoError(t, err)
		s.Close()
		require.NoError(t, client.Close())
		near.Close()
	})
	near, far := net.Pipe()
	client := http2.NewClient(far, http2.NewClientOptions(http2.Options{}))
	near.Close()
	require.Error(t, client.AwaitSettings(t.Context()), "the connection has ended")
	_ = client.Close()
}

func TestCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, p := dial(t, http2.Options{})
		p.send(settings(3, 3))
		p.got()
		s, err := client.Open(request("GET", "/"), nil, true)
		require.NoError(t, err)
		require.Equal(t, 3, client.Capacity())
		require.Equal(t, 2, client.Room())
		s.Close()
		client.Drain()
		require.Zero(t, client.Capacity())
	})
}

func TestOpenRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, p := dial(t, http2.Options{})
		p.send(settings(3, 1))
		p.got()
		require.Equal(t, 1, client.Room())
		s, err := client.Open(request("GET", "/"), nil, true)
		require.NoError(t, err)
		require.Zero(t, client.Room())
		_, err = client.Open(request("GET", "/"), nil, true)
		require.ErrorIs(t, err, http2.ErrBusy)
		s.Close()

		extended := request("CONNECT", "/")
		extended.Protocol = []byte("websocket")
		_, err = client.Open(extended, nil, false)
		require.ErrorIs(t, err, http2.ErrNoConnectProtocol)
		p.send(settings(8, 1))
		p.got()
		s, err = client.Open(extended, nil, false)
		require.NoError(t, err)
		require.NoError(t, s.Flush())
		require.Equal(t, []string{"HEADERS 3 :method=CONNECT :protocol=websocket :scheme=http :authority=a :path=/"}, p.got())
		s.Close()

		client.Drain()
		_, err = client.Open(request("GET", "/"), nil, true)
		require.ErrorIs(t, err, http2.ErrUnavailable)
		require.NoError(t, client.Close())
		_, err = client.Open(request("GET", "/"), nil, true)
		require.ErrorIs(t, err, http2.ErrClosed)
	})
}

func TestDeadlinesAndInterruptsFreeReadersAndWriters(t *testing.T) {
	for _, c := range []struct {
		name string
		wait func(s *http2.Stream) error
	}{
		{"ReadHead", func(s *http2.Stream) error { return s.ReadHead(&http2.Head{}) }},
		{"Next", func(s *http2.Stream) error { _, err := s.Next(); return err }},
		{"WriteData without credit", func(s *http2.Stream) error { return s.WriteData(make([]byte, 1<<20), false) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, p := dial(t, http2.Options{})
				s, err := client.Open(request("POST", "/"), nil, false)
				require.NoError(t, err)
				defer s.Close()

				start := time.Now()
				s.SetDeadline(start.Add(time.Second))
				require.ErrorIs(t, c.wait(s), os.ErrDeadlineExceeded)
				require.Equal(t, time.Second, time.Since(start))
				require.ErrorIs(t, c.wait(s), os.ErrDeadlineExceeded, "until there is a new one")
				s.SetDeadline(start.Add(3 * time.Second))
				require.ErrorIs(t, c.wait(s), os.ErrDeadlineExceeded)
				require.Equal(t, 3*time.Second, time.Since(start))
				s.SetDeadline(time.Time{})

				enough := errors.New("enough")
				time.AfterFunc(time.Minute, func() { s.Interrupt(enough) })
				require.ErrorIs(t, c.wait(s), enough)
				require.Equal(t, 63*time.Second, time.Since(start))

				other, err := client.Open(request("POST", "/"), nil, false)
				require.NoError(t, err)
				defer other.Close()
				time.AfterFunc(time.Minute, func() { p.send(reset(other.ID(), x.ErrCodeCancel)) })
				err = c.wait(other)
				require.Equal(t, &http2.StreamError{ID: other.ID(), Code: http2.Cancel, Remote: true}, err)
			})
		})
	}
}

// TestAPeerThatDoesNotReadHoldsNobodyUp has the socket take nothing.
func TestAPeerThatDoesNotReadHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		client := http2.NewClient(far, http2.NewClientOptions(http2.Options{WriteTimeout: time.Minute}))
		require.Equal(t, 100, client.Room(), "before it knows the peer's SETTINGS")
		start := time.Now()
		s, err := client.Open(request("POST", "/"), nil, false)
		require.NoError(t, err)
		s.SetDeadline(start.Add(time.Second))
		require.ErrorIs(t, s.WriteData(make([]byte, 1<<20), false), os.ErrDeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
		s.SetDeadline(time.Time{})
		require.ErrorIs(t, s.WriteData(make([]byte, 1<<20), false), os.ErrDeadlineExceeded, "the write timeout ended the connection")
		require.Equal(t, time.Minute, time.Since(start))
		s.Close()
		_ = client.Close()
		near.Close()
	})
}

func TestKeepalive(t *testing.T) {
	for _, answers := range []bool{true, false} {
		t.Run(fmt.Sprint("answered ", answers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, p := dial(t, http2.Options{KeepaliveInterval: time.Minute, KeepaliveTimeout: 5 * time.Second})
				start := time.Now()
				for range 3 {
					time.Sleep(time.Minute)
					require.Equal(t, []string{`PING "\x00\x00\x00\x00\x00\x00\x00\x00"`}, p.got())
					if !answers {
						break
					}
					p.send(ping(ack, "\x00\x00\x00\x00\x00\x00\x00\x00"))
					time.Sleep(5 * time.Second)
					require.NoError(t, client.Err())
				}
				if answers {
					return
				}
				<-client.Done()
				require.Equal(t, 65*time.Second, time.Since(start))
				require.ErrorIs(t, client.Err(), http2.ErrKeepalive)
			})
		})
	}
}

func TestKeepaliveComesLaterByChance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, p := dial(t, http2.Options{KeepaliveInterval: time.Minute, KeepaliveJitter: 0.5, KeepaliveTimeout: time.Minute})
		time.Sleep(time.Minute - time.Nanosecond)
		require.Empty(t, p.got())
		time.Sleep(30*time.Second + time.Nanosecond)
		require.Equal(t, []string{`PING "\x00\x00\x00\x00\x00\x00\x00\x00"`}, p.got())
		_ = client.Close()
	})
}

func TestServerDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		server := http2.NewServer(http2.Options{})
		conn := server.Conn(far, answer{})
		ended := make(chan error, 1)
		// Ends with the drain.
		go func() { ended <- conn.Serve(nil) }()
		p := newPeer(t, near)
		p.send(preface, settings(), headers(whole, 1, post("/")))
		p.got()

		conn.Drain()
		require.Equal(t, []string{"GOAWAY 2147483647 NO_ERROR"}, p.got())
		require.True(t, conn.Draining())
		p.send(headers(end|whole, 3, get))
		require.Equal(t, []string{"HEADERS 3 :status=200 end"}, p.got(), "what was under way is taken")

		conn.Finish()
		require.Equal(t, []string{"GOAWAY 3 NO_ERROR"}, p.got())
		p.send(headers(whole, 5, post("/")), data(end, 5, "late"))
		require.Empty(t, p.got(), "what comes now is for another connection")

		p.send(data(end, 1, "a"))
		require.Equal(t, []string{"HEADERS 1 :status=200", `DATA 1 "a" end`, "closed"}, p.got(), "with the last stream the connection ends")
		require.ErrorIs(t, <-ended, http2.ErrClosed)
		server.Close()
	})
}

func TestAServerThatDrainsBeforeItServesBeginsWithItsSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		server := http2.NewServer(http2.Options{})
		conn := server.Conn(far, answer{})
		conn.Shutdown()
		ended := make(chan error, 1)
		// Ends with the drain.
		go func() { ended <- conn.Serve(nil) }()
		p := newPeer(t, near)
		seen := p.got()
		require.Contains(t, seen[0], "SETTINGS")
		require.Equal(t, []string{"GOAWAY 2147483647 NO_ERROR", `PING "draining"`}, seen[len(seen)-2:])
		p.send(preface, settings(), ping(ack, "draining"))
		require.Equal(t, []string{"SETTINGS ack", "GOAWAY 0 NO_ERROR", "closed"}, p.got())
		require.ErrorIs(t, <-ended, http2.ErrClosed)
		server.Close()
	})
}

func TestServerFinishesAtOnceWithoutStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		server := http2.NewServer(http2.Options{})
		conn := server.Conn(far, answer{})
		ended := make(chan error, 1)
		// Ends with the drain.
		go func() { ended <- conn.Serve([]byte(preface + settings())) }()
		p := newPeer(t, near)
		p.got()
		conn.Finish()
		require.Equal(t, []string{"GOAWAY 0 NO_ERROR", "closed"}, p.got())
		require.ErrorIs(t, <-ended, http2.ErrClosed)
		server.Close()
	})
}

func TestServerShutsDownOnceTheClientKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		server := http2.NewServer(http2.Options{})
		conn := server.Conn(far, answer{})
		ended := make(chan error, 1)
		// Ends with the drain.
		go func() { ended <- conn.Serve([]byte(preface + settings())) }()
		p := newPeer(t, near)
		p.got()
		p.send(ping(ack, "draining"))
		require.Empty(t, p.got(), "nobody asked")
		conn.Shutdown()
		conn.Shutdown()
		require.Equal(t, []string{"GOAWAY 2147483647 NO_ERROR", `PING "draining"`}, p.got())
		p.send(ping(ack, "another."), headers(end|whole, 1, get))
		require.Equal(t, []string{"HEADERS 1 :status=200 end"}, p.got(), "what was under way is taken")
		p.send(ping(ack, "draining"))
		require.Equal(t, []string{"GOAWAY 1 NO_ERROR", "closed"}, p.got())
		require.ErrorIs(t, <-ended, http2.ErrClosed)
		server.Close()
	})
}

func TestServerShutsDownBesideAClientThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		server := http2.NewServer(http2.Options{})
		conn := server.Conn(far, answer{})
		began := time.Now()
		ended := make(chan error, 1)
		// Ends with the drain.
		go func() { ended <- conn.Serve([]byte(preface + settings())) }()
		p := newPeer(t, near)
		p.got()
		conn.Shutdown()
		require.Equal(t, []string{"GOAWAY 2147483647 NO_ERROR", `PING "draining"`}, p.got())
		require.ErrorIs(t, <-ended, http2.ErrClosed)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, []string{"GOAWAY 0 NO_ERROR", "closed"}, p.got())
		server.Close()
	})
}

func TestErrorsTell(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&http2.ConnectionError{Code: http2.ProtocolError, Reason: "why"}, "connection error PROTOCOL_ERROR: why"},
		{&http2.ConnectionError{Code: http2.NoError, Reason: "why", Remote: true}, `peer ended the connection with NO_ERROR: "why"`},
		{&http2.StreamError{ID: 1, Code: 0x99, Remote: true}, "stream 1: peer reset it with error code 0x99"},
	} {
		require.EqualError(t, c.err, c.want)
	}
}

func TestAPeersGoAwayIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, p := dial(t, http2.Options{})
		p.send(raw(7, 0, 0, word(0)+word(11)+"too much"))
		<-client.Done()
		require.Equal(t, &http2.ConnectionError{Code: http2.EnhanceYourCalm, Reason: "too much", Remote: true}, client.Err())
	})
}

func TestFloodsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := make(chan http2.Flood, 1)
		p := serve(t, http2.Options{OnFlood: func(f http2.Flood) { counted <- f }})
		p.send(preface, settings(), strings.Repeat(windowUpdate(0, 1), 6))
		require.Equal(t, http2.WindowUpdateFlood, <-counted)
	})
}

// TestPingsAreBoundedInTime has a client ask as often as it may, for long, and then
// once too often.
func TestPingsAreBoundedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := make(chan http2.Flood, 1)
		p := serve(t, http2.Options{PingBurst: 1, PingRate: 2, OnFlood: func(f http2.Flood) { counted <- f }})
		p.send(preface, settings())
		p.got()
		for range 100 {
			p.send(ping(0, "12345678"))
			require.Equal(t, []string{`PING "12345678" ack`}, p.got())
			time.Sleep(time.Second / 2)
		}
		p.send(ping(0, "12345678"), ping(0, "12345678"))
		require.Equal(t, http2.PingFlood, <-counted)
	})
}

func TestOutboundFloods(t *testing.T) {
	for _, c := range []struct {
		name    string
		options http2.Options
		send    func(i uint32) string
		want    http2.Flood
	}{
		{"answers to PING", http2.Options{}, func(uint32) string { return ping(0, "12345678") }, http2.OutboundControlFlood},
		{"acknowledgements of SETTINGS", http2.Options{}, func(uint32) string { return settings() }, http2.OutboundControlFlood},
		{"responses", http2.Options{MaxOutboundFrames: 500}, func(i uint32) string { return headers(end|whole, 2*i+1, get) }, http2.OutboundFlood},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				counted := make(chan http2.Flood, 1)
				c.options.OnFlood = func(f http2.Flood) { counted <- f }
				server := http2.NewServer(c.options)
				conn := server.Conn(far, answer{})
				ended := make(chan error, 1)
				// Ends with the flood.
				go func() { ended <- conn.Serve([]byte(preface + settings())) }()
				sent := uint32(0)
				for ; sent < 20000; sent++ { // and nothing is read
					if _, err := io.WriteString(near, c.send(sent)); err != nil {
						break
					}
				}
				require.Equal(t, c.want, <-counted)
				require.Less(t, sent, uint32(2000))
				near.Close()
				err := <-ended
				var broken *http2.ConnectionError
				require.ErrorAs(t, err, &broken)
				require.Equal(t, c.want, broken.Flood)
				server.Close()
			})
		})
	}
}
