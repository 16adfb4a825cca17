// Package hello bounds the time that a stream of gRPC takes to say who opened it:
// until its first message came, nobody is known whose streams are counted. The
// servers of xDS, of load reports and of health checks ask it of each stream. It
// ends none itself.
package hello

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Within is how long a stream may take to send its first message.
const Within = 10 * time.Second

// Expect calls end once, with the status that a stream ends by, if neither came was
// called before that time was over nor the stream ended, which is to call it too. end
// is called on a goroutine of its own.
func Expect(end func(error)) (came func()) {
	timer := time.AfterFunc(Within, func() {
		end(status.Errorf(codes.DeadlineExceeded, "no request came within %v", Within))
	})
	return func() { timer.Stop() }
}
