package message_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/http2"
	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

// show writes the fields as "a=1 b=2".
func show(h *message.Headers) string {
	var fields []string
	for i := range h.Len() {
		name, value := h.At(i)
		fields = append(fields, fmt.Sprintf("%s=%s", name, value))
	}
	return strings.Join(fields, " ")
}

func TestHeaders(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*message.Headers)
		want   string // of a=1 b=2 a=3 c=4 after the change
	}{
		{"are in the order of the message", func(*message.Headers) {}, "a=1 b=2 a=3 c=4"},
		{"Add puts a field at the end though its name is there", func(h *message.Headers) { h.Add("b", "5") }, "a=1 b=2 a=3 c=4 b=5"},
		{"AddBytes copies", func(h *message.Headers) {
			value := []byte("5")
			h.AddBytes("d", value)
			value[0] = 'x'
		}, "a=1 b=2 a=3 c=4 d=5"},
		{"AddBytes takes a view of the list itself", func(h *message.Headers) {
			value, _ := h.Get("b")
			h.AddBytes("d", value)
		}, "a=1 b=2 a=3 c=4 d=2"},
		{"Set replaces the first of a name and removes the others", func(h *message.Headers) { h.Set("a", "longer") }, "a=longer b=2 c=4"},
		{"Set adds what is not there", func(h *message.Headers) { h.Set("d", "5") }, "a=1 b=2 a=3 c=4 d=5"},
		{"Set takes an empty value", func(h *message.Headers) { h.Set("b", "") }, "a=1 b= a=3 c=4"},
		{"Join makes one of all, at the end", func(h *message.Headers) { h.Join("a", ", ", []byte("5")) }, "b=2 c=4 a=1, 3, 5"},
		{"Join leaves out what is empty", func(h *message.Headers) {
			h.Add("d", "")
			h.Join("d", ",", []byte("5"))
		}, "a=1 b=2 a=3 c=4 d=5"},
		{"Join adds what is not there", func(h *message.Headers) { h.Join("d", ",", []byte("5")) }, "a=1 b=2 a=3 c=4 d=5"},
		{"Remove takes out all of a name", func(h *message.Headers) { h.Remove("a") }, "b=2 c=4"},
		{"Remove of what is not there changes nothing", func(h *message.Headers) { h.Remove("d") }, "a=1 b=2 a=3 c=4"},
		{"Keep takes out what it is told to", func(h *message.Headers) {
			h.Keep(func(name, value []byte) bool { return string(name) != "b" && string(value) != "3" })
		}, "a=1 c=4"},
		{"Keep of everything changes nothing", func(h *message.Headers) { h.Keep(func(_, _ []byte) bool { return true }) }, "a=1 b=2 a=3 c=4"},
		{"Reset leaves none", func(h *message.Headers) { h.Reset() }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var h message.Headers
			h.Add("a", "1")
			h.Add("b", "2")
			h.Add("a", "3")
			h.Add("c", "4")
			c.change(&h)
			require.Equal(t, c.want, show(&h))
		})
	}
}

func TestHeadersFind(t *testing.T) {
	var h message.Headers
	h.Add("a", "1")
	h.Add("a", "2")
	h.Add("ab", "")

	value, ok := h.Get("a")
	require.True(t, ok)
	require.Equal(t, "1", string(value), "the first one")
	value, ok = h.Get("ab")
	require.True(t, ok)
	require.Empty(t, value)
	_, ok = h.Get("b")
	require.False(t, ok)
	require.True(t, h.Has("ab"))
	require.False(t, h.Has("A"), "names are lower case")
	require.True(t, h.Remove("a"))
	require.False(t, h.Remove("a"))
}

func TestViewsStayValidUntilReset(t *testing.T) {
	var h message.Headers
	h.Add("a", "first")
	view, _ := h.Get("a")
	h.Remove("a")
	for i := range 1000 { // enough to move the slab
		h.Add("b", fmt.Sprint("value ", i))
	}
	h.Set("b", "other")
	require.Equal(t, "first", string(view))
	require.Equal(t, len(view), cap(view), "what is appended to a view lands elsewhere")
}

func TestLoadAndMark(t *testing.T) {
	text := []byte("GET / HTTP/1.1\r\nName: value\r\n\r\n")
	var h message.Headers
	h.Add("from", "before")
	block := h.Load(text)
	require.Zero(t, h.Len())
	block[16] = 'n'
	h.Mark(16, 20, 22, 27)
	require.Equal(t, "name=value", show(&h))
	require.Contains(t, string(text), "Name", "Load copied it")
}

func TestHeadersUsedAgainAllocateNothing(t *testing.T) {
	var h message.Headers
	block := []byte("name: value")
	servicetest.Allocations(t, 0, func() {
		h.Load(block)
		h.Mark(0, 4, 6, 11)
		h.Add("x-a", "1")
		h.Set("x-a", "2")
		h.AddBytes("x-b", block)
		h.Remove("name")
		h.Reset()
	})
}

func TestSpellingIsRememberedWhereItIsKept(t *testing.T) {
	text := []byte("GET / HTTP/1.1\r\nHOST: a\r\nX-My-ID: 1\r\n\r\n")
	var h message.Headers
	load := func(keep bool) {
		block := h.Load(text)
		if keep {
			h.KeepSpelling()
		}
		copy(block[25:32], "x-my-id")
		h.Mark(25, 32, 34, 35)
		h.Add("x-own", "2")
	}
	load(true)
	require.True(t, h.Spelt())
	require.Equal(t, "x-my-id=1 x-own=2", show(&h))
	require.Equal(t, "X-My-ID", string(h.Spelling(0)))
	require.Equal(t, "x-own", string(h.Spelling(1)))
	require.Equal(t, "HOST", string(h.SpellingOf([]byte("host"))), "though it is not in the list")
	require.Equal(t, "connection", string(h.SpellingOf([]byte("connection"))))
	h.Set("x-my-id", "3")
	require.Equal(t, "X-My-ID", string(h.Spelling(0)), "another value, the same name")
	h.Remove("x-my-id")
	h.Add("x-my-id", "4")
	require.Equal(t, "x-own=2 x-my-id=4", show(&h))
	require.Equal(t, "X-My-ID", string(h.Spelling(1)), "another field, the same name")

	load(false)
	require.False(t, h.Spelt(), "of another message")
	require.Equal(t, "x-my-id", string(h.Spelling(0)))
	require.Equal(t, "host", string(h.SpellingOf([]byte("host"))))
}

func TestSwapTakesOverTheFieldsOfHTTP2(t *testing.T) {
	var f http2.Fields
	f.Add("a", "1")
	f.Add("b", "2")
	_, value := f.At(1)
	var h message.Headers
	h.Add("old", "0")
	h.Swap(&f)
	require.Equal(t, "a=1 b=2", show(&h))
	h.Set("a", "3")
	require.Equal(t, "a=3 b=2", show(&h))
	require.Equal(t, "2", string(value), "views stay")
	require.Equal(t, 1, f.Len(), "the memory of the other list")
}
