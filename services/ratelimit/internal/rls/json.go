package rls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// maxBody is the largest JSON request, in bytes; as much as gRPC takes.
const maxBody = 4 << 20

// JSON serves the same call over HTTP: the request's message as protojson in
// the body, whatever the method, and the response's message back. It answers
// 200 within the limit, 429 over it, 400 for what it cannot read or what is
// wrong in it, 413 for a body above maxBody, 503 when the store does not
// answer in time or no rules are loaded, 500 when an answer cannot be written;
// errors as plain text.
func (s *Service) JSON(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		if _, long := errors.AsType[*http.MaxBytesError](err); long {
			http.Error(w, fmt.Sprintf("the request's body is longer than %d bytes", maxBody), http.StatusRequestEntityTooLarge)
			return
		}
		http.Error(w, fmt.Sprintf("read the request's body: %v", err), http.StatusBadRequest)
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
	ctx, cancel := context.WithTimeout(r.Context(), s.options.JSONTimeout)
	defer cancel()
	answer, fault := s.ShouldRateLimit(ctx, jsonV3, string(message), nil)
	if fault != nil {
		http.Error(w, fault.Text, fault.httpStatus())
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
