package daemon

import (
	"io/fs"
	"math"
	"os"
	"runtime/debug"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func TestTheMemoryOfAContainerIsKnown(t *testing.T) {
	type files = map[string]string
	for _, c := range []struct {
		name  string
		files files
		want  int64
	}{
		{"there_is_no_cgroup", files{}, 0},
		{"it_sets_no_limit", files{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 0},
		{"its_root_is_all_it_sees", files{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000\n"}, 1000},
		{"it_is_named_as_outside", files{"proc/self/cgroup": "0::/docker/x\n", "sys/fs/cgroup/memory.max": "1000\n"}, 1000},
		{"one_above_has_less", files{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "3000\n", "sys/fs/cgroup/a/memory.max": "2000\n",
			"sys/fs/cgroup/memory.max": "max\n",
		}, 2000},
		{"version_1", files{
			"proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/x\n0::/x\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes":      "4000\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":        "9223372036854771712\n",
			"sys/fs/cgroup/cpu,cpuacct/x/memory.limit_in_bytes": "1\n",
		}, 4000},
		{"version_1_without_a_limit", files{
			"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 0},
		{"it_cannot_be_read", files{"proc/self/cgroup": "what\n", "sys/fs/cgroup/memory.max": "many\n"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := fstest.MapFS{}
			for name, text := range c.files {
				root[name] = &fstest.MapFile{Data: []byte(text), Mode: fs.ModePerm}
			}
			most, limited := containerMemory(root)
			require.Equal(t, c.want, most)
			require.Equal(t, c.want > 0, limited)
		})
	}
}

func TestMemoryIsTunedUnlessTheEnvironmentSaysSo(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64))
	percent := func() int {
		now := debug.SetGCPercent(100)
		debug.SetGCPercent(now)
		return now
	}
	t.Setenv("GOGC", "100")
	t.Setenv("GOMEMLIMIT", "off")
	TuneGC(400)
	require.Equal(t, 100, percent())
	require.EqualValues(t, math.MaxInt64, debug.SetMemoryLimit(-1))

	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "")
	TuneGC(400)
	require.Equal(t, 400, percent())
	want := int64(math.MaxInt64)
	if most, ok := containerMemory(os.DirFS("/")); ok {
		want = most / 100 * memoryShare
	}
	require.Equal(t, want, debug.SetMemoryLimit(-1))
}
