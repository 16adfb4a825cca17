package accesslog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"weak"

	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

const (
	// flushInterval is how long a line waits at most.
	flushInterval = time.Second
	// flushSize is how much waits at most, if the disk keeps up.
	flushSize = 64 << 10
	// mostBuffered is how much may wait; lines beyond it are dropped, and counted.
	mostBuffered = 4 << 20
)

// Files are the files that access logs are written to, each of them once,
// however many logs name it. A file is closed some time after the last log that
// names it went: a listener's logs outlive it, as connections that are drained and
// streams on them still write, and so the garbage collector says when that is.
type Files struct {
	stdout, stderr *output
	counters       *counters
	log            *slog.Logger

	mu sync.Mutex
	// paths are the outputs that logs hold, or held until a moment ago.
	paths map[string]weak.Pointer[output]
	// files are those of paths that are not closed.
	files map[*file]bool
	// running is what the writers run in, nil unless Run does.
	running context.Context
	writers sync.WaitGroup
}

// counters are the metrics under filesystem., by Envoy's names; write_dropped is
// our own.
type counters struct {
	buffered, completed, failed, dropped *stats.Counter
	reopenFailed, flushedByTimer         *stats.Counter
	waiting                              *stats.Gauge // bytes
}

// NewFiles makes a set without files. Log gets what goes wrong with them.
func NewFiles(registry *stats.Registry, log *slog.Logger) *Files {
	scope := registry.Scope("filesystem")
	fs := &Files{paths: map[string]weak.Pointer[output]{}, files: map[*file]bool{}, log: log, counters: &counters{
		buffered:       scope.Counter("write_buffered"),
		completed:      scope.Counter("write_completed"),
		failed:         scope.Counter("write_failed"),
		dropped:        scope.Counter("write_dropped"),
		reopenFailed:   scope.Counter("reopen_failed"),
		flushedByTimer: scope.Counter("flushed_by_timer"),
		waiting:        scope.Gauge("write_total_buffered"),
	}}
	fs.stdout = &output{fs.newFile("stdout", standard(os.Stdout))}
	fs.stderr = &output{fs.newFile("stderr", standard(os.Stderr))}
	return fs
}

// standard opens a stream of the process, which stays open.
func standard(stream *os.File) func() (io.WriteCloser, error) {
	return func() (io.WriteCloser, error) { return unclosed{stream}, nil }
}

// unclosed is a stream that is not ours to close.
type unclosed struct{ io.Writer }

// Close implements io.Closer.
func (unclosed) Close() error { return nil }

// output is what logs hold of a file, which is closed once none does. Nothing else
// holds it for longer than a call.
type output struct{ file *file }

func (o *output) write(line []byte) {
	o.file.write(line)
	runtime.KeepAlive(o) // or the file might be closed before it had the line
}

// path is the output of a path, whose file is opened later.
func (fs *Files) path(path string) *output {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if o := fs.paths[path].Value(); o != nil {
		return o
	}
	f := fs.newFile(path, func() (io.WriteCloser, error) { return openFile(path) })
	o := &output{f}
	fs.paths[path] = weak.Make(o)
	fs.files[f] = true
	fs.start(f)
	runtime.AddCleanup(o, fs.release, f)
	return o
}

// release has the writer of a file end, as no log holds it any more. It is called by the
// garbage collector.
func (fs *Files) release(f *file) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.paths[f.name].Value() == nil { // else another log has named it since
		delete(fs.paths, f.name)
	}
	f.released.Store(true)
}

// openFile opens a file to write at its end, and makes it if it is not there. It does
// not wait: of a named pipe without a reader it returns errNoReader, with the path.
func openFile(path string) (io.WriteCloser, error) {
	flags := os.O_WRONLY | os.O_APPEND | os.O_CREATE
	info, err := os.Stat(path)
	pipe := err == nil && info.Mode()&os.ModeNamedPipe != 0
	if pipe {
		flags |= syscall.O_NONBLOCK
	}
	f, err := os.OpenFile(path, flags, 0o644)
	switch {
	case pipe && errors.Is(err, syscall.ENXIO):
		return nil, fmt.Errorf("open %s: %w", path, errNoReader)
	case err != nil:
		return nil, err
	}
	return f, nil
}

// errNoReader is why a named pipe cannot be opened for now.
var errNoReader = errors.New("nobody reads from this named pipe")

func (fs *Files) newFile(name string, open func() (io.WriteCloser, error)) *file {
	return &file{name: name, open: open, counters: fs.counters, log: fs.log, wake: make(chan struct{}, 1)}
}

// Open opens the files that are known so far, before Run. The error names each
// that cannot be. A named pipe without a reader is none of these: what reads it may be
// started later, and its lines wait until then.
func (fs *Files) Open() error {
	var failed []error
	for _, f := range fs.all() {
		switch err := f.ensureOpen(); {
		case errors.Is(err, errNoReader):
			f.complain(err)
		case err != nil:
			failed = append(failed, fmt.Errorf("open an access log: %w", err))
		}
	}
	return errors.Join(failed...)
}

func (fs *Files) all() []*file {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.known()
}

// known is all; mu is held.
func (fs *Files) known() []*file {
	return slices.AppendSeq([]*file{fs.stdout.file, fs.stderr.file}, maps.Keys(fs.files))
}

// Run writes what is logged until ctx ends, then the rest, and closes the
// files. It is called once.
func (fs *Files) Run(ctx context.Context) error {
	fs.mu.Lock()
	fs.running = ctx
	for _, f := range fs.known() {
		fs.start(f)
	}
	fs.mu.Unlock()
	<-ctx.Done()
	fs.mu.Lock()
	fs.running = nil
	fs.mu.Unlock()
	fs.writers.Wait()
	return nil
}

// start begins to write a file, if Run does; mu is held. The writer ends with
// Run, which waits for it, or when the file is released.
func (fs *Files) start(f *file) {
	if ctx := fs.running; ctx != nil {
		fs.writers.Go(func() {
			f.run(ctx)
			fs.mu.Lock()
			defer fs.mu.Unlock()
			delete(fs.files, f)
		})
	}
}

// Reopen makes the files' writers close and open them once more, since someone
// has moved them away. What was logged before goes to the old ones.
func (fs *Files) Reopen() {
	for _, f := range fs.all() {
		f.mu.Lock()
		f.reopen = true
		f.mu.Unlock()
		f.signal()
	}
}

// file is one file with the lines that wait for it. Any goroutine may write;
// what is written out is the affair of one.
type file struct {
	name     string
	open     func() (io.WriteCloser, error)
	counters *counters
	log      *slog.Logger
	// wake holds a token when there is something to do before the time is up.
	wake chan struct{}
	// released says that nobody is left to write. The writer looks at each tick, and is
	// not woken: the collector's goroutine may be none that can use the channel, in tests.
	released atomic.Bool

	mu      sync.Mutex
	waiting []byte // whole lines
	spare   []byte // what waiting was before, to be used again
	reopen  bool

	// Of the writer alone.
	out     io.WriteCloser // nil: not open
	failing bool           // and said so
}

// write adds a line to those that wait. It does not block: what is too much is
// dropped.
func (f *file) write(line []byte) {
	f.mu.Lock()
	if len(f.waiting)+len(line) > mostBuffered {
		f.mu.Unlock()
		f.counters.dropped.Inc()
		f.signal()
		return
	}
	f.waiting = append(f.waiting, line...)
	f.counters.waiting.Add(int64(len(line)))
	much := len(f.waiting) >= flushSize
	f.mu.Unlock()
	f.counters.buffered.Inc()
	if much {
		f.signal()
	}
}

func (f *file) signal() {
	select {
	case f.wake <- struct{}{}:
	default: // it was told already
	}
}

// run writes out what waits, until ctx ends or nobody is left to write, and closes the
// file.
func (f *file) run(ctx context.Context) {
	ticker := time.NewTicker(flushInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			f.end()
			return
		case <-f.wake:
			f.flush()
		case <-ticker.C:
			if f.released.Load() {
				f.end()
				return
			}
			if f.flush() {
				f.counters.flushedByTimer.Inc()
			}
		}
	}
}

// end writes out what waits, and closes the file. What cannot be written is lost.
func (f *file) end() {
	f.flush()
	if f.out != nil {
		_ = f.out.Close() // all that it was told is written
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.waiting) > 0 {
		f.counters.failed.Inc()
		f.counters.waiting.Add(-int64(len(f.waiting)))
		f.waiting = nil
	}
}

// flush writes out what waits, and opens the file anew if that was wished. It
// says whether there was anything to write.
func (f *file) flush() (wrote bool) {
	f.mu.Lock()
	nothing := len(f.waiting) == 0 && !f.reopen
	f.mu.Unlock()
	if nothing {
		return false
	}
	if err := f.ensureOpen(); err != nil {
		f.complain(err)
		return false
	}
	f.mu.Lock()
	lines, reopen := f.waiting, f.reopen
	f.waiting, f.spare, f.reopen = f.spare[:0], nil, false
	f.mu.Unlock()
	f.counters.waiting.Add(-int64(len(lines)))
	if len(lines) > 0 {
		if _, err := f.out.Write(lines); err != nil {
			f.counters.failed.Inc()
			f.complain(err)
			// The reader of a pipe has gone: what comes now waits for the next one.
			reopen = reopen || errors.Is(err, syscall.EPIPE)
		} else {
			f.counters.completed.Inc()
			f.failing = false
		}
	}
	f.mu.Lock()
	f.spare = lines[:0]
	f.mu.Unlock()
	if reopen {
		_ = f.out.Close() // all that it was told is written
		f.out = nil
		if err := f.ensureOpen(); err != nil { // the next flush tries again
			f.counters.reopenFailed.Inc()
			f.complain(err)
		}
	}
	return len(lines) > 0
}

func (f *file) ensureOpen() (err error) {
	if f.out == nil {
		f.out, err = f.open()
		if err != nil {
			f.out = nil
		}
	}
	return err
}

// complain logs the first of failures that come one after the other.
func (f *file) complain(err error) {
	if !f.failing {
		f.log.Error("write an access log", "file", f.name, "error", err)
	}
	f.failing = true
}
