package replacefile_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/replacefile"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// text writes a text, and then returns err.
func text(text string, err error) func(io.Writer) error {
	return func(w io.Writer) error {
		_, _ = io.WriteString(w, text)
		return err
	}
}

func TestAFileIsReplacedAsAWholeOrNotAtAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, replacefile.Check(path))
	require.NoError(t, replacefile.Write(path, text("first", nil)))
	reader, err := os.Open(path)
	require.NoError(t, err)
	defer reader.Close()

	full := errors.New("the disk is full")
	require.ErrorIs(t, replacefile.Write(path, text("a longer half", full)), full)
	kept, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "first", string(kept))

	require.NoError(t, replacefile.Write(path, text("2nd", nil)))
	replaced, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "2nd", string(replaced), "nothing is left of what was half written")
	old, err := io.ReadAll(reader)
	require.NoError(t, err)
	require.Equal(t, "first", string(old), "who reads already reads on")
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1)
}

func TestAPlaceAtWhichNoFileCanBeWrittenIsToldBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "file")
	require.ErrorIs(t, replacefile.Check(path), fs.ErrNotExist)
	require.ErrorIs(t, replacefile.Write(path, text("x", nil)), fs.ErrNotExist)
}
