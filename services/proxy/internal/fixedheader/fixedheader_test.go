package fixedheader_test

import (
	"fmt"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/fixedheader"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// option is {"a": "b"} with an action.
func option(name, value string, action corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}, AppendAction: action}
}

func TestApply(t *testing.T) {
	for _, c := range []struct {
		name   string
		option *corev3.HeaderValueOption
		want   string
	}{
		{"append adds a second field", option("X-A", "2", corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD), "x-a=1 x-a=2"},
		{"append adds a first field", option("x-b", "2", corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD), "x-a=1 x-b=2"},
		{"add if absent leaves one that is there", option("x-a", "2", corev3.HeaderValueOption_ADD_IF_ABSENT), "x-a=1"},
		{"add if absent adds", option("x-b", "2", corev3.HeaderValueOption_ADD_IF_ABSENT), "x-a=1 x-b=2"},
		{"overwrite replaces", option("x-a", "2", corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD), "x-a=2"},
		{"overwrite adds", option("x-b", "2", corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD), "x-a=1 x-b=2"},
		{"overwrite if exists replaces", option("x-a", "2", corev3.HeaderValueOption_OVERWRITE_IF_EXISTS), "x-a=2"},
		{"overwrite if exists adds nothing", option("x-b", "2", corev3.HeaderValueOption_OVERWRITE_IF_EXISTS), "x-a=1"},
		{"an empty value is left out", option("x-b", "", corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD), "x-a=1"},
		{"an empty value can be kept", &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: "x-b"}, KeepEmptyValue: true}, "x-a=1 x-b="},
		{"%% is %", option("x-b", "50%%", corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD), "x-a=1 x-b=50%"},
	} {
		t.Run(c.name, func(t *testing.T) {
			report := &strict.Report{}
			list := fixedheader.Parse([]*corev3.HeaderValueOption{c.option}, "add", report)
			require.NoError(t, report.Err())
			h := &message.Headers{}
			h.Add("x-a", "1")
			fixedheader.Apply(list, h)
			var got []string
			for i := range h.Len() {
				name, value := h.At(i)
				got = append(got, fmt.Sprintf("%s=%s", name, value))
			}
			require.Equal(t, c.want, strings.Join(got, " "))
		})
	}
}

func TestFaultsAreTold(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"x-a", "%REQ(x)%", `add[0].header.value: "%REQ(x)%" has an operator`},
		{"x-a", "a\x01", `add[0].header.value: "a\x01" has a control character`},
		{"x a", "b", `add[0].header.key: "x a" is no name of a header field`},
		{"Host", "b", `add[0].header.key: "host" can't be added or removed`},
		{":path", "/", `add[0].header.key: ":path" can't be added or removed`},
		{"Content-Length", "1", `add[0].header.key: "content-length" is part of a message's framing`},
	} {
		report := &strict.Report{}
		fixedheader.Parse([]*corev3.HeaderValueOption{option(c.name, c.value, 0)}, "add", report)
		require.ErrorContains(t, report.Err(), c.want)
	}
}
