package hcm_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRequestsAreMarkedAndLoggedAsTraced(t *testing.T) {
	const own = `"internal_address_config": {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]}, "use_remote_address": true,`
	const none = `"random_sampling": {"value": 0}`
	plain := "11111111-1111-4111-8111-111111111111"
	with := func(digit string) string { return "11111111-1111-" + digit + plain[15:] }
	for _, c := range []struct {
		name, fields, entry string
		force               bool
		want                string // the id that goes upstream
		logged, told        bool   // told: the client is, of the id
		counted             string // below http.test.tracing
	}{
		{"without tracing", own, "", false, plain, false, false, ""},
		{"without tracing, though a service asks", own, "", true, plain, false, true, ""},
		{"by chance", own + `"tracing": {},`, "", false, with("9"), false, false, "random_sampling"},
		{"as a service asks", own + `"tracing": {},`, "", true, with("a"), true, true, "service_forced"},
		{"an id without a mark", own + `"tracing": {}, "request_id_extension": {"typed_config": {"@type": "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig", "pack_trace_reason": false}},`,
			"", true, plain, true, true, "service_forced"},
		{"whatever the id", own + `"tracing": {}, "request_id_extension": {"typed_config": {"@type": "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig", "use_request_id_for_trace_sampling": false}},`,
			"", true, plain, false, true, ""},
		{"a route's share", own + `"tracing": {` + none + `},`, `"tracing": {},`, false, with("9"), false, false, "random_sampling"},
		{"a route without", own + `"tracing": {},`, `"tracing": {"overall_sampling": {"numerator": 0}},`, true, plain, false, true, "not_traceable"},
		{"as an outsider asks", `"use_remote_address": true, "preserve_external_request_id": true, "tracing": {` + none + `},`, "", true, plain, false, false, "not_traceable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, up := newAccessLog(t, "%REQ(X-REQUEST-ID)%\n"), newUpstream(t)
			field := strings.Replace(l.field, `"name": "file"`, `"name": "file", "filter": {"traceable_filter": {}}`, 1)
			p := start(t, up.address(), config{fields: field + c.fields, entry: c.entry, logs: l.files})
			client := p.dial()
			request := "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: " + plain + "\r\n"
			if c.force {
				request += "X-Envoy-Force-Trace: true\r\n"
			}
			client.send(request + "\r\n")
			server := up.accept()
			require.Contains(t, server.head(), "x-request-id: "+c.want+"\r\n")
			server.send("HTTP/1.1 204 No Content\r\n\r\n")
			response, _ := client.response("GET")
			for _, name := range []string{"not_traceable", "random_sampling", "service_forced", "client_enabled"} {
				want := int64(0)
				if name == c.counted {
					want = 1
				}
				require.Equal(t, want, p.stat("http.test.tracing."+name), name)
			}
			told := ""
			if c.told {
				told = c.want
			}
			require.Equal(t, told, response.Header.Get("X-Request-Id"))
			if c.logged {
				require.Equal(t, []string{c.want}, l.lines(1))
			}
		})
	}
}
