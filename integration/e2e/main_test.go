// Package e2e tests the three services together, as built binaries that find
// each other over the wire: traffic, limits, faults of each part and bad input.
// Each test starts what it needs on free ports and imports no service's code.
package e2e

import (
	"testing"

	"github.com/weirproxy/weir/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
