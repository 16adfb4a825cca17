package directory

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Run reloads whenever the files change, until ctx ends. It hears of changes
// from the file system, and looks for itself at each poll, since not every
// file system tells. Call Load first. The error is always nil.
func (s *Source) Run(ctx context.Context) error {
	poll := time.NewTicker(s.options.Poll)
	defer poll.Stop()
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		s.options.Log.Warn("rule directory is polled only", "error", err)
		s.poll(ctx, poll.C)
		return nil
	}
	defer watcher.Close()
	path := s.pathFromRoot()
	watched := map[string]fs.FileInfo{}
	for {
		// What changed before a watch began is told by nobody.
		for s.watch(watcher, watched, path) {
			s.reload(ctx)
		}
		if !s.wait(ctx, watcher, poll.C, path) {
			return nil
		}
		s.reload(ctx)
	}
}

// wait returns true when there may be something to reload, and false when ctx
// has ended. A change that does not concern the rules costs no more than a look
// at its name, since others may write beside the path as often as they like.
func (s *Source) wait(ctx context.Context, watcher *fsnotify.Watcher, tick <-chan time.Time, path []string) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick:
			return true
		case err := <-watcher.Errors:
			s.options.Log.Warn("watch of the rule directory", "error", err)
			return true
		case event := <-watcher.Events:
			if s.concerns(event.Name, path) {
				drain(watcher)
				return true
			}
		}
	}
}

// poll is Run where the file system tells nothing.
func (s *Source) poll(ctx context.Context, tick <-chan time.Time) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			s.reload(ctx)
		}
	}
}

// drain drops the events that wait already; one reload serves them all.
func drain(watcher *fsnotify.Watcher) {
	for {
		select {
		case <-watcher.Events:
		default:
			return
		}
	}
}

// pathFromRoot lists the directories from Root's parent down to Directory.
func (s *Source) pathFromRoot() []string {
	var list []string
	top := filepath.Dir(filepath.Clean(s.options.Root))
	for d := filepath.Clean(s.options.Directory); ; d = filepath.Dir(d) {
		list = append(list, d)
		if d == top || d == filepath.Dir(d) {
			return list
		}
	}
}

// watch makes watcher watch the directories on the path and those that hold
// rule files, as they are now, and says whether one of them is new. A name may
// have come to stand for another directory, which makes it new again.
func (s *Source) watch(watcher *fsnotify.Watcher, watched map[string]fs.FileInfo, path []string) bool {
	wanted := map[string]bool{}
	for _, d := range append(slices.Clip(path), s.last.directories...) {
		wanted[d] = true
	}
	for d := range watched {
		if !wanted[d] {
			_ = watcher.Remove(d) // it may be gone, and the watch with it
			delete(watched, d)
		}
	}
	news := false
	for d := range wanted {
		info, err := os.Stat(d)
		if err != nil || watcher.Add(d) != nil {
			delete(watched, d) // when it comes back, its parent tells
			continue
		}
		if before, ok := watched[d]; !ok || !os.SameFile(before, info) {
			news = true
		}
		watched[d] = info
	}
	return news
}

// concerns says whether a change of name can be a change of the rules: it is
// on the path to the directory, or in it. Others' files beside the path are
// not looked at.
func (s *Source) concerns(name string, path []string) bool {
	directory := filepath.Clean(s.options.Directory)
	return slices.Contains(path, name) || strings.HasPrefix(name, directory+string(filepath.Separator))
}
