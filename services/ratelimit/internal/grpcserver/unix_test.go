package grpcserver

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestListenUnix(t *testing.T) {
	t.Run("sets_the_mode_and_removes_the_socket_at_the_end", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		l, err := ListenUnix(path, 0o620)
		require.NoError(t, err)
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o620), info.Mode().Perm())
		require.NoError(t, l.Close())
		_, err = os.Stat(path)
		require.ErrorIs(t, err, fs.ErrNotExist)
	})
	t.Run("takes_the_place_of_a_socket_without_a_listener", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		old, err := net.Listen("unix", path)
		require.NoError(t, err)
		old.(*net.UnixListener).SetUnlinkOnClose(false)
		require.NoError(t, old.Close())
		l, err := ListenUnix(path, 0o660)
		require.NoError(t, err)
		require.NoError(t, l.Close())
	})
	t.Run("leaves_a_socket_in_use_alone", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		old, err := net.Listen("unix", path)
		require.NoError(t, err)
		defer old.Close()
		_, err = ListenUnix(path, 0o660)
		require.EqualError(t, err, "listen on GRPC_UDS="+path+": the socket is in use")
		_, err = os.Stat(path)
		require.NoError(t, err)
	})
	t.Run("leaves_what_is_no_socket_alone", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		require.NoError(t, os.WriteFile(path, []byte("precious"), 0o644))
		_, err := ListenUnix(path, 0o660)
		require.EqualError(t, err, "listen on GRPC_UDS="+path+": there is a file, and it is no socket")
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, "precious", string(text))
	})
	t.Run("names_a_directory_that_is_not_there", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "none", "s")
		_, err := ListenUnix(path, 0o660)
		require.ErrorContains(t, err, "listen on GRPC_UDS="+path+": ")
		require.ErrorIs(t, err, fs.ErrNotExist)
	})
}
