package web_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/web"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// server is a mux that does not need help.
type server struct{ *http.ServeMux }

func (s server) Handle(pattern, _ string, h http.Handler) { s.ServeMux.Handle(pattern, h) }

func TestThePageMayRunItsOwnFilesOnly(t *testing.T) {
	s := server{http.NewServeMux()}
	web.Mount(s)
	for path, kind := range map[string]string{
		"/page": "text/html; charset=utf-8", "/page.css": "text/css; charset=utf-8", "/page.js": "text/javascript; charset=utf-8",
	} {
		answer := httptest.NewRecorder()
		s.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
		require.Equal(t, http.StatusOK, answer.Code)
		require.Equal(t, kind, answer.Header().Get("Content-Type"))
		require.Contains(t, answer.Header().Get("Content-Security-Policy"), "default-src 'none'; script-src 'self'; style-src 'self'")
		require.NotContains(t, answer.Body.String(), "{{", "it is no template any more")
		require.NotContains(t, answer.Body.String(), "https://", "it needs nothing from elsewhere")
	}
}
