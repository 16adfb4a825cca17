package rls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// maxBody is the largest JSON request, in bytes; as much as gRPC takes.
const maxBody = 4 << 20

// JSON serves the same call over HTTP: the request's message as protojson in
// the body, whatever the method, and the response's message back. It answers
// 200 within the limit, 429 over it, 400 for what it cannot read or what is
// wrong in it, 408 for a body that does not come whole within JSONTimeout, 413
// for one above maxBody, 503 when the store does not answer in what is left of
// JSONTimeout or no rules are loaded, 500 when an answer cannot be written; errors
// as plain text.
func (s *Service) JSON(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), s.options.JSONTimeout)
	defer cancel()
	body, fault := s.readBody(w, r)
	if fault != nil {
		http.Error(w, fault.text, fault.status)
		return
	}
	if len(body) == 0 { // such as a browser's GET
		http.Error(w, "the request has no body; it must be a RateLimitRequest as JSON", http.StatusBadRequest)
		return
	}
	in := &pb.RateLimitRequest{}
	if err := protojson.Unmarshal(body, in); err != nil {
		http.Error(w, fmt.Sprintf("read the request as JSON: %v", err), http.StatusBadRequest)
		return
	}
	message, err := proto.Marshal(in)
	if err != nil {
		http.Error(w, fmt.Sprintf("read the request as JSON: %v", err), http.StatusBadRequest)
		return
	}
	answer, refused := s.ShouldRateLimit(ctx, jsonV3, string(message), nil)
	if refused != nil {
		http.Error(w, refused.Text, refused.httpStatus())
		return
	}
	out := &pb.RateLimitResponse{}
	err = proto.Unmarshal(answer, out)
	var text []byte
	if err == nil {
		text, err = protojson.Marshal(out)
	}
	if err != nil {
		http.Error(w, fmt.Sprintf("write the answer as JSON: %v", err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if out.GetOverallCode() == pb.RateLimitResponse_OVER_LIMIT {
		w.WriteHeader(http.StatusTooManyRequests)
	}
	_, _ = w.Write(text) // a failed write means that the caller has gone
}

// bodyFault is why there is no body to read.
type bodyFault struct {
	status int
	text   string
}

// readBody reads the whole body within JSONTimeout. One that is announced as too
// long is not waited for.
func (s *Service) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *bodyFault) {
	tooLong := &bodyFault{http.StatusRequestEntityTooLarge, fmt.Sprintf("the request's body is longer than %d bytes", maxBody)}
	if r.ContentLength > maxBody {
		return nil, tooLong
	}
	connection := http.NewResponseController(w) // a recorder of tests has no deadlines
	_ = connection.SetReadDeadline(time.Now().Add(s.options.JSONTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		// Or it would end the request while the store is asked.
		_ = connection.SetReadDeadline(time.Time{})
		return body, nil
	}
	if _, long := errors.AsType[*http.MaxBytesError](err); long {
		return nil, tooLong
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, &bodyFault{http.StatusRequestTimeout, fmt.Sprintf("the request's body did not come whole within %v", s.options.JSONTimeout)}
	}
	return nil, &bodyFault{http.StatusBadRequest, fmt.Sprintf("read the request's body: %v", err)}
}

// httpStatus is HTTP's word for the code.
func (e *Error) httpStatus() int {
	switch e.Code {
	case InvalidArgument:
		return http.StatusBadRequest
	case Internal:
		return http.StatusInternalServerError
	}
	return http.StatusServiceUnavailable
}
