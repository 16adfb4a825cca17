package coreconfig

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/weirproxy/weir/services/proxy/internal/fixedheader"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// Metadata is header fields that calls over gRPC begin with (GrpcService.initial_metadata):
// names and values by turns, each with a line feed behind it. It is a text, so that what
// has it can be compared.
type Metadata string

// Pairs are the names and the values, by turns.
func (m Metadata) Pairs() []string {
	all := strings.Split(string(m), "\n")
	return all[:len(all)-1]
}

// InitialMetadata reads an initial_metadata that lies at the path at.
func InitialMetadata(list []*corev3.HeaderValue, at strict.Path, report *strict.Report) Metadata {
	var m strings.Builder
	for i, field := range list {
		at := at.Index(i)
		m.WriteString(metadataName(field.GetKey(), at.Field("key"), report) + "\n")
		m.WriteString(metadataValue(field.GetValue(), at.Field("value"), report) + "\n")
	}
	return Metadata(m.String())
}

// metadataName reads a name, of which gRPC allows fewer than HTTP does.
func metadataName(name string, at strict.Path, report *strict.Report) string {
	name = strings.ToLower(name)
	switch {
	case strings.HasPrefix(name, "grpc-"), name == "content-type", name == "te", name == "user-agent":
		report.Add(at, "%q is for gRPC to set", name)
	case strings.HasSuffix(name, "-bin"):
		report.Add(at, "%q would have a binary value, which is not supported", name)
	case strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "":
		report.Add(at, "%q is no name in gRPC, which has letters, digits, '-', '_' and '.'", name)
	default:
		return fixedheader.CheckName(name, at, report)
	}
	return name
}

// metadataValue reads a value, of which gRPC allows fewer than HTTP does.
func metadataValue(value string, at strict.Path, report *strict.Report) string {
	if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c > '~' }) {
		report.Add(at, "%q is no value in gRPC, which has printable ASCII", value)
		return ""
	}
	return fixedheader.Value(value, at, report)
}
