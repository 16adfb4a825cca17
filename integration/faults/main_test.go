// Package faults tests what becomes of a registry of three discovery replicas and
// one Redis, with a few thousand hosts, when its parts fail: Redis, a replica,
// all of them, the network, the clock. In every case each replica is asked all
// the time, over REST and xDS, and the same is wanted of every answer: no service
// with a living host is listed empty, no host that beats is missing for longer
// than a second, and the dead ones are gone in the end. No answer at all is
// allowed: readers keep what they have.
package faults

import (
	"flag"
	"testing"

	"github.com/weirproxy/weir/integration/harness"
)

// TestMain runs more tests at once than there are cores: they wait most of the
// time.
func TestMain(m *testing.M) {
	flag.Parse()
	if given := flag.Lookup("test.parallel"); given.Value.String() == given.DefValue {
		_ = flag.Set("test.parallel", "4") // fails for no number above 0
	}
	harness.Main(m)
}
