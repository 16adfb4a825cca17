package filewatch_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/internal/servicetest"
)

// put writes a file, and the directories above it.
func put(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	write(t, path, text)
}

// swap lets a link point elsewhere, in one step.
func swap(t *testing.T, target, link string) {
	t.Helper()
	require.NoError(t, os.Symlink(target, link+".new"))
	require.NoError(t, os.Rename(link+".new", link))
}

func treeOptions(directory string) filewatch.TreeOptions {
	return filewatch.TreeOptions{
		Directory: filewatch.File{Setting: "LETTERS", Path: directory}, Endings: []string{".a", ".b"},
		Poll: time.Hour, What: "letters", Log: slog.New(slog.DiscardHandler),
	}
}

// shown is files as text, without the directory's name.
func shown(directory string, files []filewatch.TreeFile) string {
	var all strings.Builder
	for _, f := range files {
		fmt.Fprintf(&all, "%s=%s%v ", strings.TrimPrefix(f.Path, directory+"/"), f.Text, f.Err)
	}
	return strings.ReplaceAll(strings.ReplaceAll(all.String(), "<nil>", ""), directory, "DIR")
}

func TestATreeIsAllFilesOfItsEndings(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(t *testing.T, dir string)
		want    string
	}{
		"nothing": {func(*testing.T, string) {}, ""},
		"files of other endings, hidden ones, and those below": {func(t *testing.T, dir string) {
			put(t, dir+"/z.a", "1")
			put(t, dir+"/x/y/w.b", "2")
			put(t, dir+"/c.c", "3")
			put(t, dir+"/.hidden.a", "4")
			put(t, dir+"/.hidden/x.a", "5")
		}, "x/y/w.b=2 z.a=1 "},
		"a mounted ConfigMap": {func(t *testing.T, dir string) {
			put(t, dir+"/..1/x.a", "1")
			require.NoError(t, os.Symlink("..1", dir+"/..data"))
			require.NoError(t, os.Symlink("..data/x.a", dir+"/x.a"))
		}, "x.a=1 "},
		"links to nothing": {func(t *testing.T, dir string) {
			require.NoError(t, os.Symlink("nowhere", dir+"/x.a"))
			require.NoError(t, os.Symlink("nowhere", dir+"/other"))
		}, "x.a=stat DIR/x.a: no such file or directory "},
		"a link to where it is": {func(t *testing.T, dir string) {
			put(t, dir+"/x/y.a", "1")
			require.NoError(t, os.Symlink(dir, dir+"/x/again"))
		}, "x/y.a=1 "},
		"a large file": {func(t *testing.T, dir string) {
			put(t, dir+"/x.a", "")
			require.NoError(t, os.Truncate(dir+"/x.a", 16<<20+1))
		}, "x.a=DIR/x.a: larger than 16777216 bytes "},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			test.prepare(t, dir)
			files, err := filewatch.ReadTree(treeOptions(dir))
			require.NoError(t, err)
			require.Equal(t, test.want, shown(dir, files))
		})
	}
}

func TestATreeThatCannotBeReadNamesItsSetting(t *testing.T) {
	dir := t.TempDir()
	_, err := filewatch.ReadTree(treeOptions(dir + "/none"))
	require.EqualError(t, err, "LETTERS="+dir+"/none: stat "+dir+"/none: no such file or directory")
	for i := range 10_001 {
		require.NoError(t, os.Symlink("x", fmt.Sprintf("%s/%05d.a", dir, i)))
	}
	_, _, err = filewatch.OpenTree(treeOptions(dir))
	require.EqualError(t, err, "LETTERS="+dir+": too large: more than 10000 files")
}

// Each case changes what a tree holds to new, in one way that files are brought
// to servers. The poll never comes, so that the watch alone must see it.
func TestEveryWayToChangeATreeIsSeen(t *testing.T) {
	for name, test := range map[string]struct {
		prepare, change func(t *testing.T, dir string)
	}{
		"a file is written": {func(t *testing.T, dir string) { put(t, dir+"/x.a", "old") },
			func(t *testing.T, dir string) { put(t, dir+"/x.a", "new") }},
		"a file comes in a new directory": {func(t *testing.T, dir string) {},
			func(t *testing.T, dir string) { put(t, dir+"/x/y/x.a", "new") }},
		"a file in a directory below is renamed over another": {func(t *testing.T, dir string) { put(t, dir+"/x/x.a", "old") },
			func(t *testing.T, dir string) {
				put(t, dir+"/x/.x", "new")
				require.NoError(t, os.Rename(dir+"/x/.x", dir+"/x/x.a"))
			}},
		"a ConfigMap is updated": {func(t *testing.T, dir string) {
			put(t, dir+"/..1/x.a", "old")
			require.NoError(t, os.Symlink("..1", dir+"/..data"))
			require.NoError(t, os.Symlink("..data/x.a", dir+"/x.a"))
		}, func(t *testing.T, dir string) {
			put(t, dir+"/..2/x.a", "new")
			swap(t, "..2", dir+"/..data")
			require.NoError(t, os.RemoveAll(dir+"/..1"))
		}},
		"the directory is a link that is swapped": {func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(dir))
			put(t, dir+"1/x.a", "old")
			swap(t, dir+"1", dir)
		}, func(t *testing.T, dir string) {
			put(t, dir+"2/x.a", "new")
			swap(t, dir+"2", dir)
		}},
		"the directory is exchanged": {func(t *testing.T, dir string) { put(t, dir+"/x.a", "old") },
			func(t *testing.T, dir string) {
				put(t, dir+"2/x.a", "new")
				require.NoError(t, os.Rename(dir, dir+"1"))
				require.NoError(t, os.Rename(dir+"2", dir))
			}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir() + "/tree"
			require.NoError(t, os.Mkdir(dir, 0o755))
			test.prepare(t, dir)
			tree, _, err := filewatch.OpenTree(treeOptions(dir))
			require.NoError(t, err)
			got := runTree(t, tree)
			test.change(t, dir)
			awaitTree(t, got, func(files []filewatch.TreeFile, _ error) bool {
				return strings.HasSuffix(shown(dir, files), "x.a=new ")
			})
			// And the watch goes on.
			put(t, dir+"/z.b", "newer")
			awaitTree(t, got, func(files []filewatch.TreeFile, _ error) bool {
				return strings.HasSuffix(shown(dir, files), "x.a=new z.b=newer ")
			})
		})
	}
}

func TestATreeThatIsGoneIsTold(t *testing.T) {
	dir := t.TempDir() + "/tree"
	put(t, dir+"/x.a", "1")
	tree, files, err := filewatch.OpenTree(treeOptions(dir))
	require.NoError(t, err)
	require.Equal(t, "x.a=1 ", shown(dir, files))
	got := runTree(t, tree)
	require.NoError(t, os.Rename(dir, dir+"1"))
	awaitTree(t, got, func(_ []filewatch.TreeFile, err error) bool { return err != nil })
	require.NoError(t, os.Rename(dir+"1", dir))
	awaitTree(t, got, func(files []filewatch.TreeFile, err error) bool { return err == nil && shown(dir, files) == "x.a=1 " })
}

func TestThePollSeesWhatLiesBehindALink(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	put(t, elsewhere+"/x", "old")
	require.NoError(t, os.Symlink(elsewhere+"/x", dir+"/x.a"))
	o := treeOptions(dir)
	o.Poll = 5 * time.Millisecond
	tree, _, err := filewatch.OpenTree(o)
	require.NoError(t, err)
	got := runTree(t, tree)
	put(t, elsewhere+"/x", "new")
	awaitTree(t, got, func(files []filewatch.TreeFile, _ error) bool { return shown(dir, files) == "x.a=new " })
}

type treeTaken struct {
	files []filewatch.TreeFile
	err   error
}

// runTree watches until the test ends.
func runTree(t *testing.T, tree *filewatch.Tree) <-chan treeTaken {
	t.Helper()
	got := make(chan treeTaken, 64)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	// Ends with ctx; the test's end waits for it.
	go func() {
		defer close(done)
		tree.Run(ctx, func(files []filewatch.TreeFile, err error) { got <- treeTaken{files, err} })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return got
}

// awaitTree returns when something was taken that is as wanted.
func awaitTree(t *testing.T, got <-chan treeTaken, want func([]filewatch.TreeFile, error) bool) {
	t.Helper()
	late := time.After(servicetest.Patience)
	for {
		select {
		case next := <-got:
			if want(next.files, next.err) {
				return
			}
		case <-late:
			require.Fail(t, "not within time")
		}
	}
}
