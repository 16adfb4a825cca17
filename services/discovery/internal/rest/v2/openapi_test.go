package v2

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/stretchr/testify/require"

	scrape "github.com/weirproxy/weir/services/discovery/internal/rest/prometheus"
)

// readOpenAPI reads the file that the face serves. Answers may hold nothing that
// it does not name: what it leaves open is closed.
func readOpenAPI(t *testing.T) *openapi3.T {
	t.Helper()
	w := newFixture(t).call("GET", "/v2/openapi.yaml", "")
	require.Equal(t, 200, w.Code)
	require.Equal(t, "application/yaml", w.Header().Get("Content-Type"))
	loader := openapi3.NewLoader()
	file, err := loader.LoadFromData(w.Body.Bytes())
	require.NoError(t, err)
	require.NoError(t, file.Validate(loader.Context))
	for _, schema := range file.Components.Schemas {
		closeSchema(schema.Value)
	}
	return file
}

// closeSchema forbids members that a schema does not name, unless it says
// something of them itself, and so on within.
func closeSchema(s *openapi3.Schema) {
	if s.Type.Is("object") && s.AdditionalProperties.Has == nil && s.AdditionalProperties.Schema == nil {
		s.AdditionalProperties.Has = new(false)
	}
	for _, property := range s.Properties {
		if property.Ref == "" {
			closeSchema(property.Value)
		}
	}
	if s.Items != nil && s.Items.Ref == "" {
		closeSchema(s.Items.Value)
	}
}

func TestTheFileNamesEveryRouteAndNoOther(t *testing.T) {
	var documented []string
	var served []string
	for path, item := range readOpenAPI(t).Paths.Map() {
		for method := range item.Operations() {
			documented = append(documented, method+" "+path)
		}
	}
	for _, route := range append(Routes(Options{Metrics: newMetrics()}), scrape.Routes(nil)...) {
		for method := range route.Methods {
			served = append(served, method+" "+route.Path)
		}
	}
	require.ElementsMatch(t, documented, served)
}

// exchange is one call of an operation, and the status that it must have.
type exchange struct {
	operation, target, body string
	status                  int
	// change is made to the request. May be nil.
	change func(*http.Request)
	on     string // the fixture, of those below; "" is "filled"
}

const oneScope = `{"service":"users","zone":"z"}`

// late is a body that does not come in time.
type late struct{}

func (late) Read([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }
func (late) Close() error             { return nil }

func isLate(r *http.Request) { r.Body, r.ContentLength = late{}, 10 }

func isText(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }

func isStranger(r *http.Request) { r.Header.Set("Authorization", "Bearer nobody-knows-this-one") }

func gone(r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	cancel()
	*r = *r.WithContext(ctx)
}

var tooLong = `{"leases":[]}` + strings.Repeat(" ", maxBeatsBody)

// exchanges are calls in an order in which each finds what it needs.
var exchanges = []exchange{
	{operation: "putHost", target: "/v2/services/users/hosts/a%2Fb", body: whole, status: 201},
	{operation: "putHost", target: "/v2/services/users/hosts/a%2Fb", body: whole, status: 200},
	{operation: "putHost", target: "/v2/services/users/hosts/c", body: fine, status: 201},
	{operation: "putHost", target: "/v2/services/users/hosts/c", body: `{}`, status: 400},
	{operation: "putHost", target: "/v2/services/users/hosts/c", body: fine, status: 401, on: "clerk", change: isStranger},
	{operation: "putHost", target: "/v2/services/users/hosts/c", body: fine, status: 403, on: "clerk"},
	{operation: "putHost", target: "/v2/services/users/hosts/c", body: fine, status: 408, change: isLate},
	{operation: "putHost", target: "/v2/services/users/hosts/c", body: tooLong, status: 413},
	{operation: "putHost", target: "/v2/services/users/hosts/c", body: fine, status: 415, change: isText},
	{operation: "putHost", target: "/v2/services/full/hosts/new", body: fine, status: 429},
	{operation: "putHost", target: "/v2/services/users/hosts/c", body: fine, status: 503, on: "unloaded"},

	{operation: "getHost", target: "/v2/services/users/hosts/a%2Fb", status: 200},
	{operation: "getHost", target: "/v2/services/users/hosts/c", status: 200},
	{operation: "getHost", target: "/v2/services/users/hosts/c?x=y", status: 400},
	{operation: "getHost", target: "/v2/services/users/hosts/none", status: 404},
	{operation: "getHost", target: "/v2/services/users/hosts/c", status: 503, on: "unloaded"},

	{operation: "beat", target: "/v2/services/users/hosts/c/heartbeat", status: 204},
	{operation: "beat", target: "/v2/services/users/hosts/c/heartbeat", body: `{"lease":1}`, status: 400},
	{operation: "beat", target: "/v2/services/users/hosts/c/heartbeat", status: 403, on: "clerk"},
	{operation: "beat", target: "/v2/services/users/hosts/c/heartbeat", body: `{"lease":"0000000000000000"}`, status: 404},
	{operation: "beat", target: "/v2/services/users/hosts/c/heartbeat", body: `{}`, status: 408, change: isLate},
	{operation: "beat", target: "/v2/services/users/hosts/c/heartbeat", body: tooLong, status: 413},
	{operation: "beat", target: "/v2/services/users/hosts/c/heartbeat", body: `{}`, status: 415, change: isText},
	{operation: "beat", target: "/v2/services/users/hosts/c/heartbeat", status: 503, on: "unloaded"},

	{operation: "beatMany", target: "/v2/heartbeats", body: `{"leases":["0000000000000000"]}`, status: 200},
	{operation: "beatMany", target: "/v2/heartbeats", body: `{"leases":[1]}`, status: 400},
	{operation: "beatMany", target: "/v2/heartbeats", body: `{"leases":[]}`, status: 408, change: isLate},
	{operation: "beatMany", target: "/v2/heartbeats", body: tooLong, status: 413},
	{operation: "beatMany", target: "/v2/heartbeats", body: `{"leases":[]}`, status: 415, change: isText},
	{operation: "beatMany", target: "/v2/heartbeats", body: `{"leases":["0000000000000000"]}`, status: 503, on: "unloaded"},

	{operation: "listServices", target: "/v2/services", status: 200},
	{operation: "listServices", target: "/v2/services?x=y", status: 400},
	{operation: "listServices", target: "/v2/services", status: 503, on: "unloaded"},

	{operation: "listHosts", target: "/v2/services/users/hosts", status: 200},
	{operation: "listHosts", target: "/v2/services/none/hosts", status: 200},
	{operation: "listHosts", target: "/v2/services/users/hosts?zone=eu-1a&revision=r1&canary=false&tag=rack:7&tag=gpu&state=serving&stale=false", status: 200},
	{operation: "listHosts", target: "/v2/services/users/hosts?index=0000000000000000&wait=1m30s", status: 200},
	{operation: "listHosts", target: "/v2/services/none/hosts?index=0000000000000000", status: 304},
	{operation: "listHosts", target: "/v2/services/users/hosts?state=x", status: 400},
	{operation: "listHosts", target: "/v2/services/users/hosts", status: 503, on: "unloaded"},
	{operation: "listHosts", target: "/v2/services/none/hosts?index=0000000000000000&wait=1m", status: 429, on: "full of waiters"},

	{operation: "listRevisions", target: "/v2/services/users/revisions", status: 200},
	{operation: "listRevisions", target: "/v2/services/*/revisions", status: 400},
	{operation: "listRevisions", target: "/v2/services/users/revisions", status: 503, on: "unloaded"},

	{operation: "putSetting", target: "/v2/settings/drain", body: `{"scope":` + oneScope + `,"author":"ada","reason":"r"}`, status: 200},
	{operation: "putSetting", target: "/v2/settings/weight", body: `{"scope":` + oneScope + `,"weight":1,"author":"ada","reason":"r","expires_in":"1h"}`, status: 200},
	{operation: "putSetting", target: "/v2/settings/weight", body: `{}`, status: 400},
	{operation: "putSetting", target: "/v2/settings/drain", body: `{"scope":` + oneScope + `,"author":"ada","reason":"r"}`, status: 403, on: "clerk"},
	{operation: "putSetting", target: "/v2/settings/drain", body: `{}`, status: 408, change: isLate},
	{operation: "putSetting", target: "/v2/settings/drain", body: tooLong, status: 413},
	{operation: "putSetting", target: "/v2/settings/drain", body: `{}`, status: 415, change: isText},
	{operation: "putSetting", target: "/v2/settings/drain", body: `{"scope":{"zone":"new"},"author":"ada","reason":"r"}`, status: 429, on: "full of settings"},
	{operation: "putSetting", target: "/v2/settings/drain", body: `{"scope":` + oneScope + `,"author":"ada","reason":"r"}`, status: 503, on: "unloaded"},

	{operation: "listSettings", target: "/v2/settings", status: 200},
	{operation: "listSettings", target: "/v2/settings?x=y", status: 400},
	{operation: "listSettings", target: "/v2/settings", status: 503, on: "unloaded"},
	{operation: "getHost", target: "/v2/services/users/hosts/c", status: 200},
	{operation: "listHosts", target: "/v2/services/users/hosts", status: 200},

	{operation: "deleteSetting", target: "/v2/settings/drain?service=users&zone=z", status: 204},
	{operation: "deleteSetting", target: "/v2/settings/drain", status: 400},
	{operation: "deleteSetting", target: "/v2/settings/drain?zone=z", status: 403, on: "clerk"},
	{operation: "deleteSetting", target: "/v2/settings/drain?zone=z", status: 404},
	{operation: "deleteSetting", target: "/v2/settings/drain?zone=z", status: 503, on: "unloaded"},

	{operation: "deleteHost", target: "/v2/services/users/hosts/c", status: 204},
	{operation: "deleteHost", target: "/v2/services/users/hosts/c?x=y", status: 400},
	{operation: "deleteHost", target: "/v2/services/users/hosts/c", status: 403, on: "clerk"},
	{operation: "deleteHost", target: "/v2/services/users/hosts/c", status: 404},
	{operation: "deleteHost", target: "/v2/services/users/hosts/c", status: 503, on: "unloaded"},

	{operation: "listHistory", target: "/v2/services/users/history", status: 200},
	{operation: "listHistory", target: "/v2/services/*/history", status: 400},
	{operation: "listHistory", target: "/v2/services/users/history", status: 503, on: "unloaded"},

	{operation: "followEvents", target: "/v2/events?service=users", status: 200, change: gone},
	{operation: "followEvents", target: "/v2/events?service=*", status: 400},
	{operation: "followEvents", target: "/v2/events", status: 503, on: "unloaded"},
	{operation: "followEvents", target: "/v2/events", status: 429, on: "full of waiters"},
	{operation: "followEvents", target: "/v2/events", status: 503, on: "unloaded"},

	{operation: "getGuard", target: "/v2/guard", status: 200, on: "held"},
	{operation: "liftGuard", target: "/v2/guard/suspension?reason=the+zone+burnt+down", status: 204, on: "held"},
	{operation: "getGuard", target: "/v2/guard", status: 200, on: "held"},
	{operation: "getGuard", target: "/v2/guard", status: 200},
	{operation: "getGuard", target: "/v2/guard?x=y", status: 400},
	{operation: "getGuard", target: "/v2/guard", status: 503, on: "unloaded"},
	{operation: "liftGuard", target: "/v2/guard/suspension", status: 400},
	{operation: "liftGuard", target: "/v2/guard/suspension?reason=r", status: 403, on: "clerk"},
	{operation: "liftGuard", target: "/v2/guard/suspension?reason=r", status: 503, on: "unloaded"},

	{operation: "listTargets", target: "/v2/prometheus/sd?service=users&port=grpc", status: 200},
	{operation: "listTargets", target: "/v2/prometheus/sd", status: 200},
	{operation: "listTargets", target: "/v2/prometheus/sd", status: 304, change: func(r *http.Request) { r.Header.Set("If-None-Match", "*") }},
	{operation: "listTargets", target: "/v2/prometheus/sd?x=y", status: 400},
	{operation: "listTargets", target: "/v2/prometheus/sd", status: 503, on: "unloaded"},

	{operation: "getStatus", target: "/v2/status", status: 200},
	{operation: "getStatus", target: "/v2/status", status: 200, on: "unloaded"},
	{operation: "getStatus", target: "/v2/status", status: 200, on: "clerk"},
	{operation: "getStatus", target: "/v2/status?x=y", status: 400},

	{operation: "listLoads", target: "/v2/loads", status: 200, on: "loaded with requests"},
	{operation: "listLoads", target: "/v2/loads?cluster=users", status: 200},
	{operation: "listLoads", target: "/v2/loads?search=u&detail=clusters&offset=0&limit=10", status: 200, on: "loaded with requests"},
	{operation: "listLoads", target: "/v2/loads?x=y", status: 400},
	{operation: "listLoads", target: "/v2/loads?detail=x&limit=0&offset=-1", status: 400},

	{operation: "listClients", target: "/v2/xds/clients", status: 200, on: "with clients"},
	{operation: "listClients", target: "/v2/xds/clients?search=e&show=refusing&offset=0&limit=500", status: 200},
	{operation: "listClients", target: "/v2/xds/clients?show=x", status: 400},
	{operation: "listClientResources", target: "/v2/xds/clients/7?search=u&offset=1&limit=1", status: 200, on: "with clients"},
	{operation: "listClientResources", target: "/v2/xds/clients/7", status: 200, on: "with clients"},
	{operation: "listClientResources", target: "/v2/xds/clients/7?limit=501", status: 400, on: "with clients"},
	{operation: "listClientResources", target: "/v2/xds/clients/8", status: 404, on: "with clients"},
	{operation: "listClientResources", target: "/v2/xds/clients/x", status: 404, on: "with clients"},
	{operation: "listResourceFiles", target: "/v2/xds/files", status: 200, on: "with clients"},
	{operation: "listResourceFiles", target: "/v2/xds/files", status: 200},
	{operation: "listResourceFiles", target: "/v2/xds/files?x=y", status: 400},

	{operation: "getOpenAPI", target: "/v2/openapi.yaml", status: 200},
	{operation: "getOpenAPI", target: "/v2/openapi.yaml?x=y", status: 400},
}

// elsewhere are the answers that another may give to any call: who stands before
// the faces, and does not know a caller, or not let it through.
var elsewhere = []string{"401", "403", "429"}

func TestEveryAnswerIsAsTheFileSays(t *testing.T) {
	file := readOpenAPI(t)
	fixtures := map[string]*fixture{
		"":                     newFixture(t),
		"loaded with requests": newFixture(t, withLoads),
		"with clients":         newFixture(t, withClients),
		"unloaded":             fixtureOf(t, newRegistry()),
		"clerk":                newFixture(t).as(t, "carts-team", clerk),
		"full of waiters":      newFixture(t, func(o *Options) { o.MaxWaiters = 0 }),
		"full of settings":     newFixture(t),
		"held":                 heldFixture(t),
	}
	for i := range 10 {
		fixtures[""].put(t, fmt.Sprintf("/v2/services/full/hosts/%d", i), fine)
	}
	fixtures["full of settings"].fillSettings(t)
	open := documentedAnswers(file)
	for _, e := range exchanges {
		t.Run(fmt.Sprintf("%s_%d_%s", e.operation, e.status, e.on), func(t *testing.T) {
			route := routeOf(t, file, e.operation)
			delete(open, fmt.Sprintf("%s %d", e.operation, e.status))
			r := newRequest(route.Method, e.target, e.body)
			if e.change != nil {
				e.change(r)
			}
			input := requestInput(t, route, e)
			if e.status < 400 {
				require.NoError(t, openapi3filter.ValidateRequest(t.Context(), input))
			}
			w := httptest.NewRecorder()
			fixtures[e.on].ServeHTTP(w, r)
			require.Equal(t, e.status, w.Code, w.Body)
			require.NoError(t, openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
				RequestValidationInput: input, Status: w.Code, Header: w.Header(), Body: io.NopCloser(bytes.NewReader(w.Body.Bytes())),
				Options: &openapi3filter.Options{IncludeResponseStatus: true},
			}), w.Body)
			if route.Operation.Responses.Status(w.Code).Value.Content == nil {
				require.Empty(t, w.Body.String())
			}
		})
	}
	require.Empty(t, open, "answers of the file that no call above had")
}

// documentedAnswers are the operations of a file with each status that is not
// given elsewhere.
func documentedAnswers(file *openapi3.T) map[string]bool {
	answers := map[string]bool{}
	for _, item := range file.Paths.Map() {
		for _, operation := range item.Operations() {
			for status := range operation.Responses.Map() {
				if !slices.Contains(elsewhere, status) {
					answers[operation.OperationID+" "+status] = true
				}
			}
		}
	}
	return answers
}

// routeOf is the operation of a name, as the validator knows it.
func routeOf(t *testing.T, file *openapi3.T, name string) *routers.Route {
	t.Helper()
	for path, item := range file.Paths.Map() {
		for method, operation := range item.Operations() {
			if operation.OperationID == name {
				return &routers.Route{Spec: file, Path: path, PathItem: item, Method: method, Operation: operation}
			}
		}
	}
	require.FailNow(t, "no operation "+name)
	return nil
}

// requestInput is a call as the validator knows it, with the names in its path.
func requestInput(t *testing.T, route *routers.Route, e exchange) *openapi3filter.RequestValidationInput {
	t.Helper()
	r := newRequest(route.Method, e.target, e.body)
	names := map[string]string{}
	segments := strings.Split(r.URL.EscapedPath(), "/")
	for i, segment := range strings.Split(route.Path, "/") {
		if strings.HasPrefix(segment, "{") {
			names[strings.Trim(segment, "{}")] = segments[i]
		}
	}
	return &openapi3filter.RequestValidationInput{Request: r, PathParams: names, Route: route, QueryParams: r.URL.Query()}
}
