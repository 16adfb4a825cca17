package uuid_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/uuid"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestAppend(t *testing.T) {
	text := string(uuid.Append([]byte("id=")))
	require.Regexp(t, `^id=[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, text)
	require.NotEqual(t, text, string(uuid.Append([]byte("id="))))
	room := make([]byte, 0, 36)
	require.Zero(t, testing.AllocsPerRun(100, func() { uuid.Append(room) }))
}
