package hello_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/services/discovery/internal/hello"
)

func TestAStreamEndsWhoseFirstMessageDoesNotCome(t *testing.T) {
	for name, comesAfter := range map[string]time.Duration{
		"in time":  hello.Within - 1,
		"too late": hello.Within + 1,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ended []error
				came := hello.Expect(func(err error) { ended = append(ended, err) })
				time.Sleep(comesAfter)
				synctest.Wait()
				came()
				time.Sleep(time.Hour)
				synctest.Wait()
				if comesAfter < hello.Within {
					require.Empty(t, ended)
					return
				}
				require.Len(t, ended, 1)
				require.Equal(t, status.Error(codes.DeadlineExceeded, "no request came within 10s").Error(), ended[0].Error())
			})
		})
	}
}
