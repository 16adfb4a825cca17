package router_test

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/httpfilter/router"
)

// slow is a body that takes a second over each chunk, and is in the way of who
// pulls it twice at a time.
type slow struct {
	t       *testing.T
	chunks  []string
	end     error
	pulling bool
}

// Next implements message.Body.
func (s *slow) Next() ([]byte, error) {
	if s.pulling {
		s.t.Error("two pull at a time")
	}
	s.pulling = true
	time.Sleep(time.Second)
	s.pulling = false
	if len(s.chunks) == 0 {
		return nil, s.end
	}
	chunk := s.chunks[0]
	s.chunks = s.chunks[1:]
	return []byte(chunk), nil
}

// Ready implements message.Body.
func (s *slow) Ready() bool { return false }

// readAll is what a reader gets up to its end.
func readAll(r *router.Reader) (text string, err error) {
	for {
		chunk, err := r.Next()
		if err != nil {
			return text, err
		}
		text += string(chunk)
	}
}

func TestReplay(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name  string
		end   error
		limit uint64
		after time.Duration // when the first attempt is given up
		want  string        // of the second; empty if there is none
		full  int
	}{
		{"of a body that is here", io.EOF, 100, 5 * time.Second, "one two three ", 0},
		{"of a body that still comes", io.EOF, 100, 1500 * time.Millisecond, "one two three ", 0},
		{"of a body that has not begun to", io.EOF, 100, 500 * time.Millisecond, "one two three ", 0},
		{"of a body that is just not too long", io.EOF, 14, 5 * time.Second, "one two three ", 0},
		{"of a body that is too long", io.EOF, 13, 5 * time.Second, "", 1},
		{"of a body that will be too long", io.EOF, 5, 1500 * time.Millisecond, "one two three ", 1},
		{"of a body that breaks off", broken, 100, 1500 * time.Millisecond, "one two three ", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended, full := 0, 0
				body := router.NewReplay(&slow{t: t, chunks: []string{"one ", "two ", "three "}, end: c.end}, c.limit, func() { ended++ }, func() { full++ })
				first := body.NewReader()
				require.False(t, first.Ready())
				left := make(chan error)
				go func() { // ends with the body, or as it is left
					_, err := readAll(first)
					left <- err
				}()
				time.Sleep(c.after)
				if c.want == "" {
					require.False(t, first.Leave())
					require.ErrorIs(t, <-left, c.end)
				} else {
					require.True(t, first.Leave())
					second := body.NewReader()
					text, err := readAll(second)
					require.ErrorIs(t, err, c.end)
					require.Equal(t, c.want, text)
					if err := <-left; c.after < 4*time.Second {
						require.ErrorIs(t, err, router.ErrLeft)
					}
					require.True(t, second.Ready(), "its end needs no wait")
				}
				require.Equal(t, c.full, full)
				require.Equal(t, errors.Is(c.end, io.EOF), ended == 1)
			})
		})
	}
}
