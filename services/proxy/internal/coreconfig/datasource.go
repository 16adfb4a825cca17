package coreconfig

import (
	"os"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// DataSource reads a text from where a DataSource at the path at says it is:
// in the configuration, in a file, in the environment. Nil is an empty text.
func DataSource(d *corev3.DataSource, at strict.Path, report *strict.Report) []byte {
	switch s := d.GetSpecifier().(type) {
	case *corev3.DataSource_InlineString:
		return []byte(s.InlineString)
	case *corev3.DataSource_InlineBytes:
		return s.InlineBytes
	case *corev3.DataSource_Filename:
		text, err := os.ReadFile(s.Filename)
		if err != nil {
			report.Add(at.Field("filename"), "%v", err)
		}
		return text
	case *corev3.DataSource_EnvironmentVariable:
		text, ok := os.LookupEnv(s.EnvironmentVariable)
		if !ok {
			report.Add(at.Field("environment_variable"), "the environment has no %s", s.EnvironmentVariable)
		}
		return []byte(text)
	}
	return nil
}
