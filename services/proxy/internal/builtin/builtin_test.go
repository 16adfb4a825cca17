package builtin

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// TestSupportedFieldsAreWhatTheirListSays keeps the list that the README
// points to true.
func TestSupportedFieldsAreWhatTheirListSays(t *testing.T) {
	seen := map[string]bool{}
	var lines []string
	for _, part := range fields() {
		for message, names := range part {
			if len(names) == 0 {
				names = append(names, "(no fields)")
			}
			for _, name := range names {
				if line := fmt.Sprintf("%s %s\n", message, name); !seen[line] {
					seen[line] = true
					lines = append(lines, line)
				}
			}
		}
	}
	slices.Sort(lines)
	servicetest.Golden(t, "../../supported-fields.txt", []byte(strings.Join(lines, "")))
}
