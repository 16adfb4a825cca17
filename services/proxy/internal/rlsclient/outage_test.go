package rlsclient

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOutageIsLoggedOncePerChange(t *testing.T) {
	// Each letter is a second: one call that is answered (.), one that fails
	// (x), both, first answered (b), or none ( ).
	for _, c := range []struct {
		name, calls string
		want        []string
	}{
		{"a service that answers", "......", nil},
		{"one that fails and stays so", ".xxxxxxxxxxxxxxxxxxxxxx", []string{"1s fails"}},
		{"one that answers again", "xx.................x", []string{"0s fails", "11s answers again", "19s fails"}},
		{"one whose answers come after a pause", "x                .", []string{"0s fails", "17s answers again"}},
		{"one that answers now and then", ".bbbbbbbbbbbb.....bbbbbbbb", []string{"1s fails"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var log bytes.Buffer
				var got []string
				o := outage{log: slog.New(slog.NewTextHandler(&log, nil))}
				note := func(err error) {
					o.note(err)
					if _, said, ok := strings.Cut(log.String(), "rate-limit service "); ok {
						said, _, _ = strings.Cut(said, `"`)
						got = append(got, fmt.Sprintf("%v %s", time.Since(start), said))
						log.Reset()
					}
				}
				for _, call := range c.calls {
					if call == '.' || call == 'b' {
						note(nil)
					}
					if call == 'x' || call == 'b' {
						note(errors.New("no"))
					}
					time.Sleep(time.Second)
				}
				require.Equal(t, c.want, got)
			})
		})
	}
}
