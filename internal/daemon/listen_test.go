package daemon

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestListenTakesAFreePortFor0(t *testing.T) {
	l, err := Listen("127.0.0.1:0", "MILL_ADDRESS")
	require.NoError(t, err)
	defer l.Close()
	require.NotContains(t, l.Addr().String(), ":0")
}

func TestListenOnAnIPv4WildcardLeavesIPv6Alone(t *testing.T) {
	l, err := Listen("0.0.0.0:0", "MILL_ADDRESS")
	require.NoError(t, err)
	defer l.Close()
	require.Regexp(t, `^0\.0\.0\.0:\d+$`, l.Addr().String())
}

func TestListenNamesWhatMovesThePort(t *testing.T) {
	taken, err := Listen("127.0.0.1:0", "MILL_ADDRESS")
	require.NoError(t, err)
	defer taken.Close()
	_, err = Listen(taken.Addr().String(), "MILL_ADDRESS")
	require.EqualError(t, err, "listen on "+taken.Addr().String()+": the port is in use; MILL_ADDRESS moves it")

	_, err = Listen("127.0.0.1:100000", "MILL_ADDRESS")
	require.ErrorContains(t, err, "listen on 127.0.0.1:100000 (MILL_ADDRESS): ")
}

func TestWriteReadyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ready")
	want := map[string]string{"http": "127.0.0.1:40001", "admin": "127.0.0.1:40002"}

	t.Run("replaces_the_file_and_leaves_nothing_beside_it", func(t *testing.T) {
		require.NoError(t, WriteReadyFile(path, map[string]string{"http": "127.0.0.1:1"}))
		require.NoError(t, WriteReadyFile(path, want))
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		var got map[string]string
		require.NoError(t, json.Unmarshal(text, &got))
		require.Equal(t, want, got)
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, entries, 1)
	})
	t.Run("without_a_path_does_nothing", func(t *testing.T) {
		require.NoError(t, WriteReadyFile("", want))
	})
	t.Run("names_the_path_that_cannot_be_written", func(t *testing.T) {
		err := WriteReadyFile(filepath.Join(dir, "missing", "ready"), want)
		require.ErrorContains(t, err, "write ready file: ")
		require.ErrorContains(t, err, filepath.Join(dir, "missing"))
	})
}
