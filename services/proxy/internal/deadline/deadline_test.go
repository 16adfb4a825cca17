package deadline_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/deadline"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestExtendMovesADeadlineOnlyWhenItMust(t *testing.T) {
	var set []time.Duration
	start := time.Now()
	d := deadline.Of(func(at time.Time) error {
		if at.IsZero() {
			set = append(set, 0)
		} else {
			set = append(set, at.Sub(start))
		}
		return nil
	})
	for _, c := range []struct {
		what    string
		after   time.Duration
		timeout time.Duration
		want    []time.Duration
	}{
		{"the first is set, with a quarter to spare", 0, 8 * time.Second, []time.Duration{10 * time.Second}},
		{"soon after it is late enough", time.Second, 8 * time.Second, nil},
		{"to the last moment", 2 * time.Second, 8 * time.Second, nil},
		{"then it moves", 2*time.Second + 1, 8 * time.Second, []time.Duration{12*time.Second + 1}},
		{"a shorter one moves it back", 3 * time.Second, 4 * time.Second, []time.Duration{8 * time.Second}},
		{"none takes it off", 3 * time.Second, 0, []time.Duration{0}},
		{"once", 3 * time.Second, 0, nil},
	} {
		set = nil
		d.Extend(start.Add(c.after), c.timeout)
		require.Equal(t, c.want, set, c.what)
	}
}

func TestADeadlineThatIsCutStaysSo(t *testing.T) {
	var set []time.Time
	var d deadline.Deadline
	meanwhile := func() {}
	d = deadline.Of(func(at time.Time) error {
		set = append(set, at)
		meanwhile()
		return nil
	})
	past := func() bool { return set[len(set)-1].Before(time.Now()) }
	later := time.Now().Add(time.Hour)
	meanwhile = func() { // the cut comes while a later one is being set
		meanwhile = func() {}
		d.Cut()
	}
	d.Set(later)
	require.True(t, past())
	d.Extend(later, time.Hour)
	require.True(t, past())
}
