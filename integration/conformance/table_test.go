package conformance

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/weirproxy/weir/integration/harness"
)

// tableCase is bytes that a client sends on a connection of its own, to a proxy
// with testdata/table.yaml.
type tableCase struct {
	name     string
	listener string // default if it is empty
	text     string
	// answer is what the backend sends; a 200 if it is empty.
	answer string
	// answers is how many requests the text has; 1 if it is 0.
	answers int
	// waits says that a proxy may wait for the rest of the text: once it shows that it
	// does, the client's side ends.
	waits bool
}

// differences is testdata/differences.yaml.
type differences []struct {
	// Reason is why our proxy does otherwise, and what is better about it.
	Reason string `yaml:"reason"`
	// Cases are the lines of an observation that only Envoy has, and only ours.
	Cases map[string]difference `yaml:"cases"`
}

type difference struct {
	Envoy []string `yaml:"envoy,omitempty"`
	Ours  []string `yaml:"ours,omitempty"`
}

// TestOurProxyAndARealEnvoyTakeTheSameRequests sends each case to both. What
// differs must be listed, and what is listed must differ.
func TestOurProxyAndARealEnvoyTakeTheSameRequests(t *testing.T) {
	harness.EnvoyPath(t) // skips before anything has started
	listed := readDifferences(t, "testdata/differences.yaml")
	envoy := newTableSide(t, func(bootstrap string) *harness.Process { return harness.Envoy(t, bootstrap) })
	ours := newTableSide(t, func(bootstrap string) *harness.Process { return harness.Proxy(t, bootstrap) })
	names := map[string]bool{}
	for _, c := range tableCases() {
		require.False(t, names[c.name], "two cases are called %s", c.name)
		names[c.name] = true
		t.Run(c.name, func(t *testing.T) {
			theirs := make(chan []string, 1)
			// Ends with the case; received from below.
			go func() { theirs <- envoy.observe(c) }()
			own := ours.observe(c)
			got := compare(<-theirs, own)
			if want := listed[c.name]; !slices.Equal(want.Envoy, got.Envoy) || !slices.Equal(want.Ours, got.Ours) {
				shown, err := yaml.Marshal(map[string]difference{c.name: got})
				require.NoError(t, err)
				require.Fail(t, "another difference than is listed", "%q\nfor testdata/differences.yaml, if there is a good reason:\n%s", clipText(c.text), shown)
			}
		})
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		require.True(t, names[name], "a difference is listed of %q, which is no case", name)
	}
}

// readDifferences are those of a file, by the names of the cases.
func readDifferences(t *testing.T, file string) map[string]difference {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var list differences
	require.NoError(t, yaml.Unmarshal(text, &list))
	listed := map[string]difference{}
	for _, one := range list {
		require.NotEmpty(t, one.Reason)
		for name, d := range one.Cases {
			require.NotContains(t, listed, name, "a case of two reasons")
			listed[name] = d
		}
	}
	return listed
}

// tableSide is a proxy before a backend of its own.
type tableSide struct {
	proxy   *harness.Process
	backend *rawBackend
	client  *http.Client // of the proxy's admin listener
}

func newTableSide(t *testing.T, start func(bootstrap string) *harness.Process) tableSide {
	t.Helper()
	text, err := os.ReadFile("testdata/table.yaml")
	require.NoError(t, err)
	backend := newRawBackend(t)
	_, port, err := net.SplitHostPort(backend.address)
	require.NoError(t, err)
	return tableSide{start(strings.ReplaceAll(string(text), "PORT", port)), backend, harness.Client(t)}
}

// probeTarget is that of a request by which a connection, or a whole proxy, shows
// that it lives.
const (
	probeTarget  = "/probe"
	probeRequest = "GET " + probeTarget + " HTTP/1.1\r\nHost: probe\r\n\r\n"
)

// patience is how long a proxy may take for an answer, and for the end of a
// connection; silence is half of how long it is silent, at least, if it waits.
const (
	patience = 20 * time.Second
	silence  = time.Second / 2
)

// observe sends a case and tells in lines what came of it: the answers, whether
// the connection lives, and what the backend saw. A line begins with what it is
// about.
func (s tableSide) observe(c tableCase) []string {
	s.backend.expect(c.answer)
	address := s.proxy.Addresses[cmp.Or(c.listener, "default")]
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return []string{err.Error()}
	}
	// Fails where the proxy has ended the connection before it took everything. What
	// it said before that is there to be read all the same.
	_, _ = io.WriteString(conn, c.text)
	lines := readAnswers(conn.(*net.TCPConn), c, func() { probe(address) })
	conn.Close()
	if err := s.settle(); err != nil {
		return append(lines, err.Error())
	}
	for i, m := range s.backend.requests() {
		lines = append(lines, showRawRequest(fmt.Sprintf("request %d", i+1), m)...)
	}
	return lines
}

// probe sends a request on a connection of its own, which is over with the answer.
func probe(address string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return // whoever probes looks at something else
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err = io.WriteString(conn, probeRequest); err == nil {
		_, _ = readRaw(bufio.NewReader(conn), false, true)
	}
}

// settle waits until the proxy has no connection of a client and no request under
// way, and the backend has read whatever came: nothing of a case is told of the next.
// Envoy may keep a connection to the backend that it made for a request and did not
// use.
func (s tableSide) settle() error {
	const gauges = `^(cluster|http)\.(default|open|strict)\.(downstream_cx|upstream_(cx|rq|rq_pending))_active$`
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		text, err := s.tell("/stats?filter=" + url.QueryEscape(gauges))
		if err != nil {
			return err
		}
		busy, unused := 0, 0
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			n, err := strconv.Atoi(value)
			switch {
			case err != nil:
				return fmt.Errorf("%s: %w", line, err)
			case strings.HasSuffix(name, "upstream_cx_active"):
				unused += n
			default:
				busy += n
			}
		}
		if busy == 0 {
			// The backend accepts in order, and so has taken all that came before.
			probe(s.backend.address)
			if s.backend.connections() == unused {
				return nil
			}
		}
		if time.Since(began) > patience {
			return fmt.Errorf("requests or connections that do not end: %q, and %d of the backend", text, s.backend.connections())
		}
	}
}

// tell is what the proxy's admin listener answers.
func (s tableSide) tell(target string) (string, error) {
	response, err := s.client.Get("http://" + s.proxy.Addresses["admin"] + target)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

// readAnswers reads what a proxy says to a case, until the connection ends or
// shows that it lives. A proxy that says nothing waits if it answers other requests
// meanwhile, as probe shows: one that is slow would be as slow with those.
func readAnswers(conn *net.TCPConn, c tableCase, probe func()) (lines []string) {
	r := bufio.NewReader(conn)
	method, _, _ := strings.Cut(strings.TrimLeft(c.text, "\r\n"), " ")
	waits, witnessed, probed := c.waits, false, false
	for final := 0; ; {
		if final == max(1, c.answers) && !c.waits && !probed {
			probed = true
			if _, err := io.WriteString(conn, probeRequest); err != nil {
				return append(lines, "connection: ends")
			}
		}
		wait := patience
		if waits {
			wait = silence
		}
		_ = conn.SetReadDeadline(time.Now().Add(wait)) // fails if the connection has ended, as the read does
		switch _, err := r.Peek(1); {
		case waits && !witnessed && os.IsTimeout(err):
			witnessed = true
			for range 3 {
				probe()
			}
			continue
		case waits && os.IsTimeout(err):
			waits = false
			lines = append(lines, "connection: waits")
			_ = conn.CloseWrite() // likewise
			continue
		case err != nil:
			return append(lines, ended(err))
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		m, err := readRaw(r, method == "HEAD", true)
		if err != nil && m.line == "" {
			return append(lines, ended(err))
		}
		status := statusOf(m.line)
		if probed {
			if status != "200" {
				return append(lines, "connection: a request after it is answered "+status)
			}
			return append(lines, "connection: lives")
		}
		lines = append(lines, showRawAnswer(m)...)
		switch {
		case err != nil:
			return append(lines, "answer broke off: "+clipText(m.body))
		case status == "101":
			return append(lines, tunnelled(conn, r))
		case status[0] != '1':
			final++
		}
	}
}

// ended tells how a connection ended; that it is reset says no more than that it
// is closed, since it depends on what was still under way.
func ended(err error) string {
	if os.IsTimeout(err) {
		return "connection: silence"
	}
	return "connection: ends"
}

// tunnelled shows that bytes go through an upgraded connection and back.
func tunnelled(conn io.Writer, r io.Reader) string {
	answer := make([]byte, 4)
	if _, err := io.WriteString(conn, "ping"); err != nil {
		return "tunnel: none"
	}
	n, _ := io.ReadFull(r, answer)
	return "tunnel: " + string(answer[:n])
}

// statusOf is the status of a status line; the whole line if it has none.
func statusOf(line string) string {
	parts := strings.SplitN(line, " ", 3)
	if len(parts) < 2 || parts[1] == "" {
		return line
	}
	return parts[1]
}

// ofLocalReplies are the fields of a proxy's own answers that are compared; their
// texts are each proxy's own.
var ofLocalReplies = []string{"location", "connection", "upgrade", "allow", "transfer-encoding"}

func showRawAnswer(m rawMessage) (lines []string) {
	backends := slices.ContainsFunc(m.fields, func(field string) bool { return strings.HasPrefix(strings.ToLower(field), backendMark) })
	status := statusOf(m.line)
	lines = append(lines, "answer: "+status)
	if !strings.HasPrefix(m.line, "HTTP/1.1 ") {
		lines = append(lines, "answer of "+m.line)
	}
	for _, field := range m.fields {
		name, _, _ := strings.Cut(strings.ToLower(field), ":")
		if backends || status[0] == '1' || slices.Contains(ofLocalReplies, name) {
			lines = append(lines, "answer field: "+masked(field))
		}
	}
	if backends {
		lines = append(lines, "answer body: "+m.framing+" "+clipText(m.body))
		for _, field := range m.trailers {
			lines = append(lines, "answer trailer: "+field)
		}
	}
	return lines
}

func showRawRequest(which string, m rawMessage) []string {
	lines := []string{which + ": " + m.line}
	for _, field := range m.fields {
		lines = append(lines, which+" field: "+masked(field))
	}
	lines = append(lines, which+" body: "+m.framing+" "+clipText(m.body))
	for _, field := range m.trailers {
		lines = append(lines, which+" trailer: "+field)
	}
	return lines
}

// clipText shortens what is long, and says how long it was.
func clipText(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	return fmt.Sprintf("%s… (%d bytes)", text[:most], len(text))
}

// masked is a field without what differs from one request to the next, and
// without what is meant to differ: our name.
func masked(field string) string {
	name, value, _ := strings.Cut(field, ":")
	switch value = strings.TrimSpace(value); strings.ToLower(name) {
	case "date", "x-envoy-upstream-service-time":
		value = "*"
	case "x-forwarded-for":
		// Envoy takes a peer on loopback for the machine's own address.
		value = lastAddress.ReplaceAllString(value, "*")
	case "server":
		value = strings.NewReplacer("weir", "envoy").Replace(value)
	case "x-request-id":
		value = uuid.ReplaceAllString(value, "*")
	}
	return name + ": " + clipText(value)
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$`)

var lastAddress = regexp.MustCompile(`[0-9.]+$`)

// compare tells the lines that only one of two observations has. The order of
// fields is nobody's business. Where an answer is another one, what follows from
// that is left out: only it, the connection and the requests are told.
func compare(envoy, ours []string) difference {
	d := difference{Envoy: less(envoy, ours), Ours: less(ours, envoy)}
	if slices.ContainsFunc(append(slices.Clone(d.Envoy), d.Ours...), func(line string) bool { return strings.HasPrefix(line, "answer: ") }) {
		detail := func(line string) bool {
			about, _, _ := strings.Cut(line, ": ")
			return about != "answer" && about != "connection" && !regexp.MustCompile(`^request \d+$`).MatchString(about)
		}
		d.Envoy, d.Ours = slices.DeleteFunc(d.Envoy, detail), slices.DeleteFunc(d.Ours, detail)
	}
	return d
}

// less is the lines of one observation that another has not, each as often as it
// is there too often.
func less(lines, others []string) (only []string) {
	others = slices.Clone(others)
	for _, line := range lines {
		if i := slices.Index(others, line); i >= 0 {
			others = slices.Delete(others, i, i+1)
			continue
		}
		only = append(only, line)
	}
	return only
}
