package grpchttp2

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/weirproxy/weir/internal/http2"
)

// ErrStopped is what Serve returns of a server that was stopped before.
var ErrStopped = errors.New("the server has been stopped")

// Server serves registered services on any number of listeners, once.
type Server struct {
	options  Options
	http2    *http2.Server
	services map[string]grpc.ServiceInfo
	methods  map[string]*method // by path
	quit     chan struct{}      // closed when a stop begins

	mu          sync.Mutex
	serving     bool // nothing is registered any more
	stopping    bool
	listeners   map[net.Listener]struct{}
	connections map[*connection]struct{}
	running     sync.WaitGroup // connections
}

// method is one method of a service, as it is called.
type method struct {
	path    string
	service any
	unary   grpc.MethodHandler // nil of a stream's
	stream  grpc.StreamHandler
	info    grpc.StreamServerInfo
}

// New makes a server. Services are registered before it serves.
func New(o Options) *Server {
	o = o.withDefaults()
	o.HTTP2.ServeTooLarge = true // to say so by a status
	return &Server{
		options: o, http2: http2.NewServer(o.HTTP2), quit: make(chan struct{}),
		services: map[string]grpc.ServiceInfo{}, methods: map[string]*method{},
		listeners: map[net.Listener]struct{}{}, connections: map[*connection]struct{}{},
	}
}

// RegisterService is part of grpc.ServiceRegistrar. It panics where the program
// is wrong: the service is there already, does not implement what it describes,
// or comes once the server serves.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, service any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.services[desc.ServiceName]; there || s.serving {
		panic(fmt.Sprintf("register service %s: it is there already, or the server serves", desc.ServiceName))
	}
	if service != nil {
		if want := reflect.TypeOf(desc.HandlerType).Elem(); !reflect.TypeOf(service).Implements(want) {
			panic(fmt.Sprintf("register service %s: %T is no %v", desc.ServiceName, service, want))
		}
	}
	info := grpc.ServiceInfo{Metadata: desc.Metadata}
	add := func(name string, m *method, in, out bool) {
		m.path, m.service = "/"+desc.ServiceName+"/"+name, service
		m.info = grpc.StreamServerInfo{FullMethod: m.path, IsClientStream: in, IsServerStream: out}
		s.methods[m.path] = m
		info.Methods = append(info.Methods, grpc.MethodInfo{Name: name, IsClientStream: in, IsServerStream: out})
	}
	for _, m := range desc.Methods {
		add(m.MethodName, &method{unary: m.Handler}, false, false)
	}
	for _, m := range desc.Streams {
		add(m.StreamName, &method{stream: m.Handler}, m.ClientStreams, m.ServerStreams)
	}
	s.services[desc.ServiceName] = info
}

// GetServiceInfo is what is registered, by the names of services: gRPC's
// reflection asks for it.
func (s *Server) GetServiceInfo() map[string]grpc.ServiceInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.services)
}

// temporary is an error of a listener that goes on, such as of too many files.
type temporary interface {
	error
	Temporary() bool
}

// Serve accepts connections on l, which it closes, until one of the stops, and
// returns nil then; before it only if the listener fails. After a stop it returns
// ErrStopped.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if !s.listen(l) {
		return ErrStopped
	}
	const shortest, longest = 5 * time.Millisecond, time.Second
	pause := shortest
	var failed time.Time // when it failed last
	for {
		conn, err := l.Accept()
		if err == nil {
			pause = shortest
			s.start(conn)
			continue
		}
		if e, ok := errors.AsType[temporary](err); !ok || !e.Temporary() {
			pause = 0
		}
		select {
		case <-s.quit:
			return nil
		default:
		}
		if pause == 0 {
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		if tell := s.options.AcceptFailed; tell != nil {
			tell(err, time.Since(failed) > time.Minute)
		}
		failed = time.Now()
		select {
		case <-s.quit:
			return nil
		case <-time.After(pause):
			pause = min(2*pause, longest)
		}
	}
}

// listen takes a listener in, unless the server is stopping.
func (s *Server) listen(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving = true
	if s.stopping {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

// start has a connection served.
func (s *Server) start(conn net.Conn) {
	c := &connection{server: s, net: conn}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		_ = conn.Close()
		return
	}
	s.connections[c] = struct{}{}
	// Ends with the connection; a stop waits for it.
	s.running.Go(c.serve)
}

// GracefulStop takes no more connections and calls, and waits for those calls
// that are open; connections that have not begun HTTP/2 end at once. Stop ends its
// wait.
func (s *Server) GracefulStop() { s.stop((*connection).shutdown) }

// Stop ends all connections, which cancels their calls, and waits for the
// handlers of those.
func (s *Server) Stop() { s.stop((*connection).close) }

// stop begins a stop, ends each connection, and waits for all.
func (s *Server) stop(end func(*connection)) {
	s.mu.Lock()
	if !s.stopping {
		s.stopping = true
		close(s.quit)
	}
	for l := range s.listeners {
		_ = l.Close() // it may be closed already
	}
	clear(s.listeners)
	open := make([]*connection, 0, len(s.connections))
	for c := range s.connections {
		open = append(open, c)
	}
	s.mu.Unlock()
	for _, c := range open {
		end(c)
	}
	s.running.Wait()
	s.http2.Close()
}

// The contexts of calls have no other ancestor: a call ends with its connection,
// whatever becomes of who started the server.
var background = context.Background()
