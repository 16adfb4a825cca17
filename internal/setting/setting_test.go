package setting_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"testing"
	"time"

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

func TestChecksReportWhatIsOutOfBounds(t *testing.T) {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, setting.Faultf(format, args...).Error()) }
	for _, n := range []int{-1, 0, 1, 65535, 65536} {
		setting.AtLeast("LEAST", n, 1, fault)
		setting.Within("WITHIN", n, 0, 1, fault)
		setting.Positive("POSITIVE", n, fault)
		setting.Port("PORT", n, fault)
	}
	setting.AtLeast("WAIT", time.Second, time.Minute, fault)
	for _, share := range []float64{-0.1, 0, 1, 1.1, math.NaN()} {
		setting.Share("SHARE", share, fault)
	}
	require.Equal(t, []string{
		"LEAST=-1: below 1", "WITHIN=-1: below 0", "POSITIVE=-1: not above 0", "PORT=-1: not a port",
		"LEAST=0: below 1", "POSITIVE=0: not above 0",
		"WITHIN=65535: above 1", "WITHIN=65536: above 1", "PORT=65536: not a port",
		"WAIT=1s: below 1m0s", "SHARE=-0.1: not from 0 to 1", "SHARE=1.1: not from 0 to 1", "SHARE=NaN: not from 0 to 1",
	}, faults)
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
