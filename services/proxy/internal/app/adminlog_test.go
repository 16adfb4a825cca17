package app_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestTheAdminListenerLogsWhatItIsAsked(t *testing.T) {
	dir := t.TempDir()
	path, old := filepath.Join(dir, "admin.log"), filepath.Join(dir, "old.log")
	proxy := run(t, `
admin:
  address: {socket_address: {address: 127.0.0.1, port_value: 0}}
  allow_paths: [{exact: /ready}, {prefix: /stats}]
  ignore_global_conn_limit: true
  access_log_path: `+old+`
  access_log:
  - name: all
    filter: {not_health_check_filter: {}}
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
      path: `+path+`
      log_format: {text_format_source: {inline_string: "%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %REQ(X-Who)% %RESP(X-Content-Type-Options)% %BYTES_SENT% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\n"}}
  - name: refusals
    filter: {status_code_filter: {comparison: {op: GE, value: {default_value: 400, runtime_key: admin.log}}}}
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
      path: `+path+`
      log_format: {text_format_source: {inline_string: "refused %REQ(:PATH)%\n"}}
`)
	for _, target := range []string{"/ready", "/help?x"} {
		request, err := http.NewRequest(http.MethodGet, "http://"+proxy.Addr("admin")+target, nil)
		require.NoError(t, err)
		request.Close = true
		request.Header.Set("X-Who", "me")
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
	}
	logged := func(name string, lines int) string {
		var text []byte
		servicetest.Eventually(t, name, func() bool {
			var err error
			text, err = os.ReadFile(name)
			return err == nil && strings.Count(string(text), "\n") == lines
		})
		return string(text)
	}
	require.Equal(t, `GET /ready HTTP/1.1 200 admin_filter_response me nosniff 5 127.0.0.1
GET /help?x HTTP/1.1 403 admin_filter_response me nosniff 38 127.0.0.1
refused /help?x
`, logged(path, 3))
	require.Contains(t, logged(old, 2), `"GET /help?x HTTP/1.1" 403 - 0 38`)
}
