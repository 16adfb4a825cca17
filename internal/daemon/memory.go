package daemon

import (
	"io/fs"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// memoryShare is how much of a container's memory the heap may take, in percent,
// before it is collected more often.
const memoryShare = 90

// TuneGC lets the heap grow by percent of what is live before a collection, unless
// GOGC says so. If GOMEMLIMIT does not say so either, the limit of the container, if
// there is one, bounds it: the kernel would end the process above that.
func TuneGC(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if most, ok := containerMemory(os.DirFS("/")); ok {
		debug.SetMemoryLimit(most / 100 * memoryShare)
	}
}

// containerMemory is the limit of the cgroups that the process is in, in bytes,
// of version 2 or 1. There is none where no file says so.
func containerMemory(root fs.FS) (most int64, limited bool) {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(groups)) {
		_, line, _ = strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(line, ":")
		mount, file := "sys/fs/cgroup", "memory.max"
		switch controllers {
		case "":
		case "memory":
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		// One above may have less. In a container the group may be named as it is
		// outside, and be the root of what can be seen.
		for ; ; group = path.Dir(group) {
			text, err := fs.ReadFile(root, path.Join(mount, group, file))
			n, wrong := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
			if err == nil && wrong == nil && n < 1<<60 && (!limited || n < most) {
				most, limited = n, true
			}
			if group == "/" || group == "." {
				break
			}
		}
	}
	return most, limited
}
