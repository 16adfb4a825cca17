package archtest_test

import (
	"testing"

	"github.com/weirproxy/weir/internal/archtest"
)

// The shared packages lean on none of each other and on no service.
func TestImports(t *testing.T) {
	archtest.Check(t, "github.com/weirproxy/weir/internal", archtest.Edges{
		"admin":       nil,
		"archtest":    nil,
		"daemon":      nil,
		"environ":     nil,
		"servicetest": nil,
	})
}
