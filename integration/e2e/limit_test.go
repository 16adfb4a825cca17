package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// secondRules let a user pass twice a second.
const secondRules = `
domain: demo
descriptors:
  - key: user
    rate_limit: {unit: second, requests_per_unit: 2}
`

// minuteRules let a user pass five times a minute.
const minuteRules = `
domain: demo
descriptors:
  - key: user
    rate_limit: {unit: minute, requests_per_unit: 5}
`

func TestALimitEndsIn429AndTheNextWindowPassesAgain(t *testing.T) {
	s := harness.NewStack(t, harness.Options{Rules: secondRules})
	s.AddHost("one")
	for range 3 { // windows
		var over harness.Answer
		servicetest.Eventually(t, "the limit is met", func() bool {
			over = s.Get("/", "ann")
			return over.Status == http.StatusTooManyRequests
		})
		require.Equal(t, "true", over.Header.Get("X-Envoy-Ratelimited"))
		require.Empty(t, over.Instance, "no host was asked")
		met := time.Now().Unix()
		require.Equal(t, http.StatusOK, s.Get("/", "").Status, "who is not limited passes meanwhile")
		servicetest.Eventually(t, "the window ends", func() bool { return time.Now().Unix() > met })
		require.Equal(t, http.StatusOK, s.Get("/", "ann").Status, "the next window passes")
	}
	require.GreaterOrEqual(t, s.Stat("cluster.echo.ratelimit.over_limit"), 3)
}

// fiveThen429 are the statuses of seven requests under minuteRules.
var fiveThen429 = []int{200, 200, 200, 200, 200, 429, 429}

func TestALimitIsExact(t *testing.T) {
	s := harness.NewStack(t, harness.Options{Rules: minuteRules})
	s.AddHost("one")
	requireFiveThen429(t, "ann", s)
}

func TestProcessesOfRatelimitShareALimitInRedis(t *testing.T) {
	options := harness.Options{Rules: minuteRules, Ratelimit: []string{
		"REDIS_URL=redis://" + servicetest.Redis(t).Address,
		"REDIS_TIMEOUT=1m", // this machine may be busy
	}}
	stacks := []*harness.Stack{harness.NewStack(t, options), harness.NewStack(t, options)}
	for _, s := range stacks {
		s.AddHost("one")
	}
	requireFiveThen429(t, "ann", stacks...)
}

// failureModeAllowed counts the requests that a proxy let pass uncounted, for
// the rate limiter was away or slow.
const failureModeAllowed = "cluster.echo.ratelimit.failure_mode_allowed"

// requireFiveThen429 asks the stacks in turn, as one user of minuteRules, and wants
// those statuses. It does so again as another user where they are others and a
// window ended in between or a request passed uncounted: the limiter has 50 ms to
// answer, which a busy machine takes now and then.
func requireFiveThen429(t *testing.T, name string, stacks ...*harness.Stack) {
	t.Helper()
	try := 0
	servicetest.Eventually(t, "all requests of a user are counted in one window", func() bool {
		try++
		user := fmt.Sprintf("%s-%d", name, try)
		began, uncounted := time.Now().Unix()/60, passedUncounted(stacks)
		statuses := make([]int, len(fiveThen429))
		for i := range statuses {
			statuses[i] = stacks[i%len(stacks)].Get("/", user).Status
		}
		if passedUncounted(stacks) == uncounted && time.Now().Unix()/60 == began {
			require.Equal(t, fiveThen429, statuses)
		}
		return slices.Equal(fiveThen429, statuses)
	})
}

// passedUncounted is how many requests have passed the stacks so.
func passedUncounted(stacks []*harness.Stack) int {
	sum := 0
	for _, s := range stacks {
		sum += s.Stat(failureModeAllowed)
	}
	return sum
}
