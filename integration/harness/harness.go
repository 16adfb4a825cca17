// Package harness runs the project's programs as an operator would: built
// binaries as processes of their own, on free ports, with real peers beside
// them. The packages e2e, conformance and bench call it. It never imports a
// service's code, and it judges nothing: what is right is said in the tests.
package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/weirproxy/weir/internal/servicetest"
)

// binariesVariable names the directory of the binaries under test. Main sets
// it; where it is set already, nothing is built.
const binariesVariable = "WEIR_BINARIES"

// Main builds all binaries from the tree as it is, so that no stale one is
// tested by accident, runs a package's tests with them, and fails the tests if
// goroutines are left. Call it from TestMain; it does not return.
func Main(m goleak.TestingM) {
	if os.Getenv(binariesVariable) != "" {
		servicetest.Main(m)
		return
	}
	directory, err := build()
	if err != nil {
		fmt.Fprintf(os.Stderr, "harness: %v\n", err)
		os.Exit(1)
	}
	_ = os.Setenv(binariesVariable, directory) // fails for no name that is a constant
	servicetest.Main(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(directory)
		os.Exit(code)
	}))
}

// build builds the binaries into a new directory, which is the caller's.
func build() (directory string, err error) {
	root, err := findRoot()
	if err != nil {
		return "", err
	}
	if directory, err = os.MkdirTemp("", "weir-binaries-"); err != nil {
		return "", fmt.Errorf("build the binaries: %w", err)
	}
	command := exec.Command("go", "build", "-o", directory+string(filepath.Separator),
		"./services/ratelimit/cmd/...", "./services/discovery/cmd/...", "./services/proxy/cmd/...", "./integration/cmd/...")
	command.Dir = root
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK="+filepath.Join(root, "go.work"))
	if text, err := command.CombinedOutput(); err != nil {
		_ = os.RemoveAll(directory)
		return "", fmt.Errorf("build the binaries: %w\n%s", err, text)
	}
	return directory, nil
}

// findRoot returns the top directory of the project: that of go.work.
func findRoot() (string, error) {
	directory, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the project's directory: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(directory, "go.work")); err == nil {
			return directory, nil
		}
		above := filepath.Dir(directory)
		if above == directory {
			return "", errors.New("find the project's directory: no go.work above the tests")
		}
		directory = above
	}
}

// Path returns the path of a file of the project, given from its top.
func Path(t testing.TB, parts ...string) string {
	t.Helper()
	root, err := findRoot()
	require.NoError(t, err)
	return filepath.Join(append([]string{root}, parts...)...)
}

// binary returns the path of one of the project's programs.
func binary(t testing.TB, name string) string {
	t.Helper()
	directory := os.Getenv(binariesVariable)
	require.NotEmpty(t, directory, "the package's TestMain must call harness.Main")
	return filepath.Join(directory, name)
}
