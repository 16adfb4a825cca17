package denial_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/denial"
)

var errFull = errors.New("full")

func TestAnErrorIsTheRefusalThatItWraps(t *testing.T) {
	r := denial.NewCounters(prometheus.NewRegistry(), denial.Limit{Err: errFull, Reason: denial.Hosts, Status: 429, RetryAfter: time.Second})
	made := &denial.Error{Status: 403, Reason: denial.Address, Text: "not yours"}
	for name, test := range map[string]struct {
		err  error
		want *denial.Error
	}{
		"a refusal":        {fmt.Errorf("register: %w", made), made},
		"one of a limit":   {fmt.Errorf("service %q: %w", "users", errFull), &denial.Error{Status: 429, Reason: denial.Hosts, Text: `service "users": full`, RetryAfter: time.Second}},
		"some other error": {errors.New("away"), nil},
		"no error":         {nil, nil},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, r.Of(test.err)) })
	}
	var none *denial.Counters
	require.Equal(t, made, none.Of(made))
	require.Nil(t, none.Of(errFull))
}

func TestEveryReasonHasACounterFromTheStart(t *testing.T) {
	metrics := prometheus.NewRegistry()
	r := denial.NewCounters(metrics, denial.Limit{Err: errFull, Reason: denial.Hosts, Status: 429, RetryAfter: time.Second})
	r.Count(denial.Token)
	r.Count(denial.Token)
	r.Note(fmt.Errorf("register: %w", errFull))
	r.Note(&denial.Error{Reason: denial.Body}) // counted by who made it
	r.Note(errors.New("away"))
	r.Note(nil)
	require.NoError(t, testutil.GatherAndCompare(metrics, strings.NewReader(`
# HELP discovery_refusals_total What callers were refused by a rule or a limit, by reason.
# TYPE discovery_refusals_total counter
discovery_refusals_total{reason="address"} 0
discovery_refusals_total{reason="body"} 0
discovery_refusals_total{reason="hosts"} 1
discovery_refusals_total{reason="identity"} 0
discovery_refusals_total{reason="node"} 0
discovery_refusals_total{reason="rate"} 0
discovery_refusals_total{reason="services"} 0
discovery_refusals_total{reason="settings"} 0
discovery_refusals_total{reason="tags"} 0
discovery_refusals_total{reason="token"} 2
discovery_refusals_total{reason="waiters"} 0
`)))
	var none *denial.Counters
	none.Count(denial.Token)
	none.Note(errFull)
}

func TestHeadersSayHowToAskAgain(t *testing.T) {
	for name, test := range map[string]struct {
		refused denial.Error
		want    http.Header
	}{
		"a challenge":     {denial.Error{Status: 401, Challenge: "Bearer"}, http.Header{"Www-Authenticate": {"Bearer"}}},
		"a whole second":  {denial.Error{Status: 429, RetryAfter: time.Second}, http.Header{"Retry-After": {"1"}}},
		"a part of one":   {denial.Error{Status: 429, RetryAfter: 1001 * time.Millisecond}, http.Header{"Retry-After": {"2"}}},
		"nothing of both": {denial.Error{Status: 403}, http.Header{}},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.Header{}
			test.refused.SetHeaders(h)
			require.Equal(t, test.want, h)
		})
	}
}
