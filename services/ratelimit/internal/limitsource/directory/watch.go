package directory

import (
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Run reloads whenever the files change, until ctx ends. Call Load first. The
// error is always nil.
func (s *Source) Run(ctx context.Context) error {
	s.files.Run(ctx, s.apply)
	return nil
}

// look reads the directory. Those on the path to it are watched too, as far as
// they are there: when the next one comes, the one above tells.
func (s *Source) look() (now snapshot, watched []string, sum [sha256.Size]byte, err error) {
	now, err = read(s.options.Directory, s.options.IgnoreDot)
	if sum = now.hash; err != nil {
		sum = sha256.Sum256([]byte(err.Error()))
	}
	for _, d := range s.path {
		if _, away := os.Stat(d); away == nil {
			watched = append(watched, d)
		}
	}
	return now, append(watched, now.directories...), sum, err
}

// pathFrom lists the directories from top down to directory.
func pathFrom(top, directory string) []string {
	var list []string
	for d := directory; ; d = filepath.Dir(d) {
		list = append(list, d)
		if d == top || d == filepath.Dir(d) {
			return list
		}
	}
}

// concerns says whether a change of name can be a change of the rules: it is
// on the path to the directory, or in it. Others' files beside the path are
// not looked at.
func (s *Source) concerns(name string) bool {
	return slices.Contains(s.path, name) || strings.HasPrefix(name, s.options.Directory+string(filepath.Separator))
}
