package coreconfig_test

import (
	"os"
	"path/filepath"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestDataSource(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("of a file"), 0o600))
	t.Setenv("WEIR_TEST_TEXT", "of the environment")
	for _, c := range []struct {
		name   string
		source *corev3.DataSource
		want   string
		faults string
	}{
		{"none", nil, "", ""},
		{"a text", &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "text"}}, "text", ""},
		{"bytes", &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte{0, 1}}}, "\x00\x01", ""},
		{"a file", &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: file}}, "of a file", ""},
		{"no such file", &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: "none"}}, "", "body.filename: open none: no such file or directory"},
		{"a variable", &corev3.DataSource{Specifier: &corev3.DataSource_EnvironmentVariable{EnvironmentVariable: "WEIR_TEST_TEXT"}}, "of the environment", ""},
		{"no such variable", &corev3.DataSource{Specifier: &corev3.DataSource_EnvironmentVariable{EnvironmentVariable: "WEIR_TEST_NONE"}}, "",
			"body.environment_variable: the environment has no WEIR_TEST_NONE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			report := &strict.Report{}
			require.Equal(t, c.want, string(coreconfig.DataSource(c.source, "body", report)))
			require.Equal(t, c.faults, faults(report))
		})
	}
}
