package builtin

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

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

// TestDeprecatedFieldsThatAreTakenSayWhatToUse leaves out the one field that nothing
// has to stand for.
func TestDeprecatedFieldsThatAreTakenSayWhatToUse(t *testing.T) {
	schema, err := Schema()
	require.NoError(t, err)
	warnings := map[string]string{}
	for _, part := range fields() {
		for message, names := range part {
			for _, name := range names {
				if warning := schema.Warning(field(t, message, name)); warning != "" {
					warnings[fmt.Sprintf("%s.%s", short(message), name)] = warning
				}
			}
		}
	}
	require.Equal(t, "deprecated", warnings["JsonFormatOptions.sort_properties"])
	delete(warnings, "JsonFormatOptions.sort_properties")
	require.Contains(t, warnings, "Cluster.dns_refresh_rate")
	for name, warning := range warnings {
		require.Contains(t, warning, "deprecated: use ", name)
	}
}

// TestEveryFilterThatShipsHasItsPage holds the list of filters in the proxy's README.md,
// and their own, to those that ship.
func TestEveryFilterThatShipsHasItsPage(t *testing.T) {
	const root = "../../"
	page, err := os.ReadFile(root + "README.md")
	require.NoError(t, err)
	var filters []any
	for _, f := range HTTPFilters(Dependencies{}) {
		filters = append(filters, f)
	}
	for _, f := range ListenerFilters(Dependencies{}) {
		filters = append(filters, f)
	}
	for _, f := range filters {
		folder := strings.TrimPrefix(reflect.Indirect(reflect.ValueOf(f)).Type().PkgPath(), "github.com/weirproxy/weir/services/proxy/")
		require.FileExists(t, root+folder+"/README.md")
		require.Contains(t, string(page), "("+folder+")")
	}
}
