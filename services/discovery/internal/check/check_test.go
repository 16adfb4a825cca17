package check

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// The files are those of the package that reads them.
const dir = "../resourcefiles/testdata"

// transcript runs the command and shows what it was told and what came of it.
func transcript(args ...string) string {
	var stdout, stderr bytes.Buffer
	code := Main(args, &stdout, &stderr)
	text := "$ discovery check " + strings.Join(args, " ") + "\n" + stdout.String()
	if stderr.Len() > 0 {
		text += "-- stderr\n" + stderr.String()
	}
	return text + fmt.Sprintf("-- exit %d\n", code)
}

func TestOutputs(t *testing.T) {
	var all []string
	for _, args := range [][]string{
		{dir + "/good", "--secret-rules", "testdata/rules.yaml", "--template=testdata/template.yaml"},
		{dir + "/good"},
		{"--template", "testdata/rules.yaml", dir + "/bad", "--secret-rules", "testdata/template.yaml"},
		{dir + "/none"},
		{dir + "/good", "--template", "testdata/none"},
		{dir + "/good", "--secret-rules", "testdata/none"},
		{"testdata/none", "--secret-rules", "testdata/none"},
		{},
		{"a", "b"},
		{"a", "--frob"},
		{"--help"},
	} {
		all = append(all, transcript(args...))
	}
	text := strings.Join(all, "\n")
	require.NotContains(t, text, "hunter2")
	require.NotContains(t, text, "4711")
	servicetest.Golden(t, "testdata/outputs.txt", []byte(text))
}

func TestAnEmptyDirectoryIsWarnedOf(t *testing.T) {
	empty := t.TempDir()
	require.Equal(t, "$ discovery check "+empty+"\nwarning: no file in "+empty+" whose name ends in .yaml, .yml or .json\n"+
		"0 good files, 0 faults, 1 warning\n-- exit 0\n", transcript(empty))
}

func TestALongListIsCutShort(t *testing.T) {
	var text strings.Builder
	for i := range 22 {
		fmt.Fprintf(&text, "- {'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: c%02d}\n", i)
	}
	full := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(full, "a.yaml"), []byte(text.String()), 0o600))
	require.Contains(t, transcript(full), `"c19" and 2 more`+"\n1 good file, 0 faults, 0 warnings\n-- exit 0\n")
}
