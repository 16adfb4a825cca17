package hcm

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/proxy/internal/message"
)

// untouchable is a body that is here, and counts how often it is pulled.
type untouchable struct{ pulls int }

func (b *untouchable) Ready() bool { return true }

func (b *untouchable) Next() ([]byte, error) {
	b.pulls++
	return []byte("x"), nil
}

// An upload asks whether there is something before it begins to pull; between
// the two the response may come.
func TestABodyThatSomebodyHasAskedForIsLeftToThem(t *testing.T) {
	inner := &untouchable{}
	request := &message.Request{Body: inner}
	b := &requestBody{}
	b.begin(request)
	require.True(t, request.Body.Ready())
	require.False(t, b.settle())
	require.Zero(t, inner.pulls)
}

func TestBodyOfKnownLengthIsFinishedWithItsLastByte(t *testing.T) {
	request := &message.Request{Body: &untouchable{}, BodyLength: 2}
	b := &requestBody{connection: &connection{work: &work{}}}
	b.begin(request)
	for _, finished := range []bool{false, true} {
		_, err := request.Body.Next()
		require.NoError(t, err)
		require.Equal(t, finished, b.finished())
	}
	require.True(t, b.settle(), "though whoever pulls has not seen the end")
}
