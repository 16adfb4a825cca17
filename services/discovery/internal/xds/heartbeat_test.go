package xds

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

func TestASecretThatAClientMayHaveNoMoreIsNotKeptAlive(t *testing.T) {
	for _, delta := range []bool{false, true} {
		t.Run(variant(delta), func(t *testing.T) {
			h := newTestHub(t)
			h.open(&h.loaded)
			files := (&player{t: t}).files([]string{"secrets/cert:1+30s", "secrets/other:1+30s"})
			h.setFiles(files)
			denied := ""
			s := h.stream(t, delta)
			s.limits.MayHaveSecret = func(_ context.Context, _ resources.Asker, name string) bool { return name != denied }
			ask(t, s, resources.Secrets, "cert", "other")
			s.node.features = features{ttl: true, wrapped: true}
			answer(t, s, s.next(start))
			kept := func(after time.Duration) (names []string) {
				r := s.next(start.Add(after))
				require.NotNil(t, r)
				require.True(t, r.heartbeat)
				for _, resource := range r.resources {
					names = append(names, resource.Name)
				}
				slices.Sort(names)
				answer(t, s, r)
				return names
			}
			require.Equal(t, []string{"cert", "other"}, kept(10*time.Second))

			denied = "cert"
			h.recheckSecrets()
			if r := s.next(start.Add(11 * time.Second)); delta {
				require.Equal(t, []string{"cert"}, r.removed)
				answer(t, s, r)
			} else {
				require.Nil(t, r, "there is no word for it")
			}
			require.Equal(t, []string{"other"}, kept(20*time.Second))

			// Who may have it again may have lost it by now.
			denied = ""
			h.recheckSecrets()
			r := s.next(start.Add(21 * time.Second))
			require.Len(t, r.resources, 1)
			require.Equal(t, "cert", r.resources[0].Name)
			require.False(t, r.heartbeat)
			answer(t, s, r)
			require.Equal(t, []string{"cert", "other"}, kept(30*time.Second))
		})
	}
}

func TestTheLeastTimeToLiveIsOneThatSweepsKeepAlive(t *testing.T) {
	require.LessOrEqual(t, beatsPerTTL*sweepInterval, resources.LeastTTL)
}
