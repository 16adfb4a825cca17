// Package listener holds the sockets that clients connect to: it accepts
// connections, has the listener filters of its configuration look at each, and hands
// it to the filter chain that matches, one goroutine a connection. It reads no byte of
// them, and ends them in two steps, drain and stop. Its Manager takes listeners from
// the bootstrap and from LDS, warms them, and swaps configurations under open sockets.
package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weirproxy/weir/internal/daemon"
	"github.com/weirproxy/weir/services/proxy/internal/listenerfilter"
	"github.com/weirproxy/weir/services/proxy/internal/networkfilter"
	"github.com/weirproxy/weir/services/proxy/internal/stats"
)

// Listener is an open socket with its connections.
type Listener struct {
	listener *net.TCPListener
	log      *slog.Logger
	registry *stats.Registry
	// base is that of the connections' contexts.
	base   context.Context
	cancel context.CancelFunc

	// connections counts those of all listeners together, of which there are at most
	// totalLimit at once; nil is no bound.
	connections *atomic.Int64
	totalLimit  func() int64

	// accepting is held while Serve runs.
	accepting sync.Mutex

	mu      sync.Mutex
	config  *Config // the present one
	stats   *listenerStats
	retired map[*chain]bool // chains of earlier ones, while they have connections
	open    int64           // connections, those in waiting among them
	limit   func() int64    // of connections at once; nil is none
	waiting map[*waiting]bool
	serving sync.WaitGroup
	// draining says that connections are not to last: they are drained within
	// drainsOver from drainBegan on.
	draining   bool
	drainBegan time.Time
	drainsOver time.Duration

	// closed says that the manager closed the socket while connections went on. It is
	// the manager's, whose mu guards it.
	closed bool
}

// Open binds the listener's address. Clients that connect wait until Serve.
func Open(config *Config, registry *stats.Registry, log *slog.Logger) (*Listener, error) {
	socket, err := daemon.ListenOn(config.network(), config.Address.String(), string(config.At.Field("address")))
	if err != nil {
		return nil, err
	}
	base, cancel := context.WithCancel(context.Background())
	l := &Listener{
		listener: socket.(*net.TCPListener), config: config, log: log, base: base, cancel: cancel,
		registry: registry, retired: map[*chain]bool{}, waiting: map[*waiting]bool{},
		connections: new(atomic.Int64),
	}
	if err := l.setBacklog(config.backlog); err != nil {
		_ = socket.Close() // nobody has seen it
		return nil, fmt.Errorf("%s: %w", config.At.Field("tcp_backlog_size"), err)
	}
	l.stats = newListenerStats(registry, config.statPrefix)
	return l, nil
}

// setBacklog bounds the connections that wait to be accepted; 0 leaves it.
func (l *Listener) setBacklog(n int) error {
	if n == 0 {
		return nil
	}
	raw, err := l.listener.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	// A second listen on a socket changes nothing but its backlog.
	if err := raw.Control(func(fd uintptr) { failed = syscall.Listen(int(fd), n) }); err != nil {
		return err
	}
	return os.NewSyscallError("listen", failed)
}

// Config is the present configuration.
func (l *Listener) Config() *Config {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.config
}

// use makes a configuration the present one and returns the chains that it does
// not have any more. Their connections stay until they are ended. All connections
// are counted where the metrics of this configuration are.
func (l *Listener) use(config *Config) (gone []*chain) {
	l.mu.Lock()
	defer l.mu.Unlock()
	gone = l.config.without(config)
	if config.statPrefix != l.config.statPrefix {
		inspected := int64(len(l.waiting))
		l.stats.active.Add(inspected - l.open) // another listener may have these too
		l.stats.preActive.Add(-inspected)
		l.stats = newListenerStats(l.registry, config.statPrefix)
		l.stats.active.Add(l.open - inspected)
		l.stats.preActive.Add(inspected)
	}
	l.config = config
	for _, chain := range gone {
		l.retired[chain] = true
	}
	return gone
}

// scope is where its metrics are.
func (l *Listener) scope() *stats.Scope {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats.scope
}

// atWork are all chains that may have connections.
func (l *Listener) atWork() []*chain {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.AppendSeq(slices.Clone(l.config.all()), maps.Keys(l.retired))
}

// idle says whether it has no connections.
func (l *Listener) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open == 0
}

// forget drops chains of earlier configurations that have no connection left,
// and says whether any of these is still there.
func (l *Listener) forget(chains []*chain) (left bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, chain := range chains {
		if len(chain.connections) == 0 {
			delete(l.retired, chain)
		} else {
			left = true
		}
	}
	return left
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
				l.log.Error("accept", "listener", l.Config().Name, "error", err)
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
			l.log.Error("accept", "listener", l.Config().Name, "error", err)
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

// start takes in a connection: its listener filters look at it first, if there are
// any, and then its filter chain gets it.
func (l *Listener) start(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.totalLimit != nil && l.connections.Load() >= l.totalLimit():
		l.stats.totalOverflow.Inc()
		_ = conn.Close()
		return
	case l.limit != nil && l.open >= l.limit():
		l.stats.overflow.Inc()
		_ = conn.Close()
		return
	}
	l.open++
	l.connections.Add(1)
	if len(l.config.filters) > 0 {
		l.inspect(conn)
		return
	}
	if h := l.hand(conn, listenerfilter.FactsOf(conn)); h != nil {
		// Ends with the connection; Stop waits for it.
		l.serving.Go(func() { l.serve(h) })
	}
}

// hand gives a connection, of which these are the facts, to the filter chain that takes
// it. It returns what is to be served then, nil for one that was closed. The lock is
// held.
func (l *Listener) hand(conn net.Conn, facts listenerfilter.Facts) *handle {
	chain := l.config.find(facts)
	switch {
	case chain == nil:
		l.stats.noFilterChainMatch.Inc()
		l.drop(conn)
		return nil
	case chain.filter == nil:
		l.stats.total.Inc()
		l.stats.destroyed.Inc()
		l.drop(conn)
		return nil
	}
	l.stats.total.Inc()
	l.stats.active.Add(1)
	if tcp, ok := conn.(*net.TCPConn); ok && l.config.keepAlive != nil {
		_ = tcp.SetKeepAliveConfig(*l.config.keepAlive) // of one that may have gone
	}
	h := &handle{chain: chain, connection: chain.filter.NewConnection(conn)}
	h.ctx, h.cancel = context.WithCancel(l.base)
	chain.connections[h] = true
	if l.draining {
		l.drainIn(time.Until(l.drainBegan.Add(someOf(l.drainsOver))), h)
	}
	return h
}

// drop closes a connection that no filter chain got. The lock is held.
func (l *Listener) drop(conn net.Conn) {
	_ = conn.Close()
	l.open--
	l.connections.Add(-1)
}

// serve works until a connection ends.
func (l *Listener) serve(h *handle) {
	began := time.Now()
	h.connection.Serve(h.ctx)
	length := time.Since(began)
	h.cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	l.connections.Add(-1)
	l.stats.active.Add(-1) // which may be other ones by now
	l.stats.destroyed.Inc()
	l.stats.length.Record(length)
	delete(h.chain.connections, h)
	if h.later != nil {
		h.later.Stop()
	}
}

// served is how many connections filter chains have now.
func (l *Listener) served() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open - int64(len(l.waiting))
}

// handle is a connection that a filter chain has.
type handle struct {
	chain      *chain
	connection networkfilter.Connection
	// ctx is the connection's.
	ctx    context.Context
	cancel context.CancelFunc
	// drained and finished say that it was told so.
	drained, finished bool
	later             *time.Timer // drains it; nil if nothing does
}

func (h *handle) drain() {
	if !h.drained {
		h.drained = true
		h.connection.Drain()
	}
}

func (h *handle) finish() {
	if !h.finished {
		h.finished = true
		h.connection.Finish()
	}
}

func (h *handle) cut() {
	h.cancel()
	h.connection.Cut()
}

// Drain makes each connection's next answer its last: at once, or from a random
// moment on within the time over, each its own. Idle ones stay, since their clients
// may be sending a request just now, and new ones are accepted.
func (l *Listener) Drain(over time.Duration) {
	l.mu.Lock()
	if l.draining {
		over = min(over, l.drainsOver)
	}
	l.draining, l.drainBegan, l.drainsOver = true, time.Now(), over
	l.mu.Unlock()
	l.drainChains(l.atWork(), over)
}

// drainChains is Drain for the connections that chains have now.
func (l *Listener) drainChains(chains []*chain, over time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, chain := range chains {
		for h := range chain.connections {
			l.drainIn(someOf(over), h)
		}
	}
}

// someOf is a random part of a time.
func someOf(d time.Duration) time.Duration { return time.Duration(rand.Float64() * float64(d)) }

// drainIn drains a connection in a while, if it is there then. The lock is held.
func (l *Listener) drainIn(wait time.Duration, h *handle) {
	if wait <= 0 {
		h.drain()
		return
	}
	if h.drained || h.later != nil {
		return
	}
	h.later = time.AfterFunc(wait, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if h.chain.connections[h] {
			h.drain()
		}
	})
}

// Undrain lets connections that come from now on last.
func (l *Listener) Undrain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.draining = false
}

// each calls f for the connections of chains.
func (l *Listener) each(chains []*chain, f func(*handle)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, chain := range chains {
		for h := range chain.connections {
			f(h)
		}
	}
}

// Close closes the socket, once the connections that came before are accepted.
func (l *Listener) Close() error {
	err := l.listener.SetDeadline(time.Now())
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	// Serve closes the socket, unless it was not called.
	l.accepting.Lock()
	defer l.accepting.Unlock()
	_ = l.listener.Close()
	return err
}

// Stop closes the socket, lets each connection end when it has nothing in
// flight, and waits for them; those that are left when ctx ends are cut off.
func (l *Listener) Stop(ctx context.Context) error {
	err := l.Close()
	l.eachWaiting((*waiting).finish)
	l.each(l.atWork(), (*handle).finish)
	// Ends with ctx or with Stop.
	stop := context.AfterFunc(ctx, func() {
		l.eachWaiting((*waiting).cut)
		l.each(l.atWork(), (*handle).cut)
	})
	l.serving.Wait()
	stop()
	l.cancel()
	return err
}
