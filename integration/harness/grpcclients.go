package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/servicetest"
)

// XDSClientProgram is a grpc-go client that calls the echo service of a target,
// such as xds:///echo, over and over, and writes for each call a line: who
// answered, or "error" and why not. bootstrap says where its control plane is.
func XDSClientProgram(t testing.TB, target, bootstrap string) Program {
	t.Helper()
	return Program{
		Name: "grpc-go",
		Path: binary(t, "xdsclient"),
		Command: func(Addresses, string) (arguments, environment []string) {
			return []string{target}, []string{"GRPC_XDS_BOOTSTRAP_CONFIG=" + bootstrap}
		},
		Ready: writes,
	}
}

// CoreXDSClientProgram does the same by gRPC's C core, with the script of
// conformance/testdata. Where Python or its gRPC is missing the test is skipped,
// or fails, as servicetest.Peer says.
func CoreXDSClientProgram(t testing.TB, target, bootstrap string) Program {
	t.Helper()
	python := servicetest.Peer(t, "python3", "PYTHON", "make peers")
	library := os.Getenv(grpcioVariable)
	if library == "" {
		library = Path(t, "bin", "peers", "grpcio")
	}
	if !isFile(filepath.Join(library, "grpc", "__init__.py")) {
		missingPeer(t, "Python's grpcio", "make peers")
	}
	return Program{
		Name: "grpcio",
		Path: python,
		Command: func(Addresses, string) (arguments, environment []string) {
			return []string{Path(t, "integration", "conformance", "testdata", "xdsclient.py"), target},
				[]string{"PYTHONPATH=" + library, "PYTHONDONTWRITEBYTECODE=1", "GRPC_XDS_BOOTSTRAP_CONFIG=" + bootstrap}
		},
		Ready: writes,
	}
}

// grpcioVariable names the directory in which Python's grpcio is installed, if
// that is not where make peers puts it.
const grpcioVariable = "GRPCIO"

// missingPeer skips the test for want of a peer that is no program, or fails it,
// as servicetest.Peer does.
func missingPeer(t testing.TB, name, install string) {
	t.Helper()
	if os.Getenv("WEIR_REQUIRE_PEERS") != "" {
		t.Fatalf("%s is not installed, and WEIR_REQUIRE_PEERS is set: %s", name, install)
	}
	t.Skipf("%s is not installed: %s (or set %s to its directory)", name, install, grpcioVariable)
}

// writes waits until a program has written a line.
func writes(p *Process) Addresses {
	p.t.Helper()
	p.await("writes a line", func() bool { return strings.Contains(p.Log(), "\n") })
	return Addresses{}
}
