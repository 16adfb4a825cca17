package strict

import (
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/protoyaml"
)

// Path leads to a value, as packages report it.
type Path = protoyaml.Path

// Fault is one thing wrong with a configuration.
type Fault = protoyaml.Fault

// Report is what packages report into.
type Report = protoyaml.Report

// Source is a text of configuration, YAML or JSON. File is the name that
// faults give.
type Source struct {
	File string
	Text []byte
}

// Load reads one text into an empty message. The report has all faults; the
// message holds what could be read, and is to be used only if there are none.
func Load(file string, text []byte, into proto.Message, schema *Schema) *Report {
	return LoadMerged(into, schema, Source{file, text})
}

// LoadMerged reads texts one after the other into an empty message, as
// protobuf merges: a later one adds to lists, and replaces or fills everything
// else. Rules for the whole message are held against the result.
func LoadMerged(into proto.Message, schema *Schema, sources ...Source) *Report {
	report := &Report{}
	readable := false
	for _, s := range sources {
		if f, root := report.Open(s.File, s.Text, schema); root != nil {
			f.Fill(root, into, "")
			readable = true
		}
	}
	if readable {
		report.Validate(into, "", schema)
	}
	return report
}
