package fixedheader_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/fixedheader"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestNamesAreLowerCaseAndPercentSignsSingle(t *testing.T) {
	report := &strict.Report{}
	require.Equal(t, "x-a", fixedheader.CheckName("X-A", "key", report))
	require.Equal(t, "50%", fixedheader.Value("50%%", "value", report))
	require.NoError(t, report.Err())
}

func TestFaultsAreTold(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"x-a", "%REQ(x)%", `value: "%REQ(x)%" has an operator`},
		{"x-a", "a\x01", `value: "a\x01" has a control character`},
		{"x a", "b", `key: "x a" is no name of a header field`},
		{"Host", "b", `key: "host" can't be added or removed`},
		{":path", "/", `key: ":path" can't be added or removed`},
		{"Content-Length", "1", `key: "content-length" is part of a message's framing`},
	} {
		report := &strict.Report{}
		fixedheader.CheckName(c.name, "key", report)
		fixedheader.Value(c.value, "value", report)
		require.ErrorContains(t, report.Err(), c.want)
	}
}
