package grpcwire_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/grpcwire"
)

func TestStatus(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "14": 14, "007": 7, "123456789": 123456789, "": -1, "-1": -1, "1x": -1, "1234567890": -1} {
		code, ok := grpcwire.Status([]byte(text))
		require.Equal(t, want >= 0, ok, text)
		if ok {
			require.Equal(t, want, code, text)
		}
	}
}

func TestContentTypes(t *testing.T) {
	for value, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "application/grpc;a=b": false,
		"application/grpc-web": false, "application/json": false, "": false,
	} {
		require.Equal(t, want, grpcwire.IsContentType([]byte(value)), value)
	}
}

func TestStatusesOfHTTP(t *testing.T) {
	for http, want := range map[int]int64{200: 2, 400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14, 500: 2, 418: 2} {
		require.Equal(t, want, grpcwire.OfHTTP(http), http)
	}
	for code, want := range map[int64]int{0: 200, 1: 499, 4: 504, 7: 403, 8: 429, 12: 501, 13: 500, 14: 503, 16: 401, 17: 500, -1: 500} {
		require.Equal(t, want, grpcwire.HTTP(code), code)
	}
}

func TestMessages(t *testing.T) {
	for text, escaped := range map[string]string{"": "", "plain": "plain", "50% off\n": "50%25 off%0A", "\u00e4": "%C3%A4"} {
		require.Equal(t, escaped, grpcwire.Escape(text))
		require.Equal(t, text, grpcwire.Unescape([]byte(escaped)))
	}
	require.Equal(t, "%zz%4 J", grpcwire.Unescape([]byte("%zz%4 %4a")), "what is malformed stays")
}

func TestTimeoutsHaveEightDigits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0m", time.Microsecond: "1m", time.Second + time.Microsecond: "1000m", 99_999_999 * time.Millisecond: "99999999m", 100_000 * time.Second: "100000S",
		99_999_999 * time.Second: "99999999S", 2_000_000 * time.Minute: "2000000M", math.MaxInt64: "2562047H",
	} {
		require.Equal(t, want, grpcwire.Timeout(d))
	}
}

func TestParseTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0n": 0, "7n": 7, "99999999u": 99_999_999 * time.Microsecond, "1m": time.Millisecond, "1S": time.Second, "2M": 2 * time.Minute,
		"3H": 3 * time.Hour, "99999999H": math.MaxInt64,
	} {
		got, ok := grpcwire.ParseTimeout([]byte(text))
		require.True(t, ok, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "S", "12", "123456789S", "-1S", "+1S", "1s", "1.5S", " 1S", "1S "} {
		_, ok := grpcwire.ParseTimeout([]byte(text))
		require.False(t, ok, text)
	}
}
