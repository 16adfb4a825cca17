// Package httpjson is how the gate and all behind it answer over HTTP: in JSON,
// whole values and bodies written by hand, and with nothing at all to readers who
// have the answer already. It knows nothing of hosts.
package httpjson

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// Answer answers with v as JSON. It returns what a handler returns, as the
// others here do: the status, and nil.
func Answer(w http.ResponseWriter, status int, v any) (int, error) {
	w.Header()["Content-Type"] = contentType
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a failed write means that the caller has gone
	return status, nil
}

// contentType is that of all answers, as http.Header has it. Nobody changes it.
var contentType = []string{"application/json"}

// Write answers with status 200 and a body that is JSON already. The length
// goes before it: without one net/http would cut a long body in chunks.
func Write(w http.ResponseWriter, body []byte) (int, error) {
	w.Header()["Content-Type"] = contentType
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // a failed write means that the caller has gone
	return http.StatusOK, nil
}

// buffers are those of Compose that no answer is in, each a *[]byte.
var buffers sync.Pool

// mostKept is how long a buffer may be that is kept for other answers, so that
// a rare long one is not.
const mostKept = 64 << 10

// Compose answers as Write does, with the body that compose appends to b. That
// is used again for other answers, and nobody may hold it: what garbage a call
// leaves costs a service with many hosts more than what it takes to write them.
func Compose(w http.ResponseWriter, compose func(b []byte) []byte) (int, error) {
	return ComposeOf(w, nil, compose)
}

// ComposeOf is Compose for a body whose length is known: length is that as
// http.Header has it, nil if it is not known. It may be shared, and nobody changes it.
func ComposeOf(w http.ResponseWriter, length []string, compose func(b []byte) []byte) (int, error) {
	buffer, _ := buffers.Get().(*[]byte)
	if buffer == nil {
		buffer = new([]byte)
	}
	body := compose((*buffer)[:0])
	if length == nil {
		length = []string{strconv.Itoa(len(body))}
	}
	h := w.Header()
	h["Content-Type"], h["Content-Length"] = contentType, length
	// A failed write means that the caller has gone. An HTTP/2 connection may
	// then send from the body still.
	if _, err := w.Write(body); err == nil && cap(body) <= mostKept {
		*buffer = body
		buffers.Put(buffer)
	}
	return http.StatusOK, nil
}

// Nothing answers with status 204.
func Nothing(w http.ResponseWriter) (int, error) {
	w.WriteHeader(http.StatusNoContent)
	return http.StatusNoContent, nil
}

// isPlain says which bytes stand for themselves in a JSON string.
var isPlain = func() (is [256]bool) {
	for c := byte(' '); c <= '~'; c++ {
		is[c] = !strings.ContainsRune(`"\<>&`, rune(c))
	}
	return is
}()

// AppendText appends text as a JSON string, as encoding/json writes it.
func AppendText(b []byte, text string) []byte {
	for i := range len(text) {
		if !isPlain[text[i]] {
			quoted, _ := json.Marshal(text) // a string always can be
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, text...)
	return append(b, '"')
}

// AppendHex appends a number as a JSON string of 16 hexadecimal digits.
func AppendHex(b []byte, number uint64) []byte {
	b = append(b, '"')
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, "0123456789abcdef"[number>>shift&0xf])
	}
	return append(b, '"')
}

// Tag is the entity tag of a version, as http.Header has it: weak, since times in a
// body may differ where the version does not (RFC 9110 §8.8.1).
func Tag(version uint64) []string {
	return []string{string(AppendHex(append(make([]byte, 0, 20), "W/"...), version))}
}

// Holds reports whether the caller shows that it has an earlier answer.
func Holds(r *http.Request) bool { return len(r.Header["If-None-Match"]) > 0 }

// Unmodified says under which entity tag the answer to a GET or HEAD goes out,
// and answers with 304 if the caller has that one. Then it returns true, and
// all is done. tag is one, as http.Header has it, with its quotes, and W/ before them
// if it is weak. It may be shared, and nobody changes it.
func Unmodified(w http.ResponseWriter, r *http.Request, tag []string) bool {
	w.Header()["Etag"] = tag
	for _, line := range r.Header["If-None-Match"] {
		if matches(line, tag[0]) {
			w.WriteHeader(http.StatusNotModified)
			return true
		}
	}
	return false
}

// matches reports whether a line of If-None-Match names tag, by the weak
// comparison (RFC 9110 §8.8.3.2, §13.1.2). A tag of others may hold a comma; it
// holds no quote, so that no part of it is taken for tag.
func matches(line, tag string) bool {
	opaque := strings.TrimPrefix(tag, "W/")
	for candidate := range strings.SplitSeq(line, ",") {
		candidate = strings.Trim(candidate, " \t")
		if candidate == "*" || strings.TrimPrefix(candidate, "W/") == opaque {
			return true
		}
	}
	return false
}
