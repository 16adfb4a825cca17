package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
)

// Listen opens a TCP listener on address, "host:port"; port 0 takes a free
// one. The error of a port in use names setting, the variable, flag or field
// that moves the listener.
func Listen(address, setting string) (net.Listener, error) {
	network := "tcp"
	if bound, err := netip.ParseAddrPort(address); err == nil && bound.Addr().Is4() {
		network = "tcp4" // or 0.0.0.0 would take IPv6 too
	}
	return ListenOn(network, address, setting)
}

// ListenOn is Listen on a network: tcp4 and tcp6 are of one version of IP each, and
// tcp is of both where the address is that of none, [::].
func ListenOn(network, address, setting string) (net.Listener, error) {
	l, err := net.Listen(network, address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: the port is in use; %s moves it", address, setting)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s (%s): %w", address, setting, err)
	}
	return l, nil
}

// WriteReadyFile writes the bound addresses by listener name to path as one
// JSON object, {"http":"127.0.0.1:40001"}. The file appears whole or not at
// all. An empty path does nothing.
func WriteReadyFile(path string, addresses map[string]string) error {
	if path == "" {
		return nil
	}
	text, err := json.Marshal(addresses)
	if err != nil {
		return fmt.Errorf("write ready file %s: %w", path, err)
	}
	aside := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(aside, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	if err := os.Rename(aside, path); err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	return nil
}

// Listeners are the open listeners of one service by name. The zero value has
// none. It is for the goroutine that builds the service.
type Listeners struct {
	open      []net.Listener
	addresses map[string]string
}

// Open is Listen for the listener of that name.
func (s *Listeners) Open(name, address, setting string) (net.Listener, error) {
	l, err := Listen(address, setting)
	if err != nil {
		return nil, err
	}
	s.Add(name, l)
	return l, nil
}

// Add makes l, which is open already, such as a unix socket, the listener of
// that name.
func (s *Listeners) Add(name string, l net.Listener) {
	if s.addresses == nil {
		s.addresses = map[string]string{}
	}
	s.open = append(s.open, l)
	s.addresses[name] = l.Addr().String()
}

// Addrs is the bound addresses by name.
func (s *Listeners) Addrs() map[string]string { return s.addresses }

// Close closes all of them, where the service can't be built.
func (s *Listeners) Close() {
	for _, l := range s.open {
		_ = l.Close()
	}
}
