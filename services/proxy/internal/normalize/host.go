package normalize

import (
	"bytes"
	"slices"
	"strconv"
)

// Hosts is how the authority of requests is normalised. The zero value leaves it
// alone.
type Hosts struct {
	// StripAnyPort takes the port away (strip_any_host_port).
	StripAnyPort bool
	// StripPort takes this port away, 0 none (strip_matching_host_port: the
	// listener's).
	StripPort int
	// StripDot takes the dot at a name's end away (strip_trailing_host_dot).
	StripDot bool
}

// Host brings an authority, a name or an address with perhaps a port, into its
// form, which is in new memory if it is no part of the old one.
func (h Hosts) Host(authority []byte) []byte {
	name, port := split(authority)
	if h.StripDot && len(name) > 1 && name[len(name)-1] == '.' {
		name = name[:len(name)-1]
	}
	if len(port) > 1 && (h.StripAnyPort || h.StripPort != 0 && number(port[1:]) == h.StripPort) {
		port = nil
	}
	switch {
	case len(name)+len(port) == len(authority):
		return authority
	case len(port) == 0:
		return name
	}
	return append(slices.Clip(name), port...)
}

// split is the name and, with its colon, the port.
func split(authority []byte) (name, port []byte) {
	colon := bytes.LastIndexByte(authority, ':')
	if colon < 0 || bytes.IndexByte(authority[colon:], ']') >= 0 { // within an IPv6 address
		return authority, nil
	}
	return authority[:colon], authority[colon:]
}

func number(digits []byte) int {
	n, err := strconv.Atoi(string(digits))
	if err != nil {
		return -1
	}
	return n
}
