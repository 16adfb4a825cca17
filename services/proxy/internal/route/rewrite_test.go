package route_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/route"
)

func TestPathRewrite(t *testing.T) {
	const regex = `"regex_rewrite": {"pattern": {"regex": "^/service/([^/]+)(/.*)$"}, "substitution": "\\2/instance/\\1"}`
	for _, c := range []struct{ match, rewrite, path, want string }{
		{`"prefix": "/prefix/"`, `"prefix_rewrite": "/"`, "/prefix/etc", "/etc"},
		{`"prefix": "/prefix"`, `"prefix_rewrite": "/"`, "/prefix", "/"},
		{`"prefix": "/prefix"`, `"prefix_rewrite": "/"`, "/prefix/etc", "//etc"},
		{`"prefix": "/prefix"`, `"prefix_rewrite": "/new"`, "/prefixed/etc?a=/prefix", "/newed/etc?a=/prefix"},
		{`"prefix": "/PREFIX", "case_sensitive": false`, `"prefix_rewrite": "/new"`, "/Prefix/etc", "/new/etc"},
		{`"path": "/path"`, `"prefix_rewrite": "/new"`, "/path?a", "/new?a"},
		{`"path_separated_prefix": "/api"`, `"prefix_rewrite": "/v2"`, "/api/users", "/v2/users"},
		{`"safe_regex": {"regex": "/a.*"}`, `"prefix_rewrite": "/new"`, "/abc/def?g", "/new?g"},
		{`"prefix": "/"`, regex, "/service/foo/v1/api?x=/service/", "/v1/api/instance/foo?x=/service/"},
		{`"prefix": "/"`, regex, "/other", "/other"},
		{`"prefix": "/"`, `"regex_rewrite": {"pattern": {"regex": "^/a/?"}, "substitution": ""}`, "/a/b?c", "/b?c"},
		{`"prefix": "/"`, `"regex_rewrite": {"pattern": {"regex": "^/a/?"}, "substitution": ""}`, "/a?c", "/a?c"},
		{`"prefix": "/a"`, `"prefix_rewrite": "b"`, "/a/c", "/b/c"},
		{`"prefix": "/a"`, `"prefix_rewrite": "/a b#"`, "/a/c?d", "/a%20b%23/c?d"},
		{`"prefix": "/"`, `"regex_rewrite": {"pattern": {"regex": "^/a"}, "substitution": "/b c"}`, "/a/c?d", "/b%20c/c?d"},
		{`"prefix": "/a"`, `"path_rewrite": "/%REQ(:method)%/%%%REQ(x-none)%"`, "/a/c?d", "/GET/%?d"},
		{`"prefix": "/a"`, `"path_rewrite": "%REQ(x-none)%"`, "/a?c", "/a?c"},
		{`"prefix": "/a"`, `"path_rewrite": "b%QUERY_PARAM(c)%"`, "/a?c=%41", "/bA?c=%41"},
	} {
		table, err := parse(t, routes(`{"match": {`+c.match+`}, "route": {"cluster": "c", `+c.rewrite+`}}`))
		require.NoError(t, err)
		in := request("h", c.path)
		r := table.Match(in)
		require.NotNil(t, r, c.path)
		r.Rewrite(in.Request, &format.Facts{Request: in.Request}, true, nil)
		require.Equal(t, c.want, string(in.Request.Path))
		was, ok := in.Request.Headers.Get("x-envoy-original-path")
		require.Equal(t, c.path != "/a?c", ok, "the path is kept if it is rewritten")
		if ok {
			require.Equal(t, c.path, string(was))
		}

		// A redirect rewrites in the same way.
		table, err = parse(t, routes(`{"match": {`+c.match+`}, "redirect": {`+c.rewrite+`}}`))
		require.NoError(t, err)
		in = request("h", c.path)
		require.Equal(t, "http://h"+c.want, table.Match(in).Redirect.Location(in.Request, &format.Facts{Request: in.Request}))
	}
}

// TestValuesOfTheClientsStayWithinThePath has what would end a path escaped.
func TestValuesOfTheClientsStayWithinThePath(t *testing.T) {
	in := request("h", "/old?q", "x-a", "b c#d\te\xff")
	forward(t, `"cluster": "c", "path_rewrite": "/%REQ(x-a)%"`, in).Rewrite(in.Request, &format.Facts{Request: in.Request}, true, nil)
	require.Equal(t, "/b%20c%23d%09e%FF?q", string(in.Request.Path))
}

func TestOldPathsAndHostsAreKeptIfWanted(t *testing.T) {
	in := request("h", "/old")
	r := forward(t, `"cluster": "c", "prefix_rewrite": "/new", "host_rewrite_literal": "new"`, in)
	r.Rewrite(in.Request, &format.Facts{Request: in.Request}, false, nil)
	require.Equal(t, "new /new", string(in.Request.Authority)+" "+string(in.Request.Path))
	require.Zero(t, in.Request.Headers.Len())
}

// TestHostIsThatOfTheUpstreamWhereItHasAName is auto_host_rewrite.
func TestHostIsThatOfTheUpstreamWhereItHasAName(t *testing.T) {
	for _, c := range []struct{ action, name, want, original string }{
		{`"auto_host_rewrite": true`, "up.example", "up.example", "h"},
		{`"auto_host_rewrite": true`, "", "h", ""},
		{`"auto_host_rewrite": false`, "up.example", "h", ""},
		{`"host_rewrite_literal": "new"`, "up.example", "new", "h"},
	} {
		in := request("h", "/old")
		r := forward(t, `"cluster": "c", `+c.action, in)
		r.Rewrite(in.Request, &format.Facts{Request: in.Request}, true, nil)
		r.RewriteHost(in.Request, c.name, true)
		require.Equal(t, c.want, string(in.Request.Authority), c.action)
		original, _ := in.Request.Headers.Get("x-envoy-original-host")
		require.Equal(t, c.original, string(original), c.action)
	}
}

func TestPathThatAFilterMadeShorter(t *testing.T) {
	in := request("h", "/old/path")
	r := forward(t, `"cluster": "c", "prefix_rewrite": "/new"`, in)
	in.Request.Path = []byte("/o?q")
	r.Rewrite(in.Request, &format.Facts{Request: in.Request}, true, nil)
	require.Equal(t, "/new?q", string(in.Request.Path))
}

func TestHostRewrite(t *testing.T) {
	const (
		literal = `"cluster": "c", "host_rewrite_literal": "new"`
		header  = `"cluster": "c", "host_rewrite_header": "X-Host"`
		regex   = `"cluster": "c", "host_rewrite_path_regex": {"pattern": {"regex": "^/(.+)/.+$"}, "substitution": "\\1"}`
		both    = `"cluster": "c", "host_rewrite_literal": "new", "append_x_forwarded_host": true`
		weight  = `"weighted_clusters": {"clusters": [{"name": "c", "weight": 1, "host_rewrite_literal": "weighted"}]}`
	)
	for _, c := range []struct {
		name, action, path string
		fields             []string
		host               string
		want               string // fields of the request
	}{
		{"none", `"cluster": "c", "append_x_forwarded_host": true`, "/old", nil, "h", ""},
		{"a text", literal, "/old", nil, "new", "x-envoy-original-host: h"},
		{"a header", header, "/old", []string{"x-host", "a"}, "a", "x-host: a, x-envoy-original-host: h"},
		{"an empty header", header, "/old", []string{"x-host", ""}, "h", "x-host: "},
		{"a missing header", header, "/old", nil, "h", ""},
		{"a part of the path", regex, "/old.example/some?a=/b/c", nil, "old.example", "x-envoy-original-host: h"},
		{"no host where the whole path is left", regex, "/old", nil, "h", ""},
		{"a header with a space", header, "/old", []string{"x-host", "a b"}, "h", "x-host: a b"},
		{"a header with a path", header, "/old", []string{"x-host", "u@h/../x?y"}, "h", "x-host: u@h/../x?y"},
		{"a header with half an address", header, "/old", []string{"x-host", "[::1"}, "h", "x-host: [::1"},
		{"a header with no port", header, "/old", []string{"x-host", "a:999999"}, "h", "x-host: a:999999"},
		{"a header with a port", header, "/old", []string{"x-host", "[::1]:99"}, "[::1]:99", "x-host: [::1]:99, x-envoy-original-host: h"},
		{"a format of no host", `"cluster": "c", "host_rewrite": "%REQ(x-host)%.example"`, "/old", []string{"x-host", "a/b"}, "h", "x-host: a/b"},
		{"forwarded", both, "/old", nil, "new", "x-forwarded-host: h, x-envoy-original-host: h"},
		{"forwarded after others", both, "/old", []string{"x-forwarded-host", "a"}, "new", "x-forwarded-host: a,h, x-envoy-original-host: h"},
		{"forwarded after several", both, "/old", []string{"x-forwarded-host", "a", "x-forwarded-host", "", "x-forwarded-host", "b"}, "new", "x-forwarded-host: a,b,h, x-envoy-original-host: h"},
		{"forwarded once", both, "/old", []string{"x-forwarded-host", "a, h"}, "new", "x-forwarded-host: a, h, x-envoy-original-host: h"},
		{"a format", `"cluster": "c", "host_rewrite": "%REQ(x-host)%.example"`, "/old", []string{"x-host", "a"}, "a.example", "x-host: a, x-envoy-original-host: h"},
		{"a format of a missing header", `"cluster": "c", "host_rewrite": "%REQ(x-host)%"`, "/old", nil, "-", "x-envoy-original-host: h"},
		{"a missing header among others", `"cluster": "c", "host_rewrite": "a%REQ(x-host)%b.example"`, "/old", nil, "a-b.example", "x-envoy-original-host: h"},
		{"a format of an empty header", `"cluster": "c", "host_rewrite": "%REQ(x-host)%"`, "/old", []string{"x-host", ""}, "h", "x-host: "},
		{"of the weighted cluster", weight, "/old", nil, "weighted", ""},
		{"of both", weight + `, "host_rewrite_literal": "new"`, "/old", nil, "new", "x-envoy-original-host: weighted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := request("h", c.path, c.fields...)
			forward(t, c.action, in).Rewrite(in.Request, &format.Facts{Request: in.Request}, true, nil)
			require.Equal(t, c.host, string(in.Request.Authority))
			var fields []string
			for i := range in.Request.Headers.Len() {
				name, value := in.Request.Headers.At(i)
				fields = append(fields, string(name)+": "+string(value))
			}
			require.Equal(t, c.want, strings.Join(fields, ", "))
		})
	}
}

func TestMalformedHostsAreRefused(t *testing.T) {
	for action, want := range map[string]string{
		`"cluster": "c", "host_rewrite_literal": "a b"`:                                                      `route.host_rewrite_literal: "a b" is no host`,
		`"weighted_clusters": {"clusters": [{"name": "c", "weight": 1, "host_rewrite_literal": "a:99999"}]}`: `route.weighted_clusters.clusters[0].host_rewrite_literal: "a:99999" is no host`,
	} {
		_, err := parse(t, routes(`{"match": {"prefix": "/"}, "route": {`+action+`}}`))
		require.ErrorContains(t, err, want)
	}
}

func TestHostIsRewrittenByThePathBeforeItsRewrite(t *testing.T) {
	in := request("h", "/old/a")
	forward(t, `"cluster": "c", "prefix_rewrite": "/new", "host_rewrite_path_regex": {"pattern": {"regex": "/(old)/a"}, "substitution": "\\1"}`, in).Rewrite(in.Request, &format.Facts{Request: in.Request}, true, nil)
	require.Equal(t, "old", string(in.Request.Authority))
	require.Equal(t, "/new/a", string(in.Request.Path))
}

func TestRewriteAllocatesNothing(t *testing.T) {
	in := request("h", "/old/path?query")
	r := forward(t, `"cluster": "c", "prefix_rewrite": "/new", "host_rewrite_literal": "new"`, in)
	var scratch []byte
	path, host := in.Request.Path, in.Request.Authority
	facts := &format.Facts{Request: in.Request}
	servicetest.Allocations(t, 0, func() {
		in.Request.Headers.Reset()
		in.Request.Path, in.Request.Authority = path, host
		scratch = r.Rewrite(in.Request, facts, true, scratch[:0])
	})
	require.Equal(t, "/new/path?query", string(in.Request.Path))
}

func TestRedirect(t *testing.T) {
	for _, c := range []struct {
		name, redirect string
		in             route.Input
		status         int
		want           string
	}{
		{"nothing changes", `{}`, request("h:81", "/a?b"), 301, "http://h:81/a?b"},
		{"https", `{"https_redirect": true}`, request("h", "/a?b"), 301, "https://h/a?b"},
		{"https drops the port of http", `{"https_redirect": true}`, request("h:80", "/"), 301, "https://h/"},
		{"https keeps other ports", `{"https_redirect": true}`, request("h:8080", "/"), 301, "https://h:8080/"},
		{"the port stays with the scheme", `{"host_redirect": ""}`, request("h:80", "/"), 301, "http://h:80/"},
		{"http drops the port of https", `{"scheme_redirect": "http"}`, request("h:443", "/", "x-forwarded-proto", "https"), 301, "http://h/"},
		{"the scheme is the client's", `{"host_redirect": "new"}`, request("h", "/", "x-forwarded-proto", "https"), 301, "https://new/"},
		{"the scheme is what a client of HTTP/2 says", `{"host_redirect": "new"}`, request("h", "/", ":scheme", "http", "x-forwarded-proto", "https"), 301, "http://new/"},
		{"the port goes by the connection", `{"scheme_redirect": "http"}`, request("h:443", "/", ":scheme", "https", "x-forwarded-proto", "http"), 301, "http://h:443/"},
		{"a scheme", `{"scheme_redirect": "ftp"}`, request("h:80", "/"), 301, "ftp://h/"},
		{"a host with a port", `{"host_redirect": "new:81"}`, request("h:80", "/"), 301, "http://new:81/"},
		{"a port", `{"port_redirect": 8443, "https_redirect": true}`, request("h:80", "/"), 301, "https://h:8443/"},
		{"a port takes the place of any", `{"port_redirect": 8443}`, request("h:81", "/"), 301, "http://h:8443/"},
		{"a request for the server", `{"https_redirect": true}`, request("h", "*"), 301, "https://h/*"},
		{"IPv6", `{"https_redirect": true}`, request("[::1]:80", "/"), 301, "https://[::1]/"},
		{"IPv6 without a port", `{"https_redirect": true}`, request("[::1]", "/"), 301, "https://[::1]/"},
		{"a path", `{"path_redirect": "/new"}`, request("h", "/old?bar=1"), 301, "http://h/new?bar=1"},
		{"a path without the query", `{"path_redirect": "/new", "strip_query": true}`, request("h", "/old?bar=1"), 301, "http://h/new"},
		{"a path with a query", `{"path_redirect": "/new?foo=1", "strip_query": true}`, request("h", "/old?bar=1"), 301, "http://h/new?foo=1"},
		{"a path without a slash", `{"path_redirect": "new"}`, request("h", "/old?bar=1"), 301, "http://h/new?bar=1"},
		{"a format with a query", `{"path_rewrite": "new?a=%REQ(:method)%", "strip_query": true}`, request("h", "/old?bar=1"), 301, "http://h/new?a=GET"},
		{"a format", `{"path_rewrite": "/%REQ(:method)%"}`, request("h", "/old?bar=1"), 301, "http://h/GET?bar=1"},
		{"no query", `{"strip_query": true}`, request("h", "/old?bar=1"), 301, "http://h/old"},
		{"302", `{"response_code": "FOUND"}`, request("h", "/"), 302, "http://h/"},
		{"303", `{"response_code": "SEE_OTHER"}`, request("h", "/"), 303, "http://h/"},
		{"307", `{"response_code": "TEMPORARY_REDIRECT"}`, request("h", "/"), 307, "http://h/"},
		{"308", `{"response_code": "PERMANENT_REDIRECT"}`, request("h", "/"), 308, "http://h/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			table, err := parse(t, routes(`{"match": {"prefix": ""}, "redirect": `+c.redirect+`}`))
			require.NoError(t, err)
			r := table.Match(c.in)
			require.NotNil(t, r.Redirect)
			require.Equal(t, c.status, r.Redirect.Status)
			require.Equal(t, c.want, r.Redirect.Location(c.in.Request, &format.Facts{Request: c.in.Request}))
		})
	}
}

func TestDirectResponse(t *testing.T) {
	t.Setenv("WEIR_TEST_BODY", "environment")
	for _, c := range []struct{ response, body, location string }{
		{`{"status": 200}`, "", ""},
		{`{"status": 503, "body": {"inline_string": "text"}}`, "text", ""},
		{`{"status": 200, "body": {"inline_bytes": "dGV4dA=="}}`, "text", ""},
		{`{"status": 200, "body": {"filename": "testdata/body.txt"}}`, "file\n", ""},
		{`{"status": 200, "body": {"environment_variable": "WEIR_TEST_BODY"}}`, "environment", ""},
		{`{"status": 201}`, "", "http://h/a?b"},
		{`{"status": 302}`, "", "http://h/a?b"},
	} {
		table, err := parse(t, routes(`{"match": {"prefix": "/"}, "direct_response": `+c.response+`}`))
		require.NoError(t, err)
		in := request("h", "/a?b")
		direct := table.Match(in).DirectResponse
		require.NotNil(t, direct)
		require.Equal(t, c.body, direct.Body)
		require.Equal(t, c.location, direct.Location(in.Request))
	}
}

func TestBodyOfADirectResponseMayBeFormatted(t *testing.T) {
	for _, c := range []struct{ format, body, contentType string }{
		{`{"text_format_source": {"inline_string": "<%LOCAL_REPLY_BODY%> %REQ(:path)% %REQ(x-none)%"}}`, "<inner> /a?b -", ""},
		{`{"text_format_source": {"inline_string": "<p>"}, "content_type": "text/html"}`, "<p>", "text/html"},
		{`{"json_format": {"text": "%LOCAL_REPLY_BODY%"}}`, "{\"text\":\"inner\"}\n", "application/json"},
	} {
		table, err := parse(t, routes(`{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "inner"}, "body_format": `+c.format+`}}`))
		require.NoError(t, err)
		in := request("h", "/a?b")
		f := &format.Facts{Request: in.Request}
		body, contentType := table.Match(in).DirectResponse.Content(f)
		require.Equal(t, c.body, body)
		require.Equal(t, c.contentType, contentType)
		require.Empty(t, f.LocalReplyBody, "which stood for it meanwhile")
	}
	_, err := parse(t, routes(`{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body_format": {"text_format_source": {"inline_string": "%NO%"}}}}`))
	require.EqualError(t, err, `virtual_hosts[0].routes[0].direct_response.body_format.text_format_source: format: column 1: unknown operator NO`)
}
