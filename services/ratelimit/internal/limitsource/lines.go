package limitsource

import (
	"errors"
	"fmt"

	"github.com/weirproxy/weir/services/ratelimit/internal/limits"
)

// Lines is an error of the parser as lines, one for each fault, or of another
// kind as one.
func Lines(err error) []string {
	if parse, ok := errors.AsType[*limits.ParseError](err); ok {
		return parse.Lines()
	}
	return []string{err.Error()}
}

// Bounded is lines, or if they are many more than limits.MaxFaults, as many and
// one that tells how many there are besides.
func Bounded(lines []string) []string {
	if len(lines) <= limits.MaxFaults+1 {
		return lines // those of one file, the last of which may tell the same
	}
	bounded := make([]string, limits.MaxFaults, limits.MaxFaults+1)
	copy(bounded, lines)
	return append(bounded, fmt.Sprintf("… and %d more lines like these", len(lines)-limits.MaxFaults))
}
