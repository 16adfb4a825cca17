package call

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
)

// MaxBody is the longest body that a call commonly has, in bytes.
const MaxBody = 64 << 10

// errBodyTooLong is the cause of a refusal of a body that is longer than its call
// may have.
var errBodyTooLong = errors.New("the body is too long")

// ReadBody reads a body of limit bytes at most, within the time that the
// listener gives. The error is a *Refusal, of a coded body too: what is in it might
// be far longer.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	for _, coding := range r.Header["Content-Encoding"] {
		if coding != "" && !strings.EqualFold(coding, "identity") {
			w.Header().Set("Accept-Encoding", "identity") // as RFC 9110 §12.5.3 has it
			return nil, Refuse(http.StatusUnsupportedMediaType, "content-encoding %q: no coded body is read", coding)
		}
	}
	if r.ContentLength > limit {
		return nil, bodyRefusal(&http.MaxBytesError{Limit: limit})
	}
	// MinRead is what the buffer wants to have free before it sees the end.
	body := bytes.NewBuffer(make([]byte, 0, max(r.ContentLength, 0)+bytes.MinRead))
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, limit)); err != nil {
		return nil, bodyRefusal(err)
	}
	return body.Bytes(), nil
}

// IsUTF8 reports whether a body is to be read as UTF-8 by the parameters of its content
// type, as mime.ParseMediaType gives them: whether they name no charset, UTF-8, its
// part US-ASCII, or one of others, which are in lower case.
func IsUTF8(parameters map[string]string, others ...string) bool {
	charset := strings.ToLower(parameters["charset"])
	return slices.Contains([]string{"", "utf-8", "us-ascii"}, charset) || slices.Contains(others, charset)
}

// HasBody reports whether a call whose body may be left out brought one. The
// error is a *Refusal.
func HasBody(r *http.Request) (bool, error) {
	if r.ContentLength >= 0 {
		return r.ContentLength > 0, nil
	}
	first := make([]byte, 1)
	n, err := io.ReadFull(r.Body, first)
	if n == 0 && errors.Is(err, io.EOF) {
		return false, nil
	}
	if err != nil {
		return false, bodyRefusal(err)
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(first), r.Body), r.Body}
	return true, nil
}

// bodyRefusal tells the caller why a body could not be read.
func bodyRefusal(err error) error {
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &Refusal{
			Status: http.StatusRequestEntityTooLarge,
			Reason: fmt.Sprintf("the body is longer than %d bytes", tooLarge.Limit),
			Cause:  errBodyTooLong,
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return Refuse(http.StatusRequestTimeout, "the body did not come in time")
	}
	return Refuse(http.StatusBadRequest, "read the body: %v", err)
}
