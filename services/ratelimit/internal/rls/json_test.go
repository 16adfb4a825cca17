package rls

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

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
		{"no_body_is_400", ok, ``, 400, "read the request as JSON"},
		{"too_long_a_body_is_400", ok, strings.Repeat(" ", maxBody+1), 400, "read the request's body"},
		{"a_store_that_is_away_is_503", away, request, 503, "away"},
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
