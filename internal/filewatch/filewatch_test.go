package filewatch_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

// taken is what a watch handed on once.
type taken struct {
	texts []string
	err   error
}

// run watches until the test ends.
func run(t *testing.T, w *filewatch.Watch) <-chan taken {
	t.Helper()
	got := make(chan taken, 16)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	// Ends with ctx; the test's end waits for it.
	go func() {
		defer close(done)
		w.Run(ctx, func(contents [][]byte, err error) {
			next := taken{err: err}
			for _, c := range contents {
				next.texts = append(next.texts, string(c))
			}
			got <- next
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return got
}

// await returns the first that is as wanted; others may have been seen half
// written.
func await(t *testing.T, what string, got <-chan taken, want func(taken) bool) {
	t.Helper()
	late := time.After(servicetest.Patience)
	for {
		select {
		case next := <-got:
			if want(next) {
				return
			}
		case <-late:
			require.Fail(t, "not within time: "+what)
		}
	}
}

func TestChangedContentsAreHandedOnTogether(t *testing.T) {
	for name, test := range map[string]struct {
		poll time.Duration
		dir  func(t *testing.T, files string) string // where the files are read from
	}{
		"written files": {time.Hour, func(_ *testing.T, files string) string { return files }},
		"a link that only the poll sees": {5 * time.Millisecond, func(t *testing.T, files string) string {
			link := filepath.Join(t.TempDir(), "link")
			require.NoError(t, os.Symlink(files, link))
			return link
		}},
	} {
		t.Run(name, func(t *testing.T) {
			files := t.TempDir()
			write(t, filepath.Join(files, "a"), "a1")
			write(t, filepath.Join(files, "b"), "b1")
			dir := test.dir(t, files)
			w, contents, err := filewatch.Open(filewatch.Options{
				Files: []filewatch.File{{"A", filepath.Join(dir, "a")}, {"B", filepath.Join(dir, "b")}},
				Poll:  test.poll, What: "letters", Log: slog.New(slog.DiscardHandler),
			})
			require.NoError(t, err)
			require.Equal(t, [][]byte{[]byte("a1"), []byte("b1")}, contents)
			got := run(t, w)

			write(t, filepath.Join(files, "b"), "b2")
			await(t, "the second file is new", got, func(n taken) bool {
				return n.err == nil && n.texts[0] == "a1" && n.texts[1] == "b2"
			})
			require.NoError(t, os.Remove(filepath.Join(files, "a")))
			await(t, "the first is gone", got, func(n taken) bool { return n.err != nil })
			write(t, filepath.Join(files, "a"), "a3")
			await(t, "it is back", got, func(n taken) bool { return n.err == nil && n.texts[0] == "a3" })
		})
	}
}

func TestTheSettingOfAFileThatCannotBeReadIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing")
	_, _, err := filewatch.Open(filewatch.Options{Files: []filewatch.File{{"LETTERS_FILE", path}}})
	require.ErrorContains(t, err, "LETTERS_FILE="+path+": open ")
}
