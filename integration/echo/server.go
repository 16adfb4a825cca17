package echo

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	echov1 "github.com/weirproxy/weir/proto/echo/v1"
)

// InstanceHeader names the instance in every answer.
const InstanceHeader = "x-echo-instance"

// NewServer makes the server of one instance, for HTTP/1.1, HTTP/2 without TLS
// and gRPC on the same listener. The caller serves and closes it.
func NewServer(name string) *http.Server {
	rpc := grpc.NewServer()
	echov1.RegisterEchoServiceServer(rpc, service{name: name})
	plain := answer{name: name}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Protocols:         protocols,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(InstanceHeader, name)
			if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
				rpc.ServeHTTP(w, r)
				return
			}
			plain.ServeHTTP(w, r)
		}),
	}
}

// answer is the plain HTTP side of an instance.
type answer struct{ name string }

// order is what a request's query asks of its answer.
type order struct {
	status  int           // ?status=
	delay   time.Duration // ?delay=, before the head of the answer
	bytes   int64         // ?bytes=, length of the body; -1 if not asked
	headers bool          // ?headers, the request's head as the body
}

func (a answer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o, err := readOrder(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if o.delay > 0 {
		select {
		case <-time.After(o.delay):
		case <-r.Context().Done():
			return // nobody waits for the answer any more
		}
	}
	switch {
	case o.headers:
		writeText(w, o.status, head(r))
	case o.bytes >= 0:
		w.Header().Set("Content-Length", strconv.FormatInt(o.bytes, 10))
		w.WriteHeader(o.status)
		_, _ = io.CopyN(w, filler{}, o.bytes)
	case r.ContentLength != 0:
		sendBack(w, r, o.status)
	default:
		writeText(w, o.status, fmt.Sprintf("%s %s %s\n", a.name, r.Method, r.URL.RequestURI()))
	}
}

func readOrder(query url.Values) (order, error) {
	o := order{status: http.StatusOK, bytes: -1, headers: query.Has("headers")}
	var err error
	if text := query.Get("status"); text != "" {
		if o.status, err = strconv.Atoi(text); err != nil || o.status < 200 || o.status > 599 {
			return order{}, fmt.Errorf("status %q: want 200 to 599", text)
		}
	}
	if text := query.Get("delay"); text != "" {
		if o.delay, err = time.ParseDuration(text); err != nil || o.delay < 0 {
			return order{}, fmt.Errorf("delay %q: want a duration such as 100ms", text)
		}
	}
	if text := query.Get("bytes"); text != "" {
		if o.bytes, err = strconv.ParseInt(text, 10, 64); err != nil || o.bytes < 0 {
			return order{}, fmt.Errorf("bytes %q: want a length", text)
		}
	}
	return o, nil
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // a failed write means that the caller has gone
}

// sendBack copies the request's body into the answer as it comes, each piece
// flushed, and then the request's trailers.
func sendBack(w http.ResponseWriter, r *http.Request, status int) {
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // HTTP/2 always is, and says that it cannot be set
	if kind := r.Header.Get("Content-Type"); kind != "" {
		w.Header().Set("Content-Type", kind)
	}
	if r.ContentLength > 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	w.WriteHeader(status)
	piece := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(piece)
		if n > 0 {
			if _, err := w.Write(piece[:n]); err != nil {
				return // the caller has gone
			}
			_ = control.Flush()
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			panic(http.ErrAbortHandler) // the body broke off: so does the answer
		}
	}
	for name, values := range r.Trailer {
		w.Header()[http.TrailerPrefix+name] = values
	}
}

// head is the request's head as text, names in lower case and sorted.
func head(r *http.Request) string {
	lines := []string{"host: " + r.Host}
	for name, values := range r.Header {
		for _, value := range values {
			lines = append(lines, strings.ToLower(name)+": "+value)
		}
	}
	slices.Sort(lines)
	return fmt.Sprintf("%s %s %s\n%s\n", r.Method, r.URL.RequestURI(), r.Proto, strings.Join(lines, "\n"))
}

// filler reads as endless lines of x.
type filler struct{}

func (filler) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}
