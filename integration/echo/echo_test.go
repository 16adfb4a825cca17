package echo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weirproxy/weir/internal/servicetest"
	echov1 "github.com/weirproxy/weir/proto/echo/v1"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// start serves an instance named one until the test ends.
func start(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := NewServer("one")
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }() // ends at Close; the cleanup waits for it
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		require.ErrorIs(t, <-served, http.ErrServerClosed)
	})
	return l.Addr().String()
}

// client speaks one version of HTTP.
func client(t *testing.T, h2 bool) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(!h2)
	p.SetUnencryptedHTTP2(h2)
	transport := &http.Transport{Protocols: p}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestAnswers(t *testing.T) {
	address := start(t)
	for _, h2 := range []bool{false, true} {
		for name, c := range map[string]struct {
			method, target, body string
			status               int
			want                 string
		}{
			"a_request_without_a_body_gets_one_line": {"GET", "/a?b=c", "", 200, "one GET /a?b=c\n"},
			"a_body_comes_back":                      {"POST", "/a", "grain", 200, "grain"},
			"the_status_is_what_the_query_says":      {"DELETE", "/?status=503", "", 503, "one DELETE /?status=503\n"},
			"the_body_is_as_long_as_the_query_says":  {"GET", "/?bytes=70000", "", 200, strings.Repeat("x", 70000)},
			"a_delay_comes_before_the_answer":        {"GET", "/?delay=1ms", "", 200, "one GET /?delay=1ms\n"},
			"HEAD_has_no_body":                       {"HEAD", "/", "", 200, ""},
			"a_status_that_is_none_is_refused":       {"GET", "/?status=99", "", 400, "status \"99\": want 200 to 599\n"},
			"a_delay_that_is_none_is_refused":        {"GET", "/?delay=soon", "", 400, "delay \"soon\": want a duration such as 100ms\n"},
			"a_length_that_is_none_is_refused":       {"GET", "/?bytes=-1", "", 400, "bytes \"-1\": want a length\n"},
		} {
			t.Run(fmt.Sprintf("%s_h2_%v", name, h2), func(t *testing.T) {
				req, err := http.NewRequest(c.method, "http://"+address+c.target, strings.NewReader(c.body))
				require.NoError(t, err)
				resp, err := client(t, h2).Do(req)
				require.NoError(t, err)
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.Equal(t, c.status, resp.StatusCode)
				require.Equal(t, c.want, string(body))
				require.Equal(t, []string{"one"}, resp.Header.Values(InstanceHeader))
			})
		}
	}
}

func TestTheHeadComesBackAsText(t *testing.T) {
	req, err := http.NewRequest("GET", "http://"+start(t)+"/?headers", nil)
	require.NoError(t, err)
	req.Header = http.Header{"X-User": {"ann", "bob"}, "User-Agent": {"t"}, "Accept-Encoding": {"identity"}}
	req.Host = "mill"
	resp, err := client(t, false).Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "GET /?headers HTTP/1.1\naccept-encoding: identity\nhost: mill\nuser-agent: t\nx-user: ann\nx-user: bob\n", string(body))
}

func TestABodyComesBackPieceByPieceWithItsTrailers(t *testing.T) {
	address := start(t)
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2_%v", h2), func(t *testing.T) {
			out, in := io.Pipe()
			req, err := http.NewRequest("POST", "http://"+address+"/", out)
			require.NoError(t, err)
			req.Trailer = http.Header{"X-Sum": {"42"}}
			first := make(chan error, 1)
			go func() { _, err := in.Write([]byte("grain")); first <- err }() // ends as the transport reads it, below
			resp, err := client(t, h2).Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			require.NoError(t, <-first)
			for _, piece := range []string{"grain", "flour", "bread"} {
				if piece != "grain" { // sent only after the one before has come back
					_, err := in.Write([]byte(piece))
					require.NoError(t, err)
				}
				got := make([]byte, len(piece))
				_, err = io.ReadFull(resp.Body, got)
				require.NoError(t, err)
				require.Equal(t, piece, string(got))
			}
			require.NoError(t, in.Close())
			rest, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Empty(t, rest)
			require.Equal(t, "42", resp.Trailer.Get("X-Sum"))
		})
	}
}

func TestGRPC(t *testing.T) {
	c, err := grpc.NewClient(start(t), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer c.Close()
	echo := echov1.NewEchoServiceClient(c)

	unary, err := echo.Echo(t.Context(), &echov1.EchoRequest{Payload: []byte("grain")})
	require.NoError(t, err)
	require.Equal(t, "one", unary.GetInstance())
	require.Equal(t, "grain", string(unary.GetPayload()))

	stream, err := echo.EchoStream(t.Context())
	require.NoError(t, err)
	for _, piece := range []string{"flour", "bread"} {
		require.NoError(t, stream.Send(&echov1.EchoStreamRequest{Payload: []byte(piece)}))
		got, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, "one", got.GetInstance())
		require.Equal(t, piece, string(got.GetPayload()))
	}
	require.NoError(t, stream.CloseSend())
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
}

func TestItServesUntilItsContextEnds(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { // ends at cancel; waited for below
		ended <- (&options{listen: "127.0.0.1:0", readyFile: ready}).run(ctx)
	}()
	var addresses map[string]string
	servicetest.Eventually(t, "the ready file is there", func() bool {
		text, err := os.ReadFile(ready)
		return err == nil && json.Unmarshal(text, &addresses) == nil
	})
	require.NoError(t, (&options{check: true, listen: addresses["http"]}).run(t.Context()))

	err := (&options{listen: addresses["http"]}).run(t.Context())
	require.EqualError(t, err, "listen on "+addresses["http"]+": the port is in use; --listen moves it")

	cancel()
	require.NoError(t, <-ended)
	require.ErrorContains(t, (&options{check: true, listen: "127.0.0.1:1"}).run(t.Context()), "ask 127.0.0.1:1") // nobody listens there
}

func TestCommandLine(t *testing.T) {
	for name, c := range map[string]struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		"version":              {[]string{"--version"}, 0, "echo v1.2.3\n", ""},
		"help":                 {[]string{"--help"}, 0, "-ready-file path", ""},
		"an_unknown_argument":  {[]string{"serve"}, 2, "", "echo: unknown argument \"serve\"; --help shows what there is\n"},
		"an_unknown_flag":      {[]string{"--port", "1"}, 2, "", "echo: flag provided but not defined: -port; --help shows what there is\n"},
		"a_check_of_something": {[]string{"healthcheck", "now"}, 2, "", "echo: unknown argument \"now\"; --help shows what there is\n"},
		"a_check_of_none":      {[]string{"healthcheck", "--listen", "127.0.0.1:1"}, 1, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			require.Equal(t, c.code, Main(c.args, "v1.2.3", &stdout, &stderr))
			require.Contains(t, stdout.String(), c.stdout)
			require.Equal(t, c.stderr, stderr.String())
		})
	}
}
