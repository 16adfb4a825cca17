package protoyaml

import "github.com/weirproxy/weir/internal/nearest"

// meant is the name most like what was written, or "" if none is near: at most one
// edit in three letters.
func meant(written string, names []string) string {
	if len(written) > 100 {
		return ""
	}
	name, edits := nearest.Of(written, names)
	if edits > max(1, len(written)/3) {
		return ""
	}
	return name
}
