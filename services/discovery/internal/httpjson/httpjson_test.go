package httpjson_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestTextIsAppendedAsJSONWants(t *testing.T) {
	for _, text := range []string{"", "plain ~text", `a "quote"`, `back\slash`, "line\nbreak", "<&>", "\x7f", "é", "\u2028", "\xff"} {
		want, err := json.Marshal(text)
		require.NoError(t, err)
		require.Equal(t, "x"+string(want), string(httpjson.AppendText([]byte("x"), text)))
	}
}

func TestEachByteIsAppendedAsJSONWants(t *testing.T) {
	for c := range 256 {
		text := string([]byte{'a', byte(c), 'z'})
		want, err := json.Marshal(text)
		require.NoError(t, err)
		require.Equal(t, string(want), string(httpjson.AppendText(nil, text)))
	}
}

func TestATimeIsWrittenAsItsLayoutHasIt(t *testing.T) {
	elsewhere := time.FixedZone("elsewhere", 5*3600+1800)
	var day httpjson.Day
	for _, at := range []time.Time{
		{},
		time.Unix(0, 0),
		time.Unix(0, -1),
		time.Unix(0, math.MaxInt64),
		time.Date(2024, 2, 29, 23, 59, 59, 999_999_999, elsewhere),
		time.Date(2026, 12, 31, 23, 59, 59, 5_000_000, elsewhere),
		time.Date(2026, 1, 2, 3, 4, 5, 60_708, time.UTC),
		time.Date(2026, 1, 2, 23, 59, 59, 999_999_999, time.UTC),
		time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC),
	} {
		for digits := 1; digits <= 9; digits++ {
			for _, form := range []httpjson.TimeForm{httpjson.RFC3339(digits), {Between: ' ', Digits: digits, Zone: "+00:00"}, {Between: '_', Digits: digits}} {
				want := at.UTC().Format("2006-01-02" + string(form.Between) + "15:04:05." + strings.Repeat("0", digits) + form.Zone)
				require.Equal(t, "x"+want, string(form.AppendTime([]byte("x"), at)))
				require.Equal(t, len(want), form.Len())
				if at.IsZero() { // which is no number of nanoseconds
					continue
				}
				b := []byte("x" + strings.Repeat("?", len(want)) + "y")
				form.Put(b[1:1+len(want)], at.UnixNano(), &day)
				require.Equal(t, "x"+want+"y", string(b))
			}
		}
	}
}

func BenchmarkPutTime(b *testing.B) {
	form := httpjson.RFC3339(6)
	text, at := make([]byte, form.Len()), time.Now().UnixNano()
	var day httpjson.Day
	for b.Loop() {
		form.Put(text, at, &day)
	}
}

func TestATagIsOfAllDigitsOfAVersion(t *testing.T) {
	for _, version := range []uint64{0, 0xa, 0x0123456789abcdef, math.MaxUint64} {
		require.Equal(t, []string{fmt.Sprintf(`W/"%016x"`, version)}, httpjson.Tag(version))
	}
}

func TestABodyHasItsLength(t *testing.T) {
	for name, write := range map[string]func(http.ResponseWriter) (int, error){
		"given": func(w http.ResponseWriter) (int, error) { return httpjson.Write(w, []byte("{}\n")) },
		"composed": func(w http.ResponseWriter) (int, error) {
			return httpjson.Compose(w, func(b []byte) []byte { return append(b, "{}\n"...) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			status, err := write(w)
			require.NoError(t, err)
			require.Equal(t, 200, status)
			require.Equal(t, 200, w.Code)
			require.Equal(t, "{}\n", w.Body.String())
			require.Equal(t, "3", w.Header().Get("Content-Length"))
			require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		})
	}
}

// writer is a ResponseWriter whose Write is a function.
type writer struct {
	header http.Header
	write  func(b []byte) (int, error)
}

func (w writer) Header() http.Header         { return w.header }
func (w writer) Write(b []byte) (int, error) { return w.write(b) }
func (w writer) WriteHeader(int)             {}

func TestABufferIsUsedAgainOnlyWhenItsAnswerIsOut(t *testing.T) {
	compose := func(text string, err error) (sent []byte) {
		_, _ = httpjson.Compose(writer{http.Header{}, func(b []byte) (int, error) {
			sent = b
			return len(b), err
		}}, func(b []byte) []byte {
			require.Empty(t, b, "nothing is left of another answer")
			return append(b, text...)
		})
		return sent
	}
	for i := range 100 { // with buffers of earlier calls
		text := strings.Repeat(fmt.Sprint(i%10), 1+i*1000)
		require.Equal(t, text, string(compose(text, nil)))
	}
	failed := compose("of a caller that has gone", errors.New("gone"))
	for range 100 {
		compose("of another caller, and no shorter", nil)
	}
	require.Equal(t, "of a caller that has gone", string(failed))
}

func TestALongBufferIsLetGo(t *testing.T) {
	const mostKept = 64 << 10
	w := writer{http.Header{}, func(b []byte) (int, error) { return len(b), nil }}
	for _, length := range []int{mostKept, mostKept + 1, 1 << 20} {
		for range 100 {
			_, _ = httpjson.Compose(w, func(b []byte) []byte {
				require.LessOrEqual(t, cap(b), mostKept)
				return append(b, make([]byte, length)...)
			})
		}
	}
}

// sender is a ResponseWriter that says how each Write ended.
type sender struct {
	http.ResponseWriter
	wrote chan<- error
}

func (s sender) Write(b []byte) (int, error) {
	n, err := s.ResponseWriter.Write(b)
	s.wrote <- err
	return n, err
}

func TestABufferIsNotUsedAgainOfWhichAnHTTP2ConnectionMaySendStill(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // one processor has all buffers that are free
	const length = 60 << 10
	var first *byte // of the last body
	wrote := make(chan error, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = httpjson.Compose(sender{w, wrote}, func(b []byte) []byte {
			b = append(b, bytes.Repeat([]byte(r.URL.Query().Get("of")), length)...)
			first = &b[0]
			return b
		})
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	client := server.Client()
	// What a reader has not read holds up the rest of its body.
	client.Transport.(*http.Transport).HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 16 << 10}
	get := func(ctx context.Context, of string) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, "GET", server.URL+"?of="+of, nil)
		require.NoError(t, err)
		answer, err := client.Do(r)
		require.NoError(t, err)
		require.Equal(t, 2, answer.ProtoMajor)
		return answer
	}
	for range 20 {
		ctx, reset := context.WithCancel(t.Context())
		cut := get(ctx, "a")
		reset()
		require.Error(t, <-wrote, "it was not all sent")
		_ = cut.Body.Close()
		left := first
		var free func(n int)
		free = func(n int) { // looks at all of them
			_, _ = httpjson.Compose(writer{http.Header{}, func(b []byte) (int, error) { return len(b), nil }}, func(b []byte) []byte {
				b = append(b, 'x')
				require.NotSame(t, left, &b[0])
				if n > 0 {
					free(n - 1)
				}
				return b
			})
		}
		free(10)

		whole := get(t.Context(), "b")
		body, err := io.ReadAll(whole.Body)
		require.NoError(t, err)
		require.NoError(t, whole.Body.Close())
		require.NoError(t, <-wrote)
		require.Equal(t, strings.Repeat("b", length), string(body))
	}
}

func TestABodyIsComposedWithoutGarbage(t *testing.T) {
	w := writer{http.Header{}, func(b []byte) (int, error) { return len(b), nil }}
	text := strings.Repeat("a", 4000)
	// A slice for each of the two headers, the length, and what here turns a writer
	// into a ResponseWriter.
	servicetest.Allocations(t, 4, func() {
		_, _ = httpjson.Compose(w, func(b []byte) []byte { return httpjson.AppendText(b, text) })
	})
}

func TestAnAnswerIsJSON(t *testing.T) {
	w := httptest.NewRecorder()
	httpjson.Answer(w, 404, map[string]string{"error": "no"})
	require.Equal(t, 404, w.Code)
	require.JSONEq(t, `{"error":"no"}`, w.Body.String())
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
}

func TestWhatTheCallerHasIsNotSentAgain(t *testing.T) {
	const tag = `W/"0a"`
	for name, test := range map[string]struct {
		lines      []string
		unmodified bool
	}{
		"nothing":                      {nil, false},
		"the tag":                      {[]string{`W/"0a"`}, true},
		"the tag as a strong one":      {[]string{`"0a"`}, true},
		"another tag":                  {[]string{`W/"0b"`}, false},
		"any":                          {[]string{`*`}, true},
		"a list with the tag":          {[]string{`"0b", W/"0a"`}, true},
		"a list of others":             {[]string{`"0b",W/"0c"`}, false},
		"several lines":                {[]string{`"0b"`, "\t" + `W/"0a" , "0c"`}, true},
		"the tag without quotes":       {[]string{`0a`}, false},
		"a tag that holds the comma":   {[]string{`"x,0a,y"`}, false},
		"an empty line":                {[]string{``}, false},
		"a line of commas":             {[]string{`,,,`}, false},
		"w in lower case, which is no": {[]string{`w/"0a"`}, false},
		"many, as a rude caller might": {[]string{strings.Repeat(`"0b",`, 10_000)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header["If-None-Match"] = test.lines
			w := httptest.NewRecorder()
			require.Equal(t, test.unmodified, httpjson.Unmodified(w, r, []string{tag}))
			require.Equal(t, tag, w.Header().Get("ETag"))
			if test.unmodified {
				require.Equal(t, 304, w.Code)
				require.Empty(t, w.Body)
			}
		})
	}
}
