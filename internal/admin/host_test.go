package admin

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestALoopbackListenerIsAskedByAnAddressOrAsLocalhost(t *testing.T) {
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	status := func(at net.Addr, host string) int {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/page.json", nil)
		r.Host = host
		namedLocally(at, ok).ServeHTTP(w, r)
		return w.Code
	}
	loopback, wildcard := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.TCPAddr{IP: net.IPv6zero}
	for _, host := range []string{"127.0.0.1:6070", "127.0.0.1", "localhost", "LocalHost:6070", "[::1]:6070", "[::1]", "10.1.2.3:6070", ""} {
		require.Equal(t, http.StatusOK, status(loopback, host), host)
	}
	for _, host := range []string{"evil.example", "evil.example:6070", "127.0.0.1.evil.example", "localhost.evil.example:6070", ":x:"} {
		require.Equal(t, http.StatusMisdirectedRequest, status(loopback, host), host)
		require.Equal(t, http.StatusOK, status(wildcard, host), host)
	}
	require.Equal(t, http.StatusMisdirectedRequest, status(&net.TCPAddr{IP: net.IPv6loopback}, "evil.example"))
}

func TestOnlyAllowedPathsAreAnswered(t *testing.T) {
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	ask := func(allow func(string) bool, target string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		allowed(allow, ok).ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
		return w
	}
	for target, seen := range map[string]string{
		"/ready": "/ready", "/%72eady": "/ready", "/stats?filter=a%20b&x": "/stats?filter=a%20b&x", "/stats?": "/stats?",
	} {
		var got string
		answer := ask(func(target string) bool { got = target; return true }, target)
		require.Equal(t, http.StatusOK, answer.Code)
		require.Equal(t, seen, got)

		answer = ask(func(string) bool { return false }, target)
		require.Equal(t, http.StatusForbidden, answer.Code)
		require.Equal(t, "request to path \""+seen+"\" not allowed\n", answer.Body.String())
		require.Equal(t, http.StatusOK, ask(nil, target).Code)
	}
}
