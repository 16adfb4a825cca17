package faults

import (
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// gate is a network between callers and one address: it carries what both sides
// say until it is shut, and then takes it and keeps it back, as a network does
// that loses all packets. What it kept back comes through when it is opened.
type gate struct {
	listener net.Listener
	working  sync.WaitGroup

	mu     sync.Mutex
	opened *sync.Cond
	target string
	shut   bool
	ended  bool
	conns  map[net.Conn]struct{}
}

// newGate opens a gate to an address, until the test ends.
func newGate(t *testing.T, target string) *gate {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := &gate{listener: listener, target: target, conns: map[net.Conn]struct{}{}}
	g.opened = sync.NewCond(&g.mu)
	// Ends with the listener; the cleanup waits for it.
	g.working.Go(g.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		g.mu.Lock()
		g.ended = true
		g.opened.Broadcast()
		g.mu.Unlock()
		g.drop()
		g.working.Wait()
	})
	return g
}

// address is where callers connect to.
func (g *gate) address() string { return g.listener.Addr().String() }

// close shuts the gate, and open opens it again.
func (g *gate) close() { g.set(true) }
func (g *gate) open()  { g.set(false) }

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	g.opened.Broadcast()
}

// lead makes the gate one to another address, for new connections; the old ones
// break.
func (g *gate) lead(target string) {
	g.mu.Lock()
	g.target = target
	g.mu.Unlock()
	g.drop()
}

// drop breaks all connections.
func (g *gate) drop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		_ = c.Close()
	}
}

func (g *gate) accept() {
	for {
		caller, err := g.listener.Accept()
		if err != nil {
			return
		}
		g.mu.Lock()
		target := g.target
		g.mu.Unlock()
		server, err := net.Dial("tcp", target)
		if err != nil {
			_ = caller.Close()
			continue
		}
		if !g.hold(caller, server) {
			return
		}
		// Each ends when a side does, or the gate; newGate's cleanup waits for it.
		g.working.Go(func() { g.carry(server, caller) })
		g.working.Go(func() { g.carry(caller, server) })
	}
}

// hold notes connections, for drop to break, unless the gate has ended.
func (g *gate) hold(conns ...net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range conns {
		if g.ended {
			_ = c.Close()
			continue
		}
		g.conns[c] = struct{}{}
	}
	return !g.ended
}

// carry brings what one side says to the other until a side ends, and then
// breaks both.
func (g *gate) carry(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		g.mu.Lock()
		for g.shut && !g.ended {
			g.opened.Wait()
		}
		g.mu.Unlock()
		if n > 0 {
			if _, failed := to.Write(buffer[:n]); failed != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range []net.Conn{to, from} {
		_ = c.Close()
		delete(g.conns, c)
	}
}
