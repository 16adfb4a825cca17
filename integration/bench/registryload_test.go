package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weirproxy/weir/integration/harness"
	discoveryv2 "github.com/weirproxy/weir/proto/discovery/v2"
)

// hostsPerService is how many hosts each service has.
const hostsPerService = 10

// leasesPerCall is how many hosts beat by one call, or one message.
const leasesPerCall = 10_000

// fleet is the hosts that are registered: as many services of hostsPerService
// hosts each. A host is about what those of a company are: a commit as its
// revision, an instance id of a cloud.
type fleet struct{ services int }

func (f fleet) hosts() int { return f.services * hostsPerService }

// place is what tells host i from the others.
func (f fleet) place(i int) (service, id, ip string) {
	service = fmt.Sprintf("service-%05d", i%f.services)
	ip = fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)
	return service, ip + ":8080", ip
}

// zone and revision are those of host i.
func (f fleet) zone(i int) string     { return "eu-central-1" + string(rune('a'+i%3)) }
func (f fleet) revision(i int) string { return fmt.Sprintf("%040x", 0xfeed0000+i%f.services) }

// formHeartbeats are the calls of v1 by which all hosts register, or beat.
func (f fleet) formHeartbeats() [][]byte {
	calls := make([][]byte, f.hosts())
	for i := range calls {
		service, _, ip := f.place(i)
		form := url.Values{
			"ip": {ip}, "port": {"8080"}, "revision": {f.revision(i)}, "service_repo_name": {service},
			"tags": {fmt.Sprintf(`{"az": %q, "region": "eu-central-1", "instance_id": "i-%017x"}`, f.zone(i), i)},
		}.Encode()
		calls[i] = call("POST", "/v1/registration/"+service, form, "Content-Type: application/x-www-form-urlencoded")
	}
	return calls
}

// puts are the calls of v2 by which all hosts register, with a TTL.
func (f fleet) puts(ttl time.Duration) [][]byte {
	calls := make([][]byte, f.hosts())
	for i := range calls {
		calls[i] = f.put(i, ttl, f.revision(i), 0)
	}
	return calls
}

// put is the call of v2 by which host i registers, or changes; without a weight
// of its own if that is 0.
func (f fleet) put(i int, ttl time.Duration, revision string, weight int) []byte {
	service, id, ip := f.place(i)
	body := fmt.Sprintf(`{"address": %q, "port": 8080, "zone": %q, "region": "eu-central-1", "repo": %q, "revision": %q, "ttl": %q`,
		ip, f.zone(i), service, revision, ttl)
	if weight > 0 {
		body += fmt.Sprintf(`, "weight": %d`, weight)
	}
	return call("PUT", "/v2/services/"+service+"/hosts/"+id, body+"}", "Content-Type: application/json")
}

// remove is the call of v2 by which host i deregisters.
func (f fleet) remove(i int) []byte {
	service, id, _ := f.place(i)
	return call("DELETE", "/v2/services/"+service+"/hosts/"+id, "")
}

// heartbeats are the calls of v2 by which each host beats for itself.
func (f fleet) heartbeats() [][]byte {
	calls := make([][]byte, f.hosts())
	for i := range calls {
		service, id, _ := f.place(i)
		calls[i] = call("POST", "/v2/services/"+service+"/hosts/"+id+"/heartbeat", "")
	}
	return calls
}

// lists are the calls for the hosts of each service, at a path in which a
// service stands for %s.
func (f fleet) lists(path string, headers ...string) [][]byte {
	calls := make([][]byte, f.services)
	for i := range calls {
		service, _, _ := f.place(i)
		calls[i] = call("GET", fmt.Sprintf(path, service), "", headers...)
	}
	return calls
}

// bulks are calls by which so many hosts each beat, all hosts once.
func bulks(leases []string, each int) [][]byte {
	var calls [][]byte
	for some := range slices.Chunk(leases, each) {
		body, _ := json.Marshal(map[string][]string{"leases": some}) // texts always can be
		calls = append(calls, call("POST", "/v2/heartbeats", string(body), "Content-Type: application/json"))
	}
	return calls
}

// call is an HTTP request as it is sent.
func call(method, path, body string, headers ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: discovery\r\n", method, path)
	for _, header := range headers {
		b.WriteString(header + "\r\n")
	}
	if method != "GET" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n" + body)
	return b.Bytes()
}

// send sends calls over one connection, one every so often or, with 0, without
// waiting for the answer before. It gives each answer to taken, in order.
func send(t testing.TB, address string, calls [][]byte, every time.Duration, taken func(i, status int, body []byte)) {
	t.Helper()
	connection, err := net.Dial("tcp", address)
	require.NoError(t, err)
	var sending sync.WaitGroup
	defer sending.Wait()
	defer connection.Close()
	// Ends when all is sent, or with the connection; waited for above.
	sending.Go(func() {
		if every == 0 {
			_, _ = connection.Write(bytes.Join(calls, nil)) // what is missing shows in the answers
			return
		}
		tick := time.NewTicker(every)
		defer tick.Stop()
		for _, c := range calls {
			<-tick.C
			if _, err := connection.Write(c); err != nil {
				return
			}
		}
	})
	r := bufio.NewReaderSize(connection, 64<<10)
	for i := range calls {
		require.NoError(t, connection.SetReadDeadline(time.Now().Add(10*time.Second)))
		answer, err := http.ReadResponse(r, nil)
		require.NoError(t, err, "answer %d of %d", i, len(calls))
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		taken(i, answer.StatusCode, body)
	}
}

// want is for send: it wants a status of all answers.
func want(t testing.TB, status int) func(i, status int, body []byte) {
	t.Helper()
	return func(i, got int, body []byte) {
		if got != status { // require.Equal would take longer than the call
			require.FailNow(t, "not answered well", "call %d: status %d, want %d: %s", i, got, status, body)
		}
	}
}

// register registers all hosts by v2, and returns their leases.
func register(t testing.TB, p *harness.Process, f fleet, ttl time.Duration) (leases []string) {
	t.Helper()
	check := want(t, http.StatusCreated)
	send(t, p.Addr("http"), f.puts(ttl), 0, func(i, status int, body []byte) {
		check(i, status, body)
		var receipt struct {
			Lease string `json:"lease"`
		}
		require.NoError(t, json.Unmarshal(body, &receipt))
		leases = append(leases, receipt.Lease)
	})
	return leases
}

// replay is a load of calls over kept connections, in turn. All are answered
// with a status.
func (m *machine) replay(t testing.TB, wrk, address string, connections int, calls [][]byte, status int) load {
	t.Helper()
	script := harness.Path(t, "integration", "bench", "testdata", "replay.lua")
	file := filepath.Join(t.TempDir(), "calls")
	require.NoError(t, os.WriteFile(file, bytes.Join(calls, []byte{0}), 0o644))
	probe := calls[:min(100, len(calls))]
	return func(t testing.TB, d time.Duration) int {
		send(t, address, probe, 0, want(t, status)) // wrk tells errors alone
		return m.wrk(t, wrk, address, connections, d, script, file)
	}
}

// beating is a load each unit of which is a beat that the registry takes, of a
// host that it knows.
func beating(p *harness.Process, perCall int, next load) load {
	return func(t testing.TB, d time.Duration) int {
		unchanged, made := checkIns(t, p, "unchanged"), checkIns(t, p, "new")
		units := next(t, d) * perCall
		require.GreaterOrEqual(t, checkIns(t, p, "unchanged")-unchanged, units, "heartbeats taken")
		require.Equal(t, made, checkIns(t, p, "new"), "hosts that were not known any more")
		return units
	}
}

// checkIns is how many check-ins had an outcome.
func checkIns(t testing.TB, p *harness.Process, outcome string) int {
	t.Helper()
	return metric(t, p, fmt.Sprintf(`discovery_check_ins_total{outcome=%q}`, outcome))
}

// metric is the value of a metric, given with its labels.
func metric(t testing.TB, p *harness.Process, name string) int {
	t.Helper()
	return int(fraction(t, p, name))
}

// fraction is the value of a metric that is no whole number.
func fraction(t testing.TB, p *harness.Process, name string) float64 {
	t.Helper()
	answer, err := http.Get("http://" + p.Addr("admin") + "/metrics")
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			require.NoError(t, err, line)
			return number
		}
	}
	require.FailNow(t, "no such metric", "%s of %s", name, p.Program.Name)
	return 0
}

// streamed is a load of messages on one gRPC stream, each of which is a
// heartbeat of some hosts and answered before the next.
func streamed(p *harness.Process, leases []uint64) load {
	return func(t testing.TB, d time.Duration) int {
		connection, err := grpc.NewClient(p.Addr("xds"), grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		defer connection.Close()
		stream, err := discoveryv2.NewHeartbeatServiceClient(connection).Beat(t.Context())
		require.NoError(t, err)
		message := &discoveryv2.BeatRequest{Attach: leases}
		units := 0
		for began := time.Now(); time.Since(began) < d; {
			require.NoError(t, stream.Send(message))
			answer, err := stream.Recv()
			require.NoError(t, err)
			require.Empty(t, answer.GetUnknown(), "leases that are not known")
			units += len(leases)
			message = &discoveryv2.BeatRequest{}
		}
		require.NoError(t, stream.CloseSend())
		_, err = stream.Recv()
		require.ErrorIs(t, err, io.EOF)
		return units
	}
}
