// Package httpjson is how the gate and all behind it answer over HTTP: in JSON,
// whole values and bodies written by hand, and with nothing at all to readers who
// have the answer already. It knows nothing of hosts.
package httpjson

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Answer answers with v as JSON. It returns what a handler returns, as the
// others here do: the status, and nil.
func Answer(w http.ResponseWriter, status int, v any) (int, error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a failed write means that the caller has gone
	return status, nil
}

// Write answers with status 200 and a body that is JSON already. The length
// goes before it: without one net/http would cut a long body in chunks.
func Write(w http.ResponseWriter, body []byte) (int, error) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // a failed write means that the caller has gone
	return http.StatusOK, nil
}

// Nothing answers with status 204.
func Nothing(w http.ResponseWriter) (int, error) {
	w.WriteHeader(http.StatusNoContent)
	return http.StatusNoContent, nil
}

// AppendText appends text as a JSON string, as encoding/json writes it.
func AppendText(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(text) // a string always can be
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, text...)
	return append(b, '"')
}

// Tag is the entity tag of a version: weak, since times in a body may differ
// where the version does not (RFC 9110 §8.8.1).
func Tag(version uint64) string { return fmt.Sprintf(`W/"%016x"`, version) }

// Holds reports whether the caller shows that it has an earlier answer.
func Holds(r *http.Request) bool { return len(r.Header["If-None-Match"]) > 0 }

// Unmodified says under which entity tag the answer to a GET or HEAD goes out,
// and answers with 304 if the caller has that one. Then it returns true, and
// all is done. An entity tag has its quotes, and W/ before them if it is weak.
func Unmodified(w http.ResponseWriter, r *http.Request, tag string) bool {
	w.Header().Set("Etag", tag)
	for _, line := range r.Header["If-None-Match"] {
		if matches(line, tag) {
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
