package archtest_test

import (
	"testing"

	"github.com/weirproxy/weir/internal/archtest"
)

// The shared packages lean on no service, and all but command, which puts some
// of them together, on none of each other.
func TestImports(t *testing.T) {
	archtest.Check(t, "github.com/weirproxy/weir/internal", archtest.Edges{
		"admin":       nil,
		"archtest":    nil,
		"command":     {"admin", "daemon", "environ"},
		"daemon":      nil,
		"environ":     nil,
		"servicetest": nil,
	})
}
