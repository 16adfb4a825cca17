package accesslog_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/accesslog"
	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
)

// TestLinesOfAStreamThatGoesOn has lines tell the counts of now, and all else as it was at
// the last update.
func TestLinesOfAStreamThatGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	synctest.Test(t, func(t *testing.T) {
		files, _ := newFiles()
		logs, err := parse(t, files, one(path, "%ACCESS_LOG_TYPE% %DURATION% %RESPONSE_CODE% %BYTES_SENT% %REQ(X-N)%\n", ""))
		require.NoError(t, err)
		stop := run(t, files)
		counted := 0
		p := accesslog.NewPeriodic(logs, "Now", 10*time.Millisecond, func() *layeredruntime.Snapshot { return nil }, func() { counted++ })
		f := &format.Facts{}
		begin := func() {
			f.Reset(facts(nil).Request, nil, nil)
			f.Start = time.Now()
			p.Begin(f)
		}
		begin()
		f.AddSent(5)
		f.ResponseCode = 200
		f.Request.Headers.Set("x-n", "6")
		time.Sleep(25 * time.Millisecond)
		p.Update()
		time.Sleep(10 * time.Millisecond)
		p.End()
		p.Update() // of nothing
		f.Reset(nil, nil, nil)
		time.Sleep(time.Second)
		require.Equal(t, 3, counted)

		begin()
		time.Sleep(9 * time.Millisecond)
		p.End()
		begin()
		time.Sleep(19 * time.Millisecond)
		p.End()
		stop()
	})
	want := ""
	for _, line := range []string{"10 0 5 5", "20 0 5 5", "30 200 5 6", "10 0 0 5"} {
		want += fmt.Sprintf("Now %s\n", line)
	}
	require.Equal(t, want, read(t, path))
}

func TestNoLinesWhereNoneAreWanted(t *testing.T) {
	files, _ := newFiles()
	require.Nil(t, accesslog.NewPeriodic(nil, "Now", time.Second, nil, nil))
	none := accesslog.NewPeriodic([]*accesslog.Log{files.At("log")}, "Now", 0, nil, nil)
	require.Nil(t, none)
	none.Begin(nil)
	none.Update()
	none.End()
}
