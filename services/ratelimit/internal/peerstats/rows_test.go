package peerstats

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The families of the service stand in files that its own test writes.
func TestEveryFamilyThatIsReadIsThere(t *testing.T) {
	var there string
	for _, backend := range []string{"memory", "redis"} {
		text, err := os.ReadFile("../app/testdata/metrics_" + backend + ".txt")
		require.NoError(t, err)
		there += string(text)
	}
	for name := range rows {
		if strings.HasPrefix(name, "ratelimit_") {
			require.Contains(t, there, "# TYPE "+name+" ")
		}
	}
}
