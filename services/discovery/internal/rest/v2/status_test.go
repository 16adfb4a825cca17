package v2

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/registry/registrytest"
)

func TestTheStatusTellsWhoAnswersAndFromWhenOn(t *testing.T) {
	hosts := newRegistry()
	f := fixtureOf(t, hosts, func(o *Options) { o.Env, o.Replica = "staging", "discovery-1" })
	state := func() any {
		status := f.get(t, "/v2/status")
		require.Equal(t, "staging", status["env"])
		require.Equal(t, "discovery-1", status["replica"])
		now, err := time.Parse(time.RFC3339, status["now"].(string))
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), now, time.Minute)
		return status["state"]
	}
	require.Equal(t, "loading", state())
	registrytest.Run(t, hosts)
	<-hosts.Loaded()
	require.Equal(t, "ready", state())
	f.stop()
	require.Equal(t, "stopping", state())
}

func TestTheStatusTellsWhetherTheCallerIsAnOperator(t *testing.T) {
	require.Equal(t, map[string]any{"identity": "", "operator": true}, newFixture(t).get(t, "/v2/status")["caller"])
	f := newFixture(t).as(t, "carts-team", clerk)
	require.Equal(t, map[string]any{
		"identity": "carts-team", "operator": false, "denied": `the rule of "carts-team" does not let it do what is an operator's`,
	}, f.get(t, "/v2/status")["caller"])
}
