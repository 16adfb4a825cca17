// Package listener holds the sockets that clients connect to: it accepts
// connections and hands each to the network filter of its configuration, one
// goroutine a connection. It reads no byte of them, and ends them in two
// steps, drain and stop.
package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// Listener is an open socket with its connections.
type Listener struct {
	// Config is what it was opened with.
	Config *Config

	listener *net.TCPListener
	log      *slog.Logger
	// base ends all connections at once.
	base   context.Context
	cancel context.CancelFunc

	// accepting is held while Serve runs.
	accepting sync.Mutex

	mu          sync.Mutex
	connections map[networkfilter.Connection]struct{}
	draining    bool
	serving     sync.WaitGroup

	total  *stats.Counter
	active *stats.Gauge
}

// Open binds the listener's address. Clients that connect wait until Serve.
func Open(config *Config, registry *stats.Registry, log *slog.Logger) (*Listener, error) {
	l, err := daemon.Listen(config.Address.String(), string(config.At.Field("address")))
	if err != nil {
		return nil, fmt.Errorf("listener %q: %w", config.Name, err)
	}
	scope := registry.Scope("listener").Tagged("envoy_listener_address", config.statPrefix)
	base, cancel := context.WithCancel(context.Background())
	return &Listener{
		Config:      config,
		listener:    l.(*net.TCPListener),
		log:         log,
		base:        base,
		cancel:      cancel,
		connections: map[networkfilter.Connection]struct{}{},
		total:       scope.Counter("downstream_cx_total"),
		active:      scope.Gauge("downstream_cx_active"),
	}, nil
}

// Addr is the bound address.
func (l *Listener) Addr() net.Addr { return l.listener.Addr() }

// acceptPause is how long Serve waits after an accept failed for want of file
// descriptors or memory.
const acceptPause = 50 * time.Millisecond

// Serve accepts connections until Stop is called, then those that came before
// it did, closes the socket and returns nil.
func (l *Listener) Serve() error {
	l.accepting.Lock()
	defer l.accepting.Unlock()
	failing := false
	for {
		conn, err := l.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded): // Stop was called
			return l.finishQueue()
		case err != nil:
			if !failing {
				l.log.Error("accept", "listener", l.Config.Name, "error", err)
			}
			failing = true
			time.Sleep(acceptPause)
			continue
		}
		failing = false
		l.start(conn)
	}
}

// finishQueue serves the connections that the kernel has made already, and
// closes the socket: a close would reset them, and their clients could not tell
// whether what they have sent was served.
func (l *Listener) finishQueue() error {
	for {
		conn, err := l.queued()
		if err != nil {
			l.log.Error("accept", "listener", l.Config.Name, "error", err)
		}
		if conn == nil {
			return l.listener.Close()
		}
		l.start(conn)
	}
}

// queued is the next connection that the kernel has, nil if it has none. Accept
// cannot say so: it waits, or, past its deadline, does not look.
func (l *Listener) queued() (net.Conn, error) {
	raw, err := l.listener.SyscallConn()
	if err != nil {
		return nil, err
	}
	var accepted int
	var failed error
	if err := raw.Control(func(fd uintptr) {
		for {
			accepted, _, failed = syscall.Accept(int(fd))
			if !errors.Is(failed, syscall.EINTR) && !errors.Is(failed, syscall.ECONNABORTED) {
				return
			}
		}
	}); err != nil {
		return nil, err
	}
	switch {
	case errors.Is(failed, syscall.EAGAIN):
		return nil, nil
	case failed != nil:
		return nil, os.NewSyscallError("accept", failed)
	}
	file := os.NewFile(uintptr(accepted), "") // of which FileConn makes a copy
	defer file.Close()
	return net.FileConn(file)
}

func (l *Listener) start(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total.Inc()
	l.active.Add(1)
	c := l.Config.filter.NewConnection(conn)
	l.connections[c] = struct{}{}
	if l.draining {
		c.Drain()
	}
	// Ends with the connection; Stop waits for it.
	l.serving.Go(func() {
		c.Serve(l.base)
		l.active.Add(-1)
		l.mu.Lock()
		delete(l.connections, c)
		l.mu.Unlock()
	})
}

// Drain makes each connection's next answer its last. Idle ones stay, since
// their clients may be sending a request just now, and new ones are accepted.
func (l *Listener) Drain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.draining = true
	for c := range l.connections {
		c.Drain()
	}
}

// Stop closes the socket, once the connections that came before are accepted,
// lets each connection end when it has nothing in flight, and waits for them;
// those that are left when ctx ends are cut off.
func (l *Listener) Stop(ctx context.Context) error {
	err := l.listener.SetDeadline(time.Now())
	// Serve closes the socket, unless it was not called.
	l.accepting.Lock()
	defer l.accepting.Unlock()
	_ = l.listener.Close()
	l.mu.Lock()
	for c := range l.connections {
		c.Finish()
	}
	l.mu.Unlock()
	// Ends with ctx or with Stop.
	cut := context.AfterFunc(ctx, l.cancel)
	l.serving.Wait()
	cut()
	l.cancel()
	return err
}
