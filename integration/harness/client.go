package harness

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Client returns an HTTP/1.1 client that keeps connections, until the test
// ends. It follows no redirect and asks for no compression.
func Client(t testing.TB) *http.Client {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Request is one request of a test.
type Request struct {
	Method, URL string // Method: GET if empty
	Header      http.Header
	Body        string
}

// Answer is what came back.
type Answer struct {
	Status int
	Header http.Header
	Body   string
	// Instance is the backend that answered; empty if none did.
	Instance string
}

// Send sends one request and reads the whole answer.
func Send(client *http.Client, r Request) (Answer, error) {
	request, err := http.NewRequestWithContext(context.Background(), r.Method, r.URL, strings.NewReader(r.Body))
	if err != nil {
		return Answer{}, err
	}
	if r.Header != nil {
		request.Header = r.Header.Clone()
	}
	response, err := client.Do(request)
	if err != nil {
		return Answer{}, err
	}
	return read(response)
}

// read reads an answer to its end and closes it.
func read(response *http.Response) (Answer, error) {
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return Answer{}, fmt.Errorf("read the body of the answer: %w", err)
	}
	return Answer{
		Status:   response.StatusCode,
		Header:   response.Header,
		Body:     string(body),
		Instance: response.Header.Get("X-Echo-Instance"),
	}, nil
}

// SendRaw sends bytes on a connection of their own and reads one answer, those
// of 1xx left out. closed says that the answer announced the connection's end;
// that it ends then is wanted.
func SendRaw(t testing.TB, address, text string) (answer Answer, closed bool) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, text)
	require.NoError(t, err)
	method, _, _ := strings.Cut(text, " ")
	reader := bufio.NewReader(conn)
	for {
		response, err := http.ReadResponse(reader, &http.Request{Method: method})
		require.NoError(t, err)
		answer, err = read(response)
		require.NoError(t, err)
		closed = response.Close
		if answer.Status >= 200 {
			break
		}
	}
	if closed {
		_, err = reader.ReadByte()
		require.ErrorIs(t, err, io.EOF, "the connection ends as announced")
	}
	return answer, closed
}

// loadWorkers send at once; each pauses for loadPause after an answer, so that
// load leaves a small machine something for the programs under test.
const (
	loadWorkers = 4
	loadPause   = 2 * time.Millisecond
)

// Load is traffic that goes on until it is stopped.
type Load struct {
	t       testing.TB
	target  string
	end     context.CancelFunc
	workers sync.WaitGroup

	mu     sync.Mutex
	report Report
}

// Report is what came of a load.
type Report struct {
	// Requests is how many were answered with 200 or failed.
	Requests int
	// Failures are those that got another answer than 200, or none.
	Failures []Failure
	// Instances is how many requests each backend answered.
	Instances map[string]int
}

// Failure is a request that failed.
type Failure struct {
	Began, At time.Time // when it was sent, and when it failed
	What      string    // the status and body, or the error
}

// StartLoad sends GETs to the stack's ingress from several connections until
// Stop is called or the test ends.
func (s *Stack) StartLoad() *Load {
	s.t.Helper()
	return StartLoad(s.t, s.Ingress())
}

// StartLoad sends GETs to an address from several connections until Stop is
// called or the test ends.
func StartLoad(t testing.TB, address string) *Load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{t: t, target: "http://" + address + "/", end: cancel}
	l.report.Instances = map[string]int{}
	client := Client(t)
	for range loadWorkers {
		// Ends with ctx; Stop waits for it.
		l.workers.Go(func() {
			pause := time.NewTicker(loadPause)
			defer pause.Stop()
			for ctx.Err() == nil {
				began := time.Now()
				answer, err := Send(client, Request{URL: l.target})
				l.record(began, answer, err)
				<-pause.C
			}
		})
	}
	t.Cleanup(func() { l.stop() })
	return l
}

func (l *Load) record(began time.Time, answer Answer, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.report.Requests++
	switch {
	case err != nil:
		l.report.Failures = append(l.report.Failures, Failure{began, time.Now(), err.Error()})
	case answer.Status != http.StatusOK:
		l.report.Failures = append(l.report.Failures, Failure{began, time.Now(), fmt.Sprintf("%d %s", answer.Status, answer.Body)})
	default:
		l.report.Instances[answer.Instance]++
	}
}

// Await waits until so many more requests have been answered.
func (l *Load) Await(more int) {
	l.t.Helper()
	want := l.requests() + more
	require.Eventually(l.t, func() bool { return l.requests() >= want }, patience, time.Millisecond, "the load goes on")
}

func (l *Load) requests() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.report.Requests
}

// Stop ends the load, waits for the requests in flight and returns the report.
func (l *Load) Stop() Report {
	l.t.Helper()
	l.stop()
	require.NotZero(l.t, l.report.Requests, "requests under load")
	return l.report
}

func (l *Load) stop() {
	l.end()
	l.workers.Wait()
}
