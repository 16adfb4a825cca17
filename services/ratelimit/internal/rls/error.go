package rls

// Code says whose fault it is that a request got no answer. The numbers are
// those of gRPC's status codes.
type Code uint32

// The codes that a service answers with.
const (
	Canceled         Code = 1  // the caller went away
	InvalidArgument  Code = 3  // the request is wrong
	DeadlineExceeded Code = 4  // the caller's time ran out
	Internal         Code = 13 // the answer could not be written
	Unavailable      Code = 14 // the store does not answer, or there are no rules yet
)

// Error is answered in place of a response.
type Error struct {
	Code Code
	// Text names the field and the value that are wrong, or what was tried.
	Text string
}

// Error is the text alone.
func (e *Error) Error() string { return e.Text }
