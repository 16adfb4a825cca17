package lb

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The values are what std::hash<std::string> of libstdc++ gives on amd64.
func TestMurmur2IsThatOfLibstdcxx(t *testing.T) {
	for text, want := range map[string]uint64{
		"":                      6142509188972423790,
		"foo":                   9631199822919835226,
		"12345678":              10113836418918046885,
		"123456789":             12315982496267331008,
		"0123456789abcdef01234": 11973284651786506580,
	} {
		require.Equal(t, want, murmur2([]byte(text)), "%q", text)
	}
}
