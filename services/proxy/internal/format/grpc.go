package format

import (
	"errors"
	"strconv"

	"github.com/weirproxy/weir/services/proxy/internal/grpcwire"
)

// grpcNames are the names of gRPC's status codes, in their order.
var grpcNames = [...]struct{ camel, snake string }{
	{"OK", "OK"},
	{"Canceled", "CANCELLED"},
	{"Unknown", "UNKNOWN"},
	{"InvalidArgument", "INVALID_ARGUMENT"},
	{"DeadlineExceeded", "DEADLINE_EXCEEDED"},
	{"NotFound", "NOT_FOUND"},
	{"AlreadyExists", "ALREADY_EXISTS"},
	{"PermissionDenied", "PERMISSION_DENIED"},
	{"ResourceExhausted", "RESOURCE_EXHAUSTED"},
	{"FailedPrecondition", "FAILED_PRECONDITION"},
	{"Aborted", "ABORTED"},
	{"OutOfRange", "OUT_OF_RANGE"},
	{"Unimplemented", "UNIMPLEMENTED"},
	{"Internal", "INTERNAL"},
	{"Unavailable", "UNAVAILABLE"},
	{"DataLoss", "DATA_LOSS"},
	{"Unauthenticated", "UNAUTHENTICATED"},
}

// grpcStatusOperator makes GRPC_STATUS(CAMEL_STRING, SNAKE_STRING or NUMBER).
func grpcStatusOperator(argument string) (operator, error) {
	switch argument {
	case "NUMBER":
		return numeric(grpcStatus), nil
	case "", "CAMEL_STRING", "SNAKE_STRING":
	default:
		return operator{}, errors.New("it is CAMEL_STRING, SNAKE_STRING or NUMBER")
	}
	return operator{write: func(b []byte, f *Facts) ([]byte, bool) {
		n, ok := grpcStatus(f)
		switch {
		case !ok:
			return b, false
		case n < 0 || n >= int64(len(grpcNames)):
			return strconv.AppendInt(b, n, 10), true
		case argument == "SNAKE_STRING":
			return append(b, grpcNames[n].snake...), true
		default:
			return append(b, grpcNames[n].camel...), true
		}
	}}, nil
}

// grpcStatus is GRPCStatus for gRPC calls; other requests have none.
func grpcStatus(f *Facts) (int64, bool) {
	if !isGRPC(f) {
		return 0, false
	}
	return GRPCStatus(f)
}

// isGRPC says whether the request is a gRPC call, by its content-type.
func isGRPC(f *Facts) bool {
	if f.Request == nil {
		return false
	}
	kind, _ := f.Request.Headers.Get("content-type")
	return grpcwire.IsContentType(kind)
}

// GRPCStatus is the grpc-status of the response, of its trailers before its
// head; of one without, the status that a gRPC client takes its HTTP status
// for. It is false if there is no response, or its grpc-status is no number.
func GRPCStatus(f *Facts) (code int64, ok bool) {
	if f.ResponseTrailers != nil {
		if value, ok := f.ResponseTrailers.Get("grpc-status"); ok {
			return grpcwire.Status(value)
		}
	}
	if f.Response == nil || f.Response.Status == 0 {
		return 0, false
	}
	if value, ok := f.Response.Headers.Get("grpc-status"); ok {
		return grpcwire.Status(value)
	}
	return grpcwire.OfHTTP(f.Response.Status), true
}
