package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// Listen opens a TCP listener on address, "host:port"; port 0 takes a free
// one. The error of a port in use names setting, the variable, flag or field
// that moves the listener.
func Listen(address, setting string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
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
