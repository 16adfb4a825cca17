package xds

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/resources"
)

func TestAServiceWhoseResourcesCannotBeMadeIsLoggedAndHarmsNoOther(t *testing.T) {
	h := newTestHub(t)
	var log strings.Builder
	h.log = slog.New(slog.NewTextHandler(&log, nil))
	h.open(&h.loaded)
	s := h.stream(t, false)
	ask(t, s, resources.Endpoints, "broken", "whole")

	h.hosts("broken", "10.0.0.1:80@\xff")
	h.hosts("whole", "10.0.0.1:80@eu-1")
	r := s.next(start)
	require.Len(t, r.resources, 1)
	require.Equal(t, "whole", r.resources[0].Name)
	require.Regexp(t, `level=ERROR .* name=broken error="marshal endpoints .*broken.* UTF-8`, log.String())
	require.NotContains(t, log.String(), "whole")

	// One that was good stays as it was.
	h.hosts("whole", "10.0.0.1:80@\xff")
	answer(t, s, r)
	ask(t, s, resources.Endpoints, "whole", "whole", "other")
	require.Equal(t, r.resources, s.next(start).resources)
}
