package app

import (
	"io/fs"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	// servingGC lets the heap grow to five times what is live before a collection:
	// a request's memory is short-lived and little is live, so that collections
	// cost more than the memory does.
	servingGC = 400
	// loadingGC is in force while many rules are read: what that leaves behind is
	// several times the rules, and five times that would be a multiple of what the
	// process needs before and after.
	loadingGC = 50
	// manyRules is the size of rules, in bytes of their files or resources, from
	// which on loadingGC is in force.
	manyRules = 1 << 20
	// memoryShare is how much of a container's memory the heap may take, in
	// percent, before it is collected more often.
	memoryShare = 90
)

// tuneGC sets how much memory is taken to save collections, unless GOGC says so.
// If GOMEMLIMIT does not say so either, the limit of the container, if there is
// one, bounds it: the kernel would end the process above that.
func tuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(servingGC)
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

// loadFrugally is called before rules of so many bytes are read, and what it
// returns when they are in force: it keeps down what reading many of them takes,
// and gives the memory back, unless GOGC is set. The process reads one set of
// rules at a time.
func loadFrugally(size int) (done func()) {
	if size < manyRules || os.Getenv("GOGC") != "" {
		return func() {}
	}
	debug.SetGCPercent(loadingGC)
	return func() {
		debug.SetGCPercent(servingGC)
		debug.FreeOSMemory()
	}
}
