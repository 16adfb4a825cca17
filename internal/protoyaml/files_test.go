package protoyaml_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/protoyaml"
	"github.com/weirproxy/weir/internal/servicetest"
)

type source struct{ file, text string }

// load reads texts into a message, one over the other, and validates it.
func load(into proto.Message, sources ...source) *protoyaml.Report {
	report, readable := &protoyaml.Report{}, false
	for _, s := range sources {
		if f, root := report.Open(s.file, []byte(s.text), protoyaml.Linked{}); root != nil {
			f.Fill(root, into, "")
			readable = true
		}
	}
	if readable {
		report.Validate(into, "", protoyaml.Linked{})
	}
	return report
}

func TestBrokenFilesSayAllThatIsWrong(t *testing.T) {
	servicetest.GoldenFaults(t, "testdata/broken/*.yaml", func(_ *testing.T, name string, text []byte) error {
		return load(&bootstrapv3.Bootstrap{}, source{name, string(text)}).Err()
	})
}

func TestGoodFilesBecomeTheMessage(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			var got, want bootstrapv3.Bootstrap
			require.NoError(t, load(&got, source{file, string(text)}).Err())

			json, err := os.ReadFile(strings.TrimSuffix(file, ".yaml") + ".json")
			require.NoError(t, err)
			require.NoError(t, protojson.Unmarshal(json, &want))
			require.Equal(t, protojson.Format(&want), protojson.Format(&got))

			var again bootstrapv3.Bootstrap
			require.NoError(t, load(&again, source{file, string(json)}).Err(), "the same message as JSON")
			require.Equal(t, protojson.Format(&want), protojson.Format(&again))
		})
	}
}

// FuzzFiles wants no panic, and faults that print.
func FuzzFiles(f *testing.F) {
	files, _ := filepath.Glob("testdata/*/*.yaml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if err := load(&bootstrapv3.Bootstrap{}, source{"f", text}).Err(); err != nil {
			require.NotEmpty(t, err.Error())
		}
	})
}
