package http1_test

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/message"
)

func TestPrefaceIsLookedAtAndLeft(t *testing.T) {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	for text, want := range map[string]string{
		preface: preface, preface + "more": preface,
		"PRI * HTTP/2.0\r\n\r\nXX": "", "GET / HTTP/1.1\r\nHost: a\r\n\r\n": "", "P": "",
	} {
		r := http1.NewReader(iotest.OneByteReader(strings.NewReader(text)), http1.Limits{HeadBytes: 1000, Headers: 10})
		got, err := r.Preface(preface)
		require.Equal(t, want, string(got), text)
		if text == "P" {
			require.ErrorIs(t, err, io.EOF)
			continue
		}
		require.NoError(t, err)
		if strings.HasPrefix(text, "GET") { // nothing was taken
			var m message.Request
			_, err = r.ReadRequest(&m)
			require.NoError(t, err)
			require.Equal(t, "a", string(m.Authority))
		}
	}
}
