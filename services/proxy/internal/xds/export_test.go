package xds

import (
	"github.com/weirproxy/weir/services/proxy/internal/coreconfig"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// ParseFile is all that is done with a file before a sink gets it.
func ParseFile(name string, text []byte, typeURL string, schema *strict.Schema) ([]Resource, error) {
	r, _, err := parseFile(name, text, typeURL, schema)
	if err != nil {
		return nil, err
	}
	return r.unpack(coreconfig.Source{Path: name})
}
