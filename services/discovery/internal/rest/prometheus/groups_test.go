package prometheus

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

func TestTheTagsOfAHostAreLookedThroughOnce(t *testing.T) {
	const n = 200_000 // where each is compared with those before it, a matter of minutes
	tags := registry.Tags{Other: make(registry.TagList, n)}
	for i := range tags.Other {
		tags.Other[i] = registry.Tag{Name: fmt.Sprintf("%06d", i), Value: []byte("1")}
	}
	began := servicetest.CPUTime(t)
	require.Equal(t, n, bytes.Count(appendTags(nil, &tags), []byte("__meta_discovery_tag_")))
	require.Less(t, servicetest.CPUTime(t)-began, 20*time.Second)
}
