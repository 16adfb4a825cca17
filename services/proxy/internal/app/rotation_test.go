package app_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/app"
)

func TestAccessLogsAreOpenedAnewWhereSomeoneMovedThem(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	const prefix = "stat_prefix: ingress\n"
	config := text(t, "good.yaml", prefix, prefix+fmt.Sprintf(`                access_log:
                  - name: file
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
                      path: %s
                      log_format: {text_format_source: {inline_string: "%%PATH%%\n"}}
`, path))
	proxy := run(t, config)
	for i, reopen := range []func(){
		func() {
			response, err := http.Post("http://"+proxy.Addr("admin")+"/reopen_logs", "", nil)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			require.Equal(t, 200, response.StatusCode)
		},
		func() { require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGUSR1)) },
	} {
		target := fmt.Sprint("/", i)
		get(t, proxy.Addr("ingress"), target)
		logged := func() bool {
			text, err := os.ReadFile(path)
			return err == nil && string(text) == target+"\n"
		}
		servicetest.Eventually(t, "the line is in the new file", logged)
		moved := fmt.Sprint(path, ".", i)
		require.NoError(t, os.Rename(path, moved))
		reopen()
		servicetest.Eventually(t, "there is a new file", func() bool {
			_, err := os.Stat(path)
			return err == nil
		})
	}
}

func TestAnAccessLogThatCannotBeOpenedEndsTheStart(t *testing.T) {
	const prefix = "stat_prefix: ingress\n"
	path := filepath.Join(t.TempDir(), strings.Repeat("n", 300)) // too long a name
	config := text(t, "good.yaml", prefix, prefix+`                access_log:
                  - name: file
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
                      path: `+path+`
`)
	_, err := app.New(app.Options{ConfigYAML: config, LogLevel: "info", Log: t.Output()})
	require.EqualError(t, err, "open an access log: open "+path+": file name too long")
	require.NoError(t, app.Validate(app.Options{ConfigYAML: config, LogLevel: "info"}), "to validate opens nothing")
}
