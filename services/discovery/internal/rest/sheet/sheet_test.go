package sheet

import (
	"fmt"
	"math"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// draft is a sheet of some hosts, each by its place, and a number before and after
// its time.
func draft(form *httpjson.TimeForm, hosts ...int) *Sheet {
	d, body := NewDraft(form), Room(len(hosts)/2)
	body = append(body, "[\x00"...)
	for _, host := range hosts {
		body = fmt.Appendf(body, "host %d at ", host)
		body = d.LeaveTime(body, host)
		body = fmt.Appendf(body, " of %x", strings.Repeat("a", host%300))
	}
	return d.End(append(body, ']'), 7, httpjson.Tag(7))
}

func TestAnAnswerHasTheTimesOfItsHosts(t *testing.T) {
	form := httpjson.RFC3339(3)
	times := make([]registry.Instant, 1000)
	for i := range times {
		times[i] = registry.InstantOf(time.Date(2026, 1, 31, 23, 59, 0, 0, time.UTC).Add(time.Duration(i) * 1234 * time.Millisecond))
	}
	times[1] = math.MinInt64 / 2
	for name, hosts := range map[string][]int{"none": nil, "one": {0}, "all": {0, 1, 2, 3}, "some": {1, 3, 4, 299, 300, 999}} {
		var want strings.Builder
		want.WriteString("[\x00")
		for _, host := range hosts {
			fmt.Fprintf(&want, "host %d at %s of %x", host, times[host].Time().Format("2006-01-02T15:04:05.000Z"), strings.Repeat("a", host%300))
		}
		want.WriteString("]")
		s := draft(&form, hosts...)
		require.Equal(t, len(hosts), s.Hosts, name)
		require.Equal(t, registry.Version(7), s.Version)
		require.Equal(t, httpjson.Tag(7), s.Tag())
		w := httptest.NewRecorder()
		status, err := s.Answer(w, times)
		require.NoError(t, err)
		require.Equal(t, 200, status)
		require.Equal(t, want.String(), w.Body.String(), name)
		require.Equal(t, fmt.Sprint(want.Len()), w.Header().Get("Content-Length"))
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	}
}

func TestAnAnswerIsWrittenWithoutAllocating(t *testing.T) {
	form := httpjson.RFC3339(6)
	s := draft(&form, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	times, room := make([]registry.Instant, 10), make([]byte, 0, 4096)
	servicetest.Allocations(t, 0, func() { s.append(room, times) })
}

func BenchmarkAppend(b *testing.B) {
	form := httpjson.RFC3339(6)
	s := draft(&form, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	times, room := make([]registry.Instant, 10), make([]byte, 0, 4096)
	for i := range times {
		times[i] = registry.InstantOf(time.Now())
	}
	b.ReportAllocs()
	for b.Loop() {
		s.append(room, times)
	}
}
