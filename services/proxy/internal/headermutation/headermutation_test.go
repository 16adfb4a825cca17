package headermutation_test

import (
	"fmt"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/headermutation"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// parse reads the request lists of a route in YAML.
func parse(t testing.TB, yaml string) (*headermutation.Mutations, error) {
	t.Helper()
	schema, err := strict.NewSchema(headermutation.Fields(), strict.Fields{
		"envoy.config.route.v3.Route":               {"request_headers_to_add", "request_headers_to_remove", "match", "non_forwarding_action"},
		"envoy.config.route.v3.RouteMatch":          {"prefix"},
		"envoy.config.route.v3.NonForwardingAction": {},
	})
	require.NoError(t, err)
	m := &routev3.Route{}
	report := strict.Load("route.yaml", []byte("match: {prefix: /}\nnon_forwarding_action: {}\n"+yaml), m, schema)
	if report.Err() != nil {
		return nil, report.Err()
	}
	mutations := headermutation.Parse(m.GetRequestHeadersToAdd(), "request_headers_to_add", m.GetRequestHeadersToRemove(), "request_headers_to_remove", report)
	return mutations, report.Err()
}

func mustParse(t testing.TB, yaml string) *headermutation.Mutations {
	t.Helper()
	m, err := parse(t, yaml)
	require.NoError(t, err)
	return m
}

// facts are those of a request with the fields a=1 b=2 a=3 and an x-request-id.
func facts() *format.Facts {
	r := &message.Request{Method: []byte("GET"), Path: []byte("/x?q=%0d%0aa:b"), Authority: []byte("h")}
	for _, f := range [][2]string{{"a", "1"}, {"b", "2"}, {"a", "3"}, {"accept", "x"}} {
		r.Headers.Add(f[0], f[1])
	}
	f := &format.Facts{}
	f.Reset(r, &message.Response{}, nil)
	return f
}

func show(h *message.Headers) string {
	var fields []string
	for i := range h.Len() {
		name, value := h.At(i)
		fields = append(fields, fmt.Sprintf("%s=%s", name, value))
	}
	return strings.Join(fields, " ")
}

func TestApply(t *testing.T) {
	cases := []struct{ name, yaml, want string }{
		{"adds beside what is there", `request_headers_to_add: [{header: {key: A, value: "4"}}, {header: {key: c, value: x}}]`, "a=1 b=2 a=3 accept=x a=4 c=x"},
		{"ADD_IF_ABSENT", `request_headers_to_add: [{header: {key: a, value: "4"}, append_action: ADD_IF_ABSENT}, {header: {key: c, value: x}, append_action: ADD_IF_ABSENT}]`,
			"a=1 b=2 a=3 accept=x c=x"},
		{"OVERWRITE_IF_EXISTS_OR_ADD", `request_headers_to_add: [{header: {key: a, value: "4"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}, {header: {key: c, value: x}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]`,
			"b=2 accept=x a=4 c=x"},
		{"OVERWRITE_IF_EXISTS", `request_headers_to_add: [{header: {key: a, value: "4"}, append_action: OVERWRITE_IF_EXISTS}, {header: {key: c, value: x}, append_action: OVERWRITE_IF_EXISTS}]`,
			"b=2 accept=x a=4"},
		{"removes all of a name, before it adds", "request_headers_to_remove: [A, none]\nrequest_headers_to_add: [{header: {key: a, value: '%REQ(a)%|%REQ(b)%'}}]", "b=2 accept=x a=|2"},
		{"makes all values before it sets any", `request_headers_to_add: [{header: {key: a, value: "4"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}, {header: {key: c, value: "%REQ(a)%"}}]`,
			"b=2 accept=x a=4 c=1"},
		{"overwrites before it adds", `request_headers_to_add: [{header: {key: a, value: "5"}}, {header: {key: a, value: "4"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]`,
			"b=2 accept=x a=4 a=5"},
		{"an empty value is not added", `request_headers_to_add: [{header: {key: c, value: "%REQ(none)%"}}, {header: {key: a, value: ""}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]`,
			"a=1 b=2 a=3 accept=x"},
		{"unless it is kept", `request_headers_to_add: [{header: {key: c, value: "%REQ(none)%"}, keep_empty_value: true}, {header: {key: a, value: ""}, append_action: OVERWRITE_IF_EXISTS_OR_ADD, keep_empty_value: true}]`,
			"b=2 accept=x a= c="},
		{"some are joined with a comma", `request_headers_to_add: [{header: {key: accept, value: v}}, {header: {key: accept, value: w}}]`, "a=1 b=2 a=3 accept=x,v,w"},
		{"but what is empty with none", `request_headers_to_add: [{header: {key: accept, value: ""}, keep_empty_value: true}, {header: {key: via, value: ""}, append_action: OVERWRITE_IF_EXISTS_OR_ADD, keep_empty_value: true}, {header: {key: via, value: v}}]`,
			"a=1 b=2 a=3 accept=x via=v"},
		{"framing is removed, and trailers are asked for", "request_headers_to_remove: [upgrade, connection, te]\nrequest_headers_to_add: [{header: {key: te, value: trailers}}]", "a=1 b=2 a=3 accept=x te=trailers"},
		{"percent signs", `request_headers_to_add: [{header: {key: c, value: "100%% %REQ(:METHOD)%"}}]`, "a=1 b=2 a=3 accept=x c=100% GET"},
		{"nobody ends a field early", `request_headers_to_add: [{header: {key: c, value: "%QUERY_PARAM(q)%"}}]`, `a=1 b=2 a=3 accept=x c=\x0d\x0aa:b`},
		{"flags of none are a dash", `request_headers_to_add: [{header: {key: c, value: "%RESPONSE_FLAGS% %RESPONSE_CODE%"}}]`, "a=1 b=2 a=3 accept=x c=- 0"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := facts()
			mustParse(t, c.yaml).Apply(&f.Request.Headers, f)
			require.Equal(t, c.want, show(&f.Request.Headers))
		})
	}
}

func TestNothingToDoIsNil(t *testing.T) {
	m := mustParse(t, "")
	require.Nil(t, m)
	f := facts()
	m.Apply(&f.Request.Headers, f)
	require.Equal(t, 4, f.Request.Headers.Len())
}

func TestFaults(t *testing.T) {
	for yaml, want := range map[string]string{
		`request_headers_to_add: [{header: {key: ":path", value: x}}]`:          `route.yaml:3:36: request_headers_to_add[0].header.key: ":path" is not to be changed here: hosts and paths have fields of their own`,
		`request_headers_to_add: [{header: {key: Host, value: x}}]`:             `route.yaml:3:36: request_headers_to_add[0].header.key: "host" is not to be changed here: hosts and paths have fields of their own`,
		`request_headers_to_add: [{header: {key: a, value: "%NOPE%"}}]`:         `route.yaml:3:44: request_headers_to_add[0].header.value: format "%NOPE%": column 1: unknown operator NOPE`,
		`request_headers_to_add: [{header: {key: a, value: "100%"}}]`:           `route.yaml:3:44: request_headers_to_add[0].header.value: format "100%": column 4: no operator follows the % (%% is a percent sign)`,
		`request_headers_to_add: [{header: {key: a, value: " x"}}]`:             `route.yaml:3:44: request_headers_to_add[0].header.value: format " x": a header's value neither begins nor ends with a space`,
		`request_headers_to_add: [{header: {key: Content-Length, value: "7"}}]`: `route.yaml:3:36: request_headers_to_add[0].header.key: "content-length" is part of a message's framing and can't be added`,
		`request_headers_to_add: [{header: {key: te, value: gzip}}]`:            `route.yaml:3:36: request_headers_to_add[0].header.key: "te" is part of a message's framing and can't be added`,
		`request_headers_to_remove: [host]`:                                     `route.yaml:3:29: request_headers_to_remove[0]: "host" is not to be changed here: hosts and paths have fields of their own`,
		`request_headers_to_remove: [":method"]`:                                `route.yaml:3:29: request_headers_to_remove[0]: ":method" is not to be changed here: hosts and paths have fields of their own`,
	} {
		t.Run(yaml, func(t *testing.T) {
			_, err := parse(t, yaml)
			require.EqualError(t, err, want)
		})
	}
}

func TestAppendIsRefused(t *testing.T) {
	_, err := parse(t, `request_headers_to_add: [{header: {key: a, value: x}, append: true}]`)
	require.ErrorContains(t, err, "route.yaml:3:55: request_headers_to_add[0].append: ")
}

func TestAListHasAtMost1000Entries(t *testing.T) {
	list := func(n int) string {
		return "request_headers_to_add: [" + strings.TrimSuffix(strings.Repeat("{header: {key: a, value: x}},", n), ",") + "]"
	}
	_, err := parse(t, list(1000))
	require.NoError(t, err)
	_, err = parse(t, list(1001))
	require.ErrorContains(t, err, "request_headers_to_add: ")
	require.ErrorContains(t, err, "1000")
}

func TestApplyAllocatesNothing(t *testing.T) {
	m := mustParse(t, `request_headers_to_remove: [b]
request_headers_to_add: [{header: {key: c, value: "%REQ(a)% %PROTOCOL%"}}, {header: {key: d, value: x}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]`)
	f := facts()
	var h message.Headers
	apply := func() {
		h.Reset()
		h.Add("a", "1")
		h.Add("b", "2")
		m.Apply(&h, f)
	}
	apply()
	servicetest.Allocations(t, 0, apply)
}

func BenchmarkApply(b *testing.B) {
	m := mustParse(b, `request_headers_to_add: [{header: {key: c, value: "%REQ(a)% %PROTOCOL%"}}, {header: {key: d, value: x}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]`)
	f := facts()
	var h message.Headers
	b.ReportAllocs()
	for b.Loop() {
		h.Reset()
		h.Add("a", "1")
		m.Apply(&h, f)
	}
}

func TestNothingThatFramesMessagesIsAdded(t *testing.T) {
	for _, name := range []string{"connection", "content-length", "expect", "http2-settings", "keep-alive", "proxy-connection", "TE", "trailer", "Transfer-Encoding", "upgrade"} {
		_, err := parse(t, "request_headers_to_add: [{header: {key: "+name+", value: x}}]")
		require.ErrorContains(t, err, "request_headers_to_add[0].header.key: ", name)
	}
}
