package web_test

import (
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/denial"
	"github.com/weirproxy/weir/services/discovery/internal/guard"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	"github.com/weirproxy/weir/services/discovery/internal/web"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// get is the answer to a request for a path of the page.
func get(path string, header http.Header) *httptest.ResponseRecorder {
	metrics := prometheus.NewRegistry()
	served := call.NewRouter(call.Options{
		Log: slog.New(slog.DiscardHandler), Metrics: metrics, Denials: denial.NewCounters(metrics),
	}, web.Routes()...)
	r := httptest.NewRequest("GET", path, nil)
	maps.Copy(r.Header, header)
	w := httptest.NewRecorder()
	served.ServeHTTP(w, r)
	return w
}

// files are the paths of all that the page is made of, as the page and its
// scripts name them.
func files(t *testing.T) []string {
	t.Helper()
	found := []string{"/"}
	reference := regexp.MustCompile(`(?:src="|href="|from "\./|from "\.\./)([^"#:]+)"`)
	for i := 0; i < len(found); i++ {
		w := get(found[i], nil)
		require.Equal(t, 200, w.Code, found[i])
		for _, name := range reference.FindAllStringSubmatch(w.Body.String(), -1) {
			if at := path.Join(path.Dir(found[i]), name[1]); !slices.Contains(found, at) {
				found = append(found, at)
			}
		}
	}
	return found
}

func TestThePageIsServedWithAllThatBelongsToIt(t *testing.T) {
	all := files(t)
	require.ElementsMatch(t, []string{
		"/", "/page.css", "/page.js", "/page/calls.js", "/page/clients.js", "/page/dialog.js", "/page/files.js", "/page/loads.js",
		"/page/status.js", "/page/stream.js", "/page/table.js", "/page/text.js",
	}, all)
	for _, path := range append(all, "/page") {
		require.True(t, web.Has(path), path)
		w := get(path, nil)
		want := "text/html; charset=utf-8"
		if _, extension, ok := strings.Cut(path, "."); ok {
			want = map[string]string{"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}[extension]
		}
		require.Equal(t, want, w.Header().Get("Content-Type"), path)
		again := get(path, http.Header{"If-None-Match": {w.Header().Get("Etag")}})
		require.Equal(t, 304, again.Code, path)
	}
	for _, path := range []string{"/page.html", "/page/", "/v2/services"} {
		require.False(t, web.Has(path), path)
		require.Equal(t, 404, get(path, nil).Code, path)
	}
}

func TestThePageNeedsNothingFromElsewhere(t *testing.T) {
	policy := get("/", nil).Header().Get("Content-Security-Policy")
	require.True(t, strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"), policy)
	require.NotContains(t, policy, "unsafe")
	for _, path := range files(t) {
		require.NotRegexp(t, `://|url\(|@import`, get(path, nil).Body.String(), path)
	}
}

// No text of a host can become markup if nothing makes markup of texts.
func TestTheScriptsMakeNoMarkupOfTexts(t *testing.T) {
	for _, path := range files(t) {
		require.NotRegexp(t, `innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(|new Function|srcdoc`, get(path, nil).Body.String(), path)
	}
	require.NotRegexp(t, `<script>|<style| style=| on[a-z]+=`, get("/", nil).Body.String())
}

func TestThePageHasWordsForEveryGuard(t *testing.T) {
	script := get("/page.js", nil).Body.String()
	for _, reason := range guard.Reasons {
		require.Contains(t, script, "\n  "+reason.String()+": \"")
	}
	for _, cause := range guard.Causes {
		require.Contains(t, script, "\n  "+cause.String()+": \"")
	}
}
