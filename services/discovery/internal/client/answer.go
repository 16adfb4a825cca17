package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// longestAnswer bounds what is read of an answer, in bytes; a list of 100,000
// hosts is about half of it.
const longestAnswer = 128 << 20

// longestWait bounds for how long a registry is passed over because it said so:
// one that is wrong about that must not cost a host its registration.
const longestWait = 10 * time.Second

// StatusError is an answer with a status that is no success.
type StatusError struct {
	Status int
	// text is the call, the status and the registry's reason.
	text string
}

func (e *StatusError) Error() string { return e.text }

// refused makes the error of an answer that is no success.
func refused(request *http.Request, response *http.Response, body []byte) *StatusError {
	reason := strings.TrimSpace(string(body[:min(len(body), 2048)]))
	var said struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &said) == nil && said.Error != "" {
		reason = said.Error
	}
	text := fmt.Sprintf("%s %s: %s", request.Method, request.URL, response.Status)
	if reason != "" {
		text += ": " + reason
	}
	return &StatusError{Status: response.StatusCode, text: text}
}

// readAnswer reads a body to its end, so that the connection is used again.
func readAnswer(body io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(body, longestAnswer+1))
	if err == nil && len(text) > longestAnswer {
		err = fmt.Errorf("longer than %d bytes", longestAnswer)
	}
	return text, err
}

// retryAfter is how long an answer asks its reader to wait, in whole seconds,
// longestWait at most; 0 if it does not say.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.ParseUint(h.Get("Retry-After"), 10, 32)
	if err != nil {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, longestWait)
}

// IsRefusal reports whether a registry understood a call and will not do it: the
// same call will be refused again. Of several registries one is enough.
func IsRefusal(err error) bool {
	answer, ok := errors.AsType[*StatusError](err)
	if !ok {
		return false
	}
	switch answer.Status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false // later it may be done
	}
	return answer.Status/100 == 4
}

// IsUnknown reports whether a registry does not know what a call is about.
func IsUnknown(err error) bool {
	answer, ok := errors.AsType[*StatusError](err)
	return ok && answer.Status == http.StatusNotFound
}

// IsUnsent reports whether a call had no connection to be sent on.
func IsUnsent(err error) bool {
	network, ok := errors.AsType[*net.OpError](err)
	return ok && network.Op == "dial"
}
