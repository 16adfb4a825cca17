package rls

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/ratelimit/internal/limiter"
)

func TestJSON(t *testing.T) {
	ok := &scripted{answer: limiter.Answer{Statuses: []limiter.Status{{}}}}
	over := &scripted{answer: limiter.Answer{Over: true, Statuses: []limiter.Status{{Over: true}}}}
	away := &scripted{err: errors.New("away")}
	const request = `{"domain": "d", "descriptors": [{"entries": [{"key": "a", "value": "b"}]}]}`
	for _, c := range []struct {
		name    string
		limiter *scripted
		body    string
		status  int
		want    string // JSON, or a part of the text
	}{
		{"within_the_limit_is_200", ok, request, 200, `{"overallCode":"OK","statuses":[{"code":"OK"}]}`},
		{"over_the_limit_is_429", over, request, 429, `{"overallCode":"OVER_LIMIT","statuses":[{"code":"OVER_LIMIT"}]}`},
		{"bad_JSON_is_400", ok, `{"domain"`, 400, "read the request as JSON"},
		{"an_unknown_field_is_400", ok, `{"domian": "d"}`, 400, `unknown field "domian"`},
		{"a_malformed_request_is_400", ok, `{"domain": "d"}`, 400, "descriptors: empty"},
		{"null_in_a_list_is_400", ok, `{"domain": "d", "descriptors": [null]}`, 400, "read the request as JSON"},
		{"no_body_is_400", ok, ``, 400, "the request has no body; "},
		{"too_long_a_body_is_413", ok, strings.Repeat(" ", maxBody+1), 413, "the request's body is longer than 4194304 bytes"},
		{"text_that_is_not_UTF_8_is_400", ok, "{\"domain\": \"\xff\"}", 400, "read the request as JSON"},
		{"a_store_that_is_away_is_503", away, request, 503, "the store fails"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			newService(c.limiter).JSON(w, httptest.NewRequest(http.MethodPost, "/json", strings.NewReader(c.body)))
			require.Equal(t, c.status, w.Code)
			if strings.HasPrefix(c.want, "{") {
				require.Equal(t, "application/json", w.Header().Get("Content-Type"))
				require.JSONEq(t, c.want, w.Body.String())
				return
			}
			require.Contains(t, w.Body.String(), c.want)
		})
	}
}

func TestJSONTakesAnyMethod(t *testing.T) {
	const request = `{"domain": "d", "descriptors": [{}]}`
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut} {
		t.Run(method, func(t *testing.T) {
			service := newService(&scripted{})
			w := httptest.NewRecorder()
			service.JSON(w, httptest.NewRequest(method, "/json", strings.NewReader(request)))
			require.Equal(t, http.StatusOK, w.Code)
			w = httptest.NewRecorder()
			service.JSON(w, httptest.NewRequest(method, "/json", nil))
			require.Equal(t, http.StatusBadRequest, w.Code)
			require.Equal(t, "the request has no body; it must be a RateLimitRequest as JSON\n", w.Body.String())
		})
	}
}

func TestJSONTellsABodyThatBreaksOff(t *testing.T) {
	w := httptest.NewRecorder()
	newService(&scripted{}).JSON(w, httptest.NewRequest(http.MethodPost, "/json", iotest.ErrReader(errors.New("gone"))))
	require.Equal(t, http.StatusBadRequest, w.Code)
	require.Equal(t, "read the request's body: gone\n", w.Body.String())
}

// stuck is a Limiter whose store never answers.
type stuck struct{}

func (stuck) Check(ctx context.Context, _ *limiter.Request, _ *limiter.Answer) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestJSONDoesNotWaitForAStoreThatHangs(t *testing.T) {
	service := New(Options{Limiter: stuck{}, JSONTimeout: time.Millisecond, Metrics: prometheus.NewRegistry()})
	w := httptest.NewRecorder()
	service.JSON(w, httptest.NewRequest(http.MethodPost, "/json", strings.NewReader(`{"domain": "d", "descriptors": [{}]}`)))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, "the hits were not counted within the time of the call\n", w.Body.String())
	require.Equal(t, 1.0, testutil.ToFloat64(service.stats.requests[jsonV3]))
}

// sendRaw sends text to a server of JSON with a timeout, and returns the first line
// of the answer and its body. The connection is not closed before.
func sendRaw(t *testing.T, timeout time.Duration, text string) (status, body string) {
	t.Helper()
	service := New(Options{Limiter: &scripted{}, JSONTimeout: timeout, Metrics: prometheus.NewRegistry()})
	server := httptest.NewServer(http.HandlerFunc(service.JSON))
	t.Cleanup(server.Close)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = io.WriteString(conn, text)
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.Status, string(answer)
}

func TestJSONDoesNotWaitForABodyThatDoesNotCome(t *testing.T) {
	status, body := sendRaw(t, 10*time.Millisecond, "POST /json HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{")
	require.Equal(t, "408 Request Timeout", status)
	require.Equal(t, "the request's body did not come whole within 10ms\n", body)
}

func TestJSONRefusesABodyThatIsAnnouncedAsTooLongAtOnce(t *testing.T) {
	status, body := sendRaw(t, time.Hour, "POST /json HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n{")
	require.Equal(t, "413 Request Entity Too Large", status)
	require.Equal(t, "the request's body is longer than 4194304 bytes\n", body)
}

func TestJSONHasAWordOfHTTPForEachCode(t *testing.T) {
	for code, want := range map[Code]int{
		InvalidArgument: 400, Internal: 500, Unavailable: 503, DeadlineExceeded: 503, Canceled: 503,
	} {
		require.Equal(t, want, (&Error{Code: code}).httpStatus())
	}
}
