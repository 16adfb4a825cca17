package setting_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/internal/setting"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestFaultsNameTheirSettings(t *testing.T) {
	port, ttl := setting.Variable("PORT", 70000), setting.Flag("ttl", "1s")
	for text, c := range map[string]struct {
		err   error
		names []string
	}{
		"PORT=70000: not a port":                  {setting.Faultf("%v: not a port", port), []string{"PORT"}},
		"--ttl 1s: below PORT=70000":              {setting.Faultf("%v: below %v", ttl, port), []string{"ttl", "PORT"}},
		"PORT: missing":                           {setting.Faultf("%s: missing", "PORT"), nil},
		"read: PORT=70000: EOF":                   {fmt.Errorf("read: %w", setting.Faultf("%v: %w", port, io.EOF)), []string{"PORT"}},
		"PORT=70000: small\nEOF\n--ttl 1s: short": {errors.Join(setting.Faultf("%v: small", port), errors.Join(io.EOF, setting.Faultf("%v: short", ttl))), []string{"PORT", "ttl"}},
	} {
		require.EqualError(t, c.err, text)
		require.Equal(t, c.names, setting.Names(c.err), text)
	}
	require.ErrorIs(t, setting.Faultf("%v: %w", port, io.EOF), io.EOF)
	require.Empty(t, setting.Names(nil))
}

func TestWithoutLeavesOutTheFaultsOfSettings(t *testing.T) {
	port, ttl := setting.Variable("PORT", 70000), setting.Flag("ttl", "1s")
	all := errors.Join(setting.Faultf("%v: not a port", port), io.EOF, errors.Join(setting.Faultf("%v: below %v", ttl, port), setting.Faultf("%v: short", ttl)))
	require.EqualError(t, setting.Without(all, []string{"PORT"}), "EOF\n--ttl 1s: short")
	require.EqualError(t, setting.Without(all, []string{"ttl", "OTHER_PORT"}), "PORT=70000: not a port\nEOF")
	require.Equal(t, all.Error(), setting.Without(all, nil).Error())
	require.NoError(t, setting.Without(setting.Faultf("%v: not a port", port), []string{"PORT"}))
	require.NoError(t, setting.Without(nil, []string{"PORT"}))
}
