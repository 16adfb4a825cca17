package accesslog

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// text is what was written so far.
type text struct {
	mu sync.Mutex
	b  strings.Builder
}

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// disk is a file whose writes a test holds up or fails.
type disk struct {
	closed atomic.Int64
	text   text
	// stuck is closed when writes may go on.
	stuck chan struct{}
	fails atomic.Bool
}

func (d *disk) open() (io.WriteCloser, error) {
	if d.fails.Load() {
		return nil, errors.New("full")
	}
	return d, nil
}

func (d *disk) Write(p []byte) (int, error) {
	<-d.stuck
	if d.fails.Load() {
		return 0, errors.New("full")
	}
	return d.text.Write(p)
}

func (d *disk) Close() error {
	d.closed.Add(1)
	return nil
}

func newDisk(t *testing.T) (*disk, *file, *text, *counters) {
	t.Helper()
	d := &disk{stuck: make(chan struct{})}
	log := &text{}
	files := NewFiles(stats.NewRegistry(), slog.New(slog.NewTextHandler(log, nil)))
	return d, files.newFile("disk", d.open), log, files.counters
}

func TestAStuckDiskHoldsUpNobodyAndMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f, _, counters := newDisk(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { // ends with ctx
			f.run(ctx)
			close(done)
		}()
		line := []byte(strings.Repeat("x", 1023) + "\n")
		f.write(line)
		time.Sleep(2 * flushInterval) // the writer is stuck by now
		synctest.Wait()
		for range 2 * mostBuffered / len(line) {
			f.write(line)
		}
		require.EqualValues(t, mostBuffered/len(line), counters.dropped.Value())
		require.EqualValues(t, 1+mostBuffered/len(line), counters.buffered.Value())
		close(d.stuck)
		cancel()
		<-done
		require.Len(t, d.text.String(), len(line)+mostBuffered, "what was not dropped is written")
		require.EqualValues(t, 1, d.closed.Load())
	})
}

func TestALineWaitsASecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f, _, counters := newDisk(t)
		close(d.stuck)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go f.run(ctx) // ends with ctx
		f.write([]byte("a\n"))
		synctest.Wait()
		require.Empty(t, d.text.String())
		time.Sleep(flushInterval)
		synctest.Wait()
		require.Equal(t, "a\n", d.text.String())
		require.EqualValues(t, 1, counters.flushedByTimer.Value())
		many := strings.Repeat("x", flushSize)
		f.write([]byte(many))
		synctest.Wait()
		require.Equal(t, "a\n"+many, d.text.String(), "much does not wait")
	})
}

func TestAFailingDiskIsToldOnceAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f, log, counters := newDisk(t)
		close(d.stuck)
		d.fails.Store(true)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go f.run(ctx) // ends with ctx
		f.write([]byte("kept until the file opens\n"))
		time.Sleep(5 * flushInterval)
		synctest.Wait()
		require.Equal(t, 1, strings.Count(log.String(), "level=ERROR"))
		d.fails.Store(false)
		time.Sleep(flushInterval)
		synctest.Wait()
		require.Equal(t, "kept until the file opens\n", d.text.String())

		d.fails.Store(true)
		f.write([]byte("lost\n"))
		time.Sleep(flushInterval)
		synctest.Wait()
		require.EqualValues(t, 1, counters.failed.Value())
		require.Equal(t, 2, strings.Count(log.String(), "level=ERROR"))
	})
}

func TestANamedPipeWithoutAReaderHoldsUpNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	log := &text{}
	files := NewFiles(stats.NewRegistry(), slog.New(slog.NewTextHandler(log, nil)))
	f := files.path(path).file
	require.NoError(t, files.Open(), "its reader may come later")
	require.Contains(t, log.String(), `error="open `+path+`: nobody reads from this named pipe"`)
	f.write([]byte("kept until there is a reader\n"))
	require.False(t, f.flush())

	read := func() (line string, leave func()) {
		reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		require.NoError(t, err)
		require.True(t, f.flush())
		line, err = bufio.NewReader(reader).ReadString('\n')
		require.NoError(t, err)
		return line, func() { require.NoError(t, reader.Close()) }
	}
	line, leave := read()
	require.Equal(t, "kept until there is a reader\n", line)
	leave()
	f.write([]byte("lost\n"))
	f.flush()
	require.EqualValues(t, 1, files.counters.failed.Value())
	f.write([]byte("kept until there is another\n"))
	require.False(t, f.flush())
	require.Equal(t, 2, strings.Count(log.String(), "level=ERROR"), "each reader that is not there is told once")
	line, leave = read()
	require.Equal(t, "kept until there is another\n", line)
	leave()
	require.NoError(t, f.out.Close())
}

func TestOpenNamesTheFilesThatCannotBe(t *testing.T) {
	files := NewFiles(stats.NewRegistry(), slog.New(slog.DiscardHandler))
	missing := filepath.Join(t.TempDir(), "missing", "file")
	files.path(missing)
	require.EqualError(t, files.Open(), "open an access log: open "+missing+": no such file or directory")
}

func TestAFileIsClosedWhenTheLastLogThatNamesItIsGone(t *testing.T) {
	files := NewFiles(stats.NewRegistry(), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- files.Run(ctx) }() // ends with ctx
	open := func() int {
		runtime.GC()
		return len(files.all()) - 2 // the streams of the process
	}
	path := filepath.Join(t.TempDir(), "file")
	one, other := files.path(path), files.path(path)
	require.Same(t, one, other)
	one.write([]byte("of one\n"))
	require.Equal(t, 1, open())
	other.write([]byte("of the other\n"))
	f := other.file
	servicetest.Eventually(t, "the file is closed", func() bool { return open() == 0 })
	_, err := f.out.Write(nil)
	require.ErrorIs(t, err, os.ErrClosed)

	again := files.path(path)
	require.NotSame(t, f, again.file)
	again.write([]byte("of one that came later\n"))
	cancel()
	require.NoError(t, <-ended)
	runtime.KeepAlive(again)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "of one\nof the other\nof one that came later\n", string(text))
}
