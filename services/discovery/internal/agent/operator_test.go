package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// registryCall is a call that a fake registry got, and its answer.
type registryCall struct {
	want   string
	status int
	body   string
}

// operate runs a command line of a subcommand that is not run against a fake
// registry that expects calls, and returns its output and exit code.
func operate(t *testing.T, line []string, calls ...registryCall) (stdout, stderr string, code int) {
	t.Helper()
	_, a, err := parse(line)
	require.NoError(t, err)
	fake := transport(func(request *http.Request) (*http.Response, error) {
		body, _ := io.ReadAll(request.Body)
		got := strings.TrimSpace(fmt.Sprintf("%s %s %s", request.Method, request.URL.RequestURI(), body))
		require.NotEmpty(t, calls, "one call more: %s", got)
		next := calls[0]
		calls = calls[1:]
		require.Equal(t, next.want, got)
		return answer(next.status, next.body)
	})
	switch a := a.(type) {
	case *makeAction:
		a.options.Transport = fake
	case *endAction:
		a.options.Transport = fake
	case *listAction:
		a.options.Transport = fake
	}
	var out, errs bytes.Buffer
	code = a.do(process{stdout: &out, stderr: &errs})
	require.Empty(t, calls, "calls that were not made")
	return out.String(), errs.String(), code
}

func TestHostsAreDrainedAndTakenBack(t *testing.T) {
	for name, test := range map[string]struct {
		line           []string
		calls          []registryCall
		stdout, stderr string
		code           int
	}{
		"one host for a time": {
			[]string{"drain", "--service", "users", "--id", "10.0.0.1:8080", "--reason", "disk", "--for", "1h", "--author", "ada"},
			[]registryCall{{`PUT /v2/settings/drain {"scope":{"service":"users","id":"10.0.0.1:8080"},"author":"ada","reason":"disk","expires_in":"1h0m0s"}`, 200, "{}"}, {"GET /v2/services/users/hosts", 200, usersList()}},
			"drain: host 10.0.0.1:8080 of users until 1h0m0s have passed\n", "", 0,
		},
		"one host that is not there": {
			[]string{"maintenance", "--service", "users", "--id", "nope", "--reason", "disk", "--author", "ada"},
			[]registryCall{{`PUT /v2/settings/maintenance {"scope":{"service":"users","id":"nope"},"author":"ada","reason":"disk"}`, 200, "{}"}, {"GET /v2/services/users/hosts", 200, usersList()}},
			"maintenance: host nope of users until up\n",
			"discovery-agent maintenance: warning: host nope of users is not registered now; it is meant when it comes\n", 0,
		},
		"one host, of a list that there is not yet": {
			[]string{"drain", "--service", "users", "--id", "nope", "--reason", "disk", "--author", "ada"},
			[]registryCall{{`PUT /v2/settings/drain {"scope":{"service":"users","id":"nope"},"author":"ada","reason":"disk"}`, 200, "{}"}, {"GET /v2/services/users/hosts", 503, `{"error":"not warm"}`}},
			"drain: host nope of users until up\n", "", 0,
		},
		"a zone in maintenance": {
			[]string{"maintenance", "--zone", "eu-1", "--reason", "power", "--author", "ada"},
			[]registryCall{{`PUT /v2/settings/maintenance {"scope":{"zone":"eu-1"},"author":"ada","reason":"power"}`, 200, "{}"}},
			"maintenance: zone eu-1 until up\n", "", 0,
		},
		"refused": {
			[]string{"drain", "--service", "users", "--reason", "r", "--author", "ada"},
			[]registryCall{{`PUT /v2/settings/drain {"scope":{"service":"users"},"author":"ada","reason":"r"}`, 403, `{"error":"you may not"}`}},
			"", "discovery-agent drain: all hosts of users: PUT http://127.0.0.1:8090/v2/settings/drain: Forbidden: you may not\n", 1,
		},
		"up from both": {
			[]string{"up", "--service", "users", "--zone", "eu-1"},
			[]registryCall{
				{"DELETE /v2/settings/drain?service=users&zone=eu-1", 204, ""},
				{"DELETE /v2/settings/maintenance?service=users&zone=eu-1", 204, ""},
			},
			"up: zone eu-1 of users: ended drain maintenance\n", "", 0,
		},
		"up from one": {
			[]string{"up", "--service", "users"},
			[]registryCall{{"DELETE /v2/settings/drain?service=users", 404, "{}"}, {"DELETE /v2/settings/maintenance?service=users", 204, ""}},
			"up: all hosts of users: ended maintenance\n", "", 0,
		},
		"up already": {
			[]string{"up", "--service", "users"},
			[]registryCall{{"DELETE /v2/settings/drain?service=users", 404, "{}"}, {"DELETE /v2/settings/maintenance?service=users", 404, "{}"}},
			"up: all hosts of users: ended nothing, since there was nothing\n", "", 0,
		},
		"up refused": {
			[]string{"up", "--service", "users"},
			[]registryCall{{"DELETE /v2/settings/drain?service=users", 503, `{"error":"not loaded"}`}},
			"", "discovery-agent up: all hosts of users: DELETE http://127.0.0.1:8090/v2/settings/drain?service=users: Service Unavailable: not loaded\n", 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, code := operate(t, test.line, test.calls...)
			require.Equal(t, test.stdout, stdout)
			require.Equal(t, test.stderr, stderr)
			require.Equal(t, test.code, code)
		})
	}
}

func TestWhoDecidesIsTheUserOfTheMachineIfNobodySays(t *testing.T) {
	host, err := os.Hostname()
	require.NoError(t, err)
	t.Setenv("USER", "ada")
	require.Equal(t, "ada@"+host, author())
	t.Setenv("USER", "")
	require.Equal(t, fmt.Sprintf("uid %d@%s", os.Getuid(), host), author())
}

// usersList is the list of a service as a registry answers with it.
func usersList() string {
	ago := func(d time.Duration) string { return time.Now().Add(-d).UTC().Format(time.RFC3339Nano) }
	return `{"service":"users","known":true,"index":"0000000000000001","hosts":[
		{"id":"10.0.0.1:8080","address":"10.0.0.1","port":8080,"state":"serving","stale":false,"zone":"eu-1","revision":"r1","weight":50,"last_check_in":"` + ago(7*time.Second) + `"},
		{"id":"i-2","address":"fd00::1","port":80,"state":"draining","stale":true,"zone":"eu-2","revision":"r\u001b[2J","last_check_in":"` + ago(61*time.Second) + `"},
		{"id":"i-3","address":"10.0.0.3","port":80,"state":"out","stale":false,"zone":"","revision":"","last_check_in":"` + ago(-time.Hour) + `"}]}`
}

func TestTheHostsOfAServiceAreListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // for ages
		call := registryCall{"GET /v2/services/users/hosts", 200, usersList()}
		stdout, stderr, code := operate(t, []string{"list", "users"}, call)
		require.Empty(t, stderr)
		require.Zero(t, code)
		require.Equal(t, ""+
			"ID             ADDRESS        STATE            AGE   ZONE  REVISION    WEIGHT\n"+
			"10.0.0.1:8080  10.0.0.1:8080  serving          7s    eu-1  r1          50\n"+
			"i-2            [fd00::1]:80   draining, stale  1m1s  eu-2  \"r\\x1b[2J\"  -\n"+
			"i-3            10.0.0.3:80    out              0s    -     -           -\n", stdout)

		stdout, _, _ = operate(t, []string{"list", "users", "--zone", "eu-2"}, call)
		require.Equal(t, 2, strings.Count(stdout, "\n"))
		require.Contains(t, stdout, "i-2")

		stdout, _, _ = operate(t, []string{"list", "--json", "--zone", "eu-1", "users"}, call)
		var list struct{ Hosts []map[string]any }
		require.NoError(t, json.Unmarshal([]byte(stdout), &list))
		require.Len(t, list.Hosts, 1)
		require.Equal(t, "10.0.0.1:8080", list.Hosts[0]["id"])
		require.EqualValues(t, 50, list.Hosts[0]["weight"])
	})
}

func TestAServiceThatIsNotKnownIsNoEmptyList(t *testing.T) {
	_, stderr, code := operate(t, []string{"list", "nobody"},
		registryCall{"GET /v2/services/nobody/hosts", 200, `{"service":"nobody","known":false,"index":"0000000000000000","hosts":[]}`})
	require.Equal(t, notDone, code)
	require.Equal(t, "discovery-agent list: discovery does not know a service \"nobody\"\n", stderr)
}

func TestWithoutAServiceAllServicesAreListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // for ages
		call := registryCall{"GET /v2/services", 200, `{"services":[{"name":"users","hosts":4,"serving":2,"draining":1,"out":1,"stale":3,"index":"0000000000000001","changed_at":"` +
			time.Now().Add(-2*time.Hour).UTC().Format(time.RFC3339Nano) + `"}]}`}
		stdout, _, code := operate(t, []string{"list"}, call)
		require.Zero(t, code)
		require.Equal(t, "SERVICE  HOSTS  SERVING  DRAINING  OUT  STALE  CHANGED\nusers    4      2        1         1    3      2h0m0s\n", stdout)

		stdout, _, _ = operate(t, []string{"list", "--json"}, call)
		require.True(t, json.Valid([]byte(stdout)))
		require.Contains(t, stdout, `"serving": 2`)
	})
}
